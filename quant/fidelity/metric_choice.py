"""Which metrics an evaluation measures, and why not the others."""

from __future__ import annotations

from pathlib import Path

import torch

import quant.fidelity.metrics
from quant.discovery import names
from quant.errors import BackboneMissing, EvaluationError, PictureMismatch
from quant.fidelity.backbone import Backbones
from quant.fidelity.metric import Metric, metric

CONSISTENCY = ("psnr", "ssim", "latent_mse")
"""The metrics that need nothing but the two pictures."""

Reasons = dict[str, str]


def choose(asked: tuple[str, ...], backbones: Backbones, height: int, width: int) -> tuple[tuple[Metric, ...], Reasons]:
    """The metrics asked for or, when none is, all of the folder whose backbone is at hand and reads pictures of this
    size, with the reasons against the others.

    Raises EvaluationError for an unknown or repeated metric, BackboneMissing and PictureMismatch for one that was asked
    for and cannot be measured: another one never takes its place."""
    chosen = [metric(name) for name in asked or names(quant.fidelity.metrics)]
    repeated = len({each.key for each in chosen}) < len(chosen)
    if repeated:
        raise EvaluationError(f"a metric is asked for twice: {', '.join(asked)}")
    possible, reasons = [], {}
    for each in chosen:
        try:
            _try(each, backbones, height, width)
            possible.append(each)
        except (BackboneMissing, PictureMismatch) as error:
            if asked:
                raise
            reasons[each.key] = _placeless(str(error), backbones.folder)
    return tuple(possible), reasons


def _placeless(reason: str, folder: Path) -> str:
    """A reason that names no folder of this machine: reports travel."""
    return reason.replace(str(folder), "the folder of backbones").replace(str(Path.home()), "~")


def _try(asked: Metric, backbones: Backbones, height: int, width: int) -> None:
    if asked.backbone:
        with torch.no_grad():
            backbones.get(asked.backbone).embed(torch.zeros((1, 3, height, width)))
