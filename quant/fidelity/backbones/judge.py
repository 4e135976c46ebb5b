"""The judge of the embedded world, a small classifier of what a picture shows; it ships with the project."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from quant.errors import PictureMismatch
from quant.fidelity.networks.judge import load_judge

SHIPPED = Path(__file__).parents[3] / "models" / "shapes-judge"


class JudgeBackbone:
    """Penultimate features, and answers about attributes, for pictures of the judge's own size."""

    def __init__(self, folder: Path) -> None:
        self._judge = load_judge(folder).float()

    @torch.no_grad()
    def embed(self, values: Tensor) -> Tensor:
        """Float32 [N, 256] of pictures [N, 3, S, S] in [0, 1]. Raises PictureMismatch for another size."""
        self._check(values)
        return self._judge.embed(values * 2.0 - 1.0)

    def read(self, values: Tensor) -> list[dict[str, str]]:
        """The likeliest word for every attribute, for pictures [N, 3, S, S] in [0, 1]. Raises PictureMismatch."""
        self._check(values)
        return self._judge.read(values * 2.0 - 1.0)

    def _check(self, values: Tensor) -> None:
        size = self._judge.config.image_size
        if tuple(values.shape[2:]) != (size, size):
            raise PictureMismatch(
                f"the judge reads pictures of {size} x {size}, not {values.shape[3]} x {values.shape[2]}"
            )


def load(folder: Path) -> JudgeBackbone:
    """The judge in `folder`, or else the one that ships with the project. Raises BackboneMissing."""
    return JudgeBackbone(folder if folder.is_dir() else SHIPPED)
