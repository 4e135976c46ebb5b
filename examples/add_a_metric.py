"""Measure a variant by a metric of your own: `examples/metrics/edge_error.py`.

A metric is one file, and the file's name is the metric's name. Here a folder of one's own is searched after the
library's; a metric that is to stay belongs into quant/fidelity/metrics.

python examples/add_a_metric.py models/shapes-sd models/variants/shapes-sd/w8a8-minmax
"""

import sys
from pathlib import Path

import facsimile
import quant.fidelity.metrics

quant.fidelity.metrics.__path__.append(str(Path(__file__).parent / "metrics"))

model, folder = sys.argv[1:]
found = facsimile.compare(model, folder, ["a red cube", "a green cone"], metrics=["psnr", "edge_error"])
for name, statistic in found.items():
    print(f"{name}: {statistic.mean:.4f}")
