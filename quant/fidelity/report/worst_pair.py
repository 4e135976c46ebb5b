"""A picture that is far from the reference's, beside it: a mean hides it, a reader wants to see it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from quant.fidelity.difference_map import difference_map
from quant.sampling.generation import to_pictures
from quant.sampling.prompts import Prompt


@dataclass(frozen=True)
class WorstPair:
    """A prompt's picture by the reference and by a variant, float32 [3, H, W] in [0, 1], and the score that it has."""

    variant: str
    prompt_set: str
    prompt: Prompt
    metric: str
    score: float
    reference_values: Tensor
    variant_values: Tensor

    @property
    def pictures(self) -> list[Image.Image]:
        """The reference's picture, the variant's, and where they differ."""
        both = [to_pictures(values[None])[0] for values in (self.reference_values, self.variant_values)]
        return [*both, difference_map(self.reference_values, self.variant_values)]
