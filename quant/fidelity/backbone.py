"""What metrics see pictures through, loaded when a metric first asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

import quant.fidelity.backbones
from contract.places import models_folder
from quant.discovery import find

BACKBONE_FOLDER = models_folder() / "backbones"
"""Holds one folder of weights per backbone."""


class Backbone(Protocol):
    """A model of pictures. Some offer more than features: `judge` reads attributes, `clip` embeds texts."""

    def embed(self, values: Tensor) -> Tensor:
        """Features float32 [N, D] of pictures [N, 3, H, W] in [0, 1]. Raises PictureMismatch for a size that it does
        not read."""
        ...


class Backbones:
    """The backbones of one folder, each loaded once, when it is first asked for."""

    def __init__(self, folder: Path = BACKBONE_FOLDER) -> None:
        self.folder = folder
        self._loaded: dict[str, Backbone] = {}

    def get(self, name: str) -> Backbone:
        """The backbone of that name. Raises BackboneMissing when its weights are not at hand."""
        if name not in self._loaded:
            self._loaded[name] = cast(Backbone, find(quant.fidelity.backbones, name).load(self.folder / name))
        return self._loaded[name]
