"""A journal of finished pieces of work, so that a calibration that was killed goes on where it was."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from contract.folders import replace_file

Tensors = dict[str, Tensor]

_CLOCK = "seconds"


class Journal:
    """One safetensors file for every piece, complete or not there. Pieces must not depend on how many were done in this
    process: each draws from a generator of its own."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._started, self._spent = time.monotonic(), 0.0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._spent = _read_seconds(folder / _CLOCK)

    @property
    def seconds(self) -> float:
        """Time spent so far: here, and by earlier processes up to the last piece that each finished."""
        return self._spent + time.monotonic() - self._started

    def once(self, piece: str, work: Callable[[], Tensors]) -> Tensors:
        """What `work` returned when this piece was first finished, or what it returns now; tensors keep their dtype.
        A damaged file is made anew."""
        if self._folder is None:
            return work()
        path = self._folder / f"{piece}.safetensors"
        if path.is_file():
            try:
                return load(path.read_bytes())
            except SafetensorError:
                path.unlink()
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in work().items()}
        replace_file(path, save(tensors))
        replace_file(self._folder / _CLOCK, f"{self.seconds:.3f}".encode())
        return tensors

    def has(self, piece: str) -> bool:
        """Whether the piece is finished."""
        return self._folder is not None and (self._folder / f"{piece}.safetensors").is_file()

    def forget(self, piece: str) -> None:
        """Drops a piece that later ones have taken the place of."""
        if self._folder is not None:
            (self._folder / f"{piece}.safetensors").unlink(missing_ok=True)

    def remove(self) -> None:
        """Drops everything."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def sweep(journals: Path, older_than: float) -> None:
    """Removes the journals in a folder that nobody has added a piece to for `older_than` seconds."""
    for folder in journals.glob("*/"):
        with suppress(FileNotFoundError):  # its own calibration may end meanwhile
            if time.time() - folder.stat().st_mtime >= older_than:
                shutil.rmtree(folder, ignore_errors=True)


def _read_seconds(clock: Path) -> float:
    """What an earlier process noted; nothing where that is not there or damaged."""
    try:
        return float(clock.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0
