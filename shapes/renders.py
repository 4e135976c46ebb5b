"""Renders of many scenes, made once and kept on disk as one array per set."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from shapes.renderer import IMAGE_SIZE, render
from shapes.scene import Scene


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
