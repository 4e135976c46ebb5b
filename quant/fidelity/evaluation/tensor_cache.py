"""Tensors on disk by key, so that a run that was killed goes on where it was, and the reference is drawn only once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from contract.folders import TEMPORARY, replace_file

Tensors = dict[str, Tensor]

_ABANDONED_SECONDS = 3600.0


class TensorCache:
    """Files `<folder>/ab/<key>.safetensors`, complete or not there. A file that cannot be read is made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for part in folder.glob(f"??/{TEMPORARY}*"):  # of a run that was killed while it wrote
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                part.unlink(missing_ok=True)

    def get(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """The tensors of a key, made now if need be."""
        path = self._folder / key[:2] / f"{key}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError):
            tensors = {name: tensor.contiguous() for name, tensor in make().items()}
            replace_file(path, save(tensors))
            return tensors
