"""Real pictures of a folder, as features: what distances to reality are taken to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from quant.errors import EvaluationError, PictureMismatch
from quant.fidelity.backbone import Backbones
from quant.fidelity.metric import Metric
from quant.sampling.request import Sampling

_BATCH = 16
_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}


@torch.no_grad()
def real_features(
    folder: Path, metrics: tuple[Metric, ...], backbones: Backbones, sampling: Sampling
) -> dict[str, Tensor]:
    """Features float32 [N, D] of all pictures of a folder, by backbone of the metrics that compare sets.

    Raises EvaluationError when there are fewer than two or one cannot be read, PictureMismatch when one has another
    size than the model's pictures: they are never resized or cut."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS)
    if len(paths) < 2:
        raise EvaluationError(
            f"folder {folder} holds {len(paths)} pictures ({', '.join(sorted(_ENDINGS))}), not 2 or more"
        )
    names = sorted({metric.backbone for metric in metrics if metric.of_sets})
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, len(paths), _BATCH):
        values = torch.stack([_read(path, sampling) for path in paths[start : start + _BATCH]])
        for name in names:
            parts[name].append(backbones.get(name).embed(values).float())
    return {name: torch.cat(part) for name, part in parts.items()}


def _read(path: Path, sampling: Sampling) -> Tensor:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise EvaluationError(f"picture {path} cannot be read: {error}") from error
    if picture.size != (sampling.width, sampling.height):
        raise PictureMismatch(
            f"picture {path} is {picture.width} x {picture.height}, "
            f"the model's are {sampling.width} x {sampling.height}"
        )
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255.0
