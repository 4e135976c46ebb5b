"""How well the variant's picture fits its prompt by CLIP: 100 times the cosine of the two, 0 to 100; higher is better.

Hessel et al. 2021, arXiv 2104.08718, with the weight 100 of torchmetrics in place of 2.5, and the prompt as it is."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from quant.fidelity.backbones.clip import ClipBackbone
from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="higher", identical=None, symmetric=False, backbones=("clip",))


def score(pair: Pair, backbone: str = "clip") -> Tensor:
    """Float32 [N], 0 where the cosine is negative, NaN where there is no prompt. Raises BackboneMissing."""
    texts = cast(ClipBackbone, pair.backbones.get(backbone)).embed_texts([prompt.text or "" for prompt in pair.prompts])
    scores = 100.0 * functional.cosine_similarity(texts, pair.features(backbone)[1], dim=1).clamp(min=0.0)
    return torch.where(torch.tensor([prompt.text is not None for prompt in pair.prompts]), scores, float("nan"))
