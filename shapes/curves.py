"""`python -m shapes.curves`: the loss curves of the shipped models as one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from matplotlib import pyplot


def main(
    curves: Annotated[Path, typer.Option(help="folder of <model>.jsonl")] = Path("models/curves"),
    output: Annotated[Path, typer.Option(help="the picture to write")] = Path("docs/images/training.png"),
) -> None:
    """Plot every curve of a folder, loss on a logarithmic axis."""
    files = sorted(curves.glob("*.jsonl"))
    figure, axes = pyplot.subplots(1, len(files), figsize=(3.2 * len(files), 2.8), dpi=90)
    for axis, file in zip(axes, files, strict=True):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        axis.semilogy([row["iteration"] for row in rows], [row["loss"] for row in rows])
        axis.set(title=file.stem, xlabel="iteration", ylabel="loss")
        axis.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(output)


if __name__ == "__main__":
    typer.run(main)
