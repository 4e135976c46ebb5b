"""`python -m shapes.prompts`: writes the prompt sets of the embedded world, with the truth that the judge checks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated

import typer

from shapes.caption import Style, caption
from shapes.scene import Split, draw_scene
from shapes.vocabulary import attributes

COUNTS = {Split.CALIBRATION: 256, Split.VALIDATION: 256, Split.TEST: 1024}


def prompt_lines(style: Style, split: Split, count: int) -> list[str]:
    """`count` JSON lines with different prompts; the compositions of one split are in no other."""
    rng = random.Random(f"prompts:{style}:{split}")
    lines: dict[str, str] = {}
    while len(lines) < count:
        scene = draw_scene(rng, split)
        text = caption(scene, style, rng)
        row = {"id": f"{style}-{split}-{len(lines):04}", "prompt": text, "attributes": attributes(scene)}
        lines.setdefault(text, json.dumps(row))
    return list(lines.values())


def main(output: Annotated[Path, typer.Option(help="folder of prompt sets")] = Path("prompts")) -> None:
    """Write shapes-plain and shapes-ornate."""
    for style in Style:
        folder = output / f"shapes-{style}"
        folder.mkdir(parents=True, exist_ok=True)
        for split, count in COUNTS.items():
            lines = prompt_lines(style, split, count)
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
