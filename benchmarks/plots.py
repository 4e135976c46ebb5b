"""Pictures of results, as SVG files that stay the same when the figures do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.operators import ORDER

mpl.use("Agg")
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "facsimile", "font.size": 9, "axes.spines.top": False}
COLOURS = {"ours": "#c2410c", "rival": "#64748b"}


def steps(result: dict[str, Any], path: Path) -> None:
    """Median seconds of every contender, the fastest on top, with quartiles."""
    medians = result["median_s"]
    names = sorted(medians, key=lambda name: -medians[name])
    low = [medians[name] - result["spread_s"][name]["q25"] for name in names]
    high = [result["spread_s"][name]["q75"] - medians[name] for name in names]
    colours = [COLOURS["ours" if name.startswith("ours") else "rival"] for name in names]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.6 + 0.27 * len(names)), layout="constrained")
        axes.barh(names, [medians[name] for name in names], xerr=[low, high], color=colours, error_kw={"lw": 1})
        axes.set_xlabel(f"seconds per step, {result['shape']}, batch {result['batch']}")
        _write(figure, path)


def breakdown(result: dict[str, Any], path: Path) -> None:
    """Seconds of each class of operators, stacked, one bar per contender."""
    seconds = result["seconds"]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.9 + 0.4 * len(seconds)), layout="constrained")
        left = np.zeros(len(seconds))
        for kind in ORDER:
            width = np.array([classes[kind] for classes in seconds.values()])
            axes.barh(list(seconds), width, left=left, label=kind)
            left += width
        axes.invert_yaxis()
        axes.set_xlabel(f"seconds of one step, {result['shape']}, batch {result['batch']}")
        axes.legend(ncols=len(ORDER), fontsize=7, loc="lower center", bbox_to_anchor=(0.45, 1.0), frameon=False)
        _write(figure, path)


def roofline(result: dict[str, Any], path: Path) -> None:
    """Operations per second against operations per byte moved, under the two roofs of the machine."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        intensity = np.logspace(0, 4, 100)
        for kind, marker in (("int8", "o"), ("bf16", "s")):
            peak = result["attainable_operations_per_s"][kind]
            colour = COLOURS["ours" if kind == "int8" else "rival"]
            roof = np.minimum(peak, result["bandwidth_bytes_per_s"] * intensity)
            axes.loglog(intensity, roof / 1e12, color=colour, lw=1)
            layers = result["layers"].values()
            axes.scatter(
                [layer["operations"] / layer["bytes"][kind] for layer in layers],
                [layer["operations_per_s"][kind] / 1e12 for layer in layers],
                color=colour,
                marker=marker,
                s=16,
                label=f"{kind}, attainable {peak / 1e12:.1f} Top/s",
            )
        theoretical = result["theoretical_int8_operations_per_s"]
        if theoretical:
            axes.axhline(
                theoretical / 1e12, ls=":", color="black", lw=1, label=f"int8 by the clock: {theoretical / 1e12:.1f}"
            )
        axes.set_xlabel("operations per byte moved (input, weight and output, each once)")
        axes.set_ylabel("10¹² operations per second")
        axes.legend(fontsize=8, frameon=False)
        _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
