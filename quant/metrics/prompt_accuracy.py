"""Share of a prompt's attributes that the judge sees in the variant's picture, 0 to 1; higher is better.

Scored on prompts whose attributes are known, for pictures of the size that the judge reads; others have no score."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.pair import Pair


def score(pair: Pair) -> Tensor:
    """Float32 [N], NaN where the prompt's attributes are not known or the pictures have another size than the judge's.
    Raises BackboneMissing without a judge."""
    size = pair.judge().config.image_size
    if pair.variant.values.shape[2:] != (size, size):
        return torch.full((len(pair.variant.values),), torch.nan)
    answers = pair.judge().read(pair.variant.values * 2.0 - 1.0)
    return torch.tensor([_share(answer, wanted) for answer, wanted in zip(answers, pair.attributes, strict=True)])


def _share(answer: dict[str, str], wanted: dict[str, str]) -> float:
    if not wanted:
        return float("nan")
    return sum(answer.get(name) == word for name, word in wanted.items()) / len(wanted)
