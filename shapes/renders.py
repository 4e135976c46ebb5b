"""Renders of many scenes, kept on disk as one array per set; `python -m shapes.renders` writes pictures."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from shapes.renderer import IMAGE_SIZE, render
from shapes.scene import Scene, Split, draw_scenes


def _picture(scene: Scene) -> NDArray[np.uint8]:
    return render(scene)[0]


def render_all(scenes: list[Scene], processes: int = 1) -> NDArray[np.uint8]:
    """Pictures of `scenes`, uint8 [N, 128, 128, 3], in their order."""
    pictures = np.empty((len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    with get_context("spawn").Pool(processes) as pool:
        done = pool.imap(_picture, scenes, chunksize=32)
        for i, picture in enumerate(track(done, "rendering", len(scenes), console=Console(stderr=True))):
            pictures[i] = picture
    return pictures


def cached_renders(scenes: list[Scene], path: Path, processes: int = 1) -> NDArray[np.uint8]:
    """As `render_all`, memory-mapped from `path` (.npy), which is made on the first call.

    Raises ValueError when the file holds another number of pictures."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial.npy")
        np.save(unfinished, render_all(scenes, processes))
        unfinished.replace(path)
    pictures: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    if len(pictures) != len(scenes):
        raise ValueError(f"{path} holds {len(pictures)} pictures, wanted {len(scenes)}: remove it to render again")
    return pictures


def main(
    output: Annotated[Path, typer.Option(help="folder of the pictures")] = Path("runs/real"),
    count: Annotated[int, typer.Option(min=1, help="how many scenes")] = 1000,
    split: Annotated[Split, typer.Option(help="which compositions")] = Split.TEST,
    seed: Annotated[int, typer.Option(help="seed of the scenes")] = 0,
    processes: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Write renders of scenes as PNG files: real pictures, for distances to reality."""
    output.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(render_all(draw_scenes(count, split, seed), processes)):
        Image.fromarray(picture).save(output / f"{i:05}.png")


if __name__ == "__main__":
    typer.run(main)
