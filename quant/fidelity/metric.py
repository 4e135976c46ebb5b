"""What a metric says of itself, and how it is asked for: by its file's name, or by name and backbone (`frechet:clip`).

A file in quant/fidelity/metrics has `TRAITS` and either `score(pair, backbone)`, one value per picture (float32 [N]),
or `distance(reference, variant)`, one number for two sets of features (float32 [N, D] and [M, D])."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import quant.fidelity.metrics
from quant.discovery import find, names
from quant.errors import EvaluationError


@dataclass(frozen=True)
class Traits:
    """`identical` is the value for identical pictures (None: it is not about the reference); `symmetric` whether the
    reference and the variant can change places; `backbones` those that it can look through, its own first."""

    better: Literal["higher", "lower"]
    identical: float | None
    symmetric: bool = True
    unit: str = ""
    backbones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A metric and the backbone that it looks through, "" for none."""

    name: str
    backbone: str
    traits: Traits
    module: ModuleType

    @property
    def key(self) -> str:
        """The name that it is reported under: the file's, with the backbone where that is not the metric's own."""
        return f"{self.name}:{self.backbone}" if self.backbone not in ("", *self.traits.backbones[:1]) else self.name

    @property
    def of_sets(self) -> bool:
        """Whether it compares two sets of pictures, rather than pictures one by one."""
        return hasattr(self.module, "distance")


def metric(asked: str) -> Metric:
    """The metric that is asked for as `name` or `name:backbone`. Raises EvaluationError, listing what there is."""
    name, _, backbone = asked.partition(":")
    if name not in names(quant.fidelity.metrics):
        raise EvaluationError(f"{name!r} is not one of the metrics: {', '.join(names(quant.fidelity.metrics))}")
    module = find(quant.fidelity.metrics, name)
    allowed = module.TRAITS.backbones
    if backbone and backbone not in allowed:
        raise EvaluationError(f"{name} looks through {' or '.join(allowed) or 'no backbone'}, not {backbone!r}")
    return Metric(name, backbone or next(iter(allowed), ""), module.TRAITS, module)
