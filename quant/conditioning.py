"""What a denoiser is told besides latents and timestep, and what guidance makes of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The conditioning of one batch of calls: tensors [M, ...] by the denoiser's argument, in their own dtypes, and
    what all rows share, which has no rows."""

    tensors: Mapping[str, Tensor]
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        return Rows({name: tensor[index] for name, tensor in self.tensors.items()}, self.shared)


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of N pictures: tensors [N, branches, ...] by the denoiser's argument, none for a denoiser that
    is told nothing, and the guidance scale of each picture, float32 [N].

    With guidance there are two branches, the one without the condition first."""

    tensors: Mapping[str, Tensor]
    scale: Tensor
    branches: int = 1
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.scale)

    @cached_property
    def by_branch(self) -> Rows:
        """Rows of a call as served: all pictures of the first branch, then all of the second, [branches N, ...]. The
        same at every step."""
        return Rows({n: t.transpose(0, 1).flatten(0, 1) for n, t in self.tensors.items()}, self.shared)

    def pick(self, pictures: Tensor) -> Rows:
        """Rows of some pictures, int64 [M], as calibrated: the branches of each side by side, [M branches, ...]."""
        return Rows({n: t[pictures].flatten(0, 1) for n, t in self.tensors.items()}, self.shared)

    @classmethod
    def together(cls, parts: list[Conditioning]) -> Conditioning:
        """The conditioning of the pictures of several batches, in their order."""
        first = parts[0]
        tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in first.tensors}
        return cls(tensors, torch.cat([part.scale for part in parts]), first.branches, first.shared)


def branched(parts: Mapping[str, tuple[Tensor | None, Tensor]], count: int, scale: float) -> Conditioning:
    """Conditioning from what pipelines encode: by argument the tensors [N, ...] without the condition (None: there is
    no guidance) and with it."""
    tensors = {
        name: torch.stack([with_it] if without is None else [without, with_it], dim=1)
        for name, (without, with_it) in parts.items()
    }
    first = next(iter(tensors.values()))
    return Conditioning(tensors, torch.full((count,), scale, device=first.device), first.shape[1])


def guide(outputs: Tensor, scale: Tensor) -> Tensor:
    """What the sampler takes, [N, ...], of a denoiser's outputs for all branches, [N, branches, ...], `scale` being
    that of each picture, float32 [N]: without + scale (with - without) (classifier-free guidance, arXiv 2207.12598)."""
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    without, with_condition = outputs.unbind(1)
    return without + scale.to(outputs.device).view(-1, *[1] * (without.ndim - 1)) * (with_condition - without)
