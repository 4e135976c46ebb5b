"""Share of a prompt's attributes that the judge sees in the variant's picture, 0 to 1; higher is better.

Scored on prompts whose attributes are known; others have no score."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from quant.fidelity.backbones.judge import JudgeBackbone
from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="higher", identical=None, symmetric=False, backbones=("judge",))


def score(pair: Pair, backbone: str = "judge") -> Tensor:
    """Float32 [N], NaN where the prompt's attributes are not known and for a picture that is not finite. Raises
    BackboneMissing, and PictureMismatch for pictures that the judge cannot read."""
    answers = cast(JudgeBackbone, pair.backbones.get(backbone)).read(pair.variant.values)
    shares = [_share(answer, prompt.attributes) for answer, prompt in zip(answers, pair.prompts, strict=True)]
    finite = pair.variant.values.isfinite().flatten(1).all(dim=1)
    return torch.where(finite, torch.tensor(shares), float("nan"))


def _share(answer: dict[str, str], wanted: dict[str, str]) -> float:
    if not wanted:
        return float("nan")
    return sum(answer.get(name) == word for name, word in wanted.items()) / len(wanted)
