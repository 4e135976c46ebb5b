"""A batch of pictures of the reference and of a variant from the same noise: what a metric looks at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from quant.errors import PictureMismatch
from quant.fidelity.backbone import Backbones
from quant.sampling.generation import Drawn
from quant.sampling.prompts import Prompt


@dataclass(frozen=True)
class Pair:
    """Reference and variant pictures of the same prompts and seeds. Features are computed once, when first asked for.

    Raises PictureMismatch for pictures of different sizes or counts: nothing is ever resized or cut."""

    reference: Drawn
    variant: Drawn
    prompts: list[Prompt]
    backbones: Backbones
    _features: dict[tuple[str, bool], Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shapes = tuple(self.reference.values.shape), tuple(self.variant.values.shape)
        if shapes[0] != shapes[1] or len(self.prompts) != shapes[0][0]:
            raise PictureMismatch(
                f"pictures {shapes[0]} and {shapes[1]} of {len(self.prompts)} prompts cannot be compared: "
                "they must have the same size and number"
            )

    def features(self, backbone: str) -> tuple[Tensor, Tensor]:
        """Features of the reference's and of the variant's pictures, float32 [N, D] each. Raises BackboneMissing."""
        return self._embed(backbone, False), self._embed(backbone, True)

    @torch.no_grad()
    def _embed(self, backbone: str, variant: bool) -> Tensor:
        key = (backbone, variant)
        if key not in self._features:
            values = self.variant.values if variant else self.reference.values
            self._features[key] = self.backbones.get(backbone).embed(values)
        return self._features[key]
