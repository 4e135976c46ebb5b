"""Where time enters a denoiser: which layers, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import RecipeMismatch

Request = Mapping[str, Tensor]
"""What enters the time path beside the timestep, [M, ...] by name."""

Inputs = Callable[[nn.Module, Tensor, Request], dict[str, Tensor]]
"""Of a denoiser, timesteps [M] and what enters beside them [M, ...]: what every projection reads, [M, E], by name."""


@dataclass(frozen=True)
class TimePath:
    """`embedders` are the modules whose outputs only the projections read; `projections` the linear layers whose
    outputs, one row for a call, are all that the blocks know of the time. `inputs` computes what projections read with
    the denoiser's own embedders; `request` are the arguments that enter beside the timestep. Where there are none, the
    rows can be precalculated."""

    embedders: tuple[str, ...]
    projections: tuple[str, ...]
    inputs: Inputs = field(repr=False)
    request: tuple[str, ...] = ()

    def has(self, layer: str) -> bool:
        """Whether a layer of this full name belongs to the path."""
        return layer in self.projections or any(layer.startswith(f"{name}.") for name in self.embedders)

    def gather(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """What enters beside the timestep, from a call's arguments or those that it adds to the conditioning."""
        given = {**arguments, **(arguments.get("added_cond_kwargs") or {})}
        return {name: given[name] for name in self.request if given.get(name) is not None}

    def rows(self, denoiser: nn.Module, timesteps: Tensor, request: Request) -> dict[str, Tensor]:
        """The outputs of all projections, [M, C] by name, for timesteps [M] and what enters beside them."""
        found = self.inputs(denoiser, timesteps, request)
        return {name: denoiser.get_submodule(name)(found[name]) for name in self.projections}

    def modules(self, denoiser: nn.Module) -> dict[str, nn.Module]:
        """Embedders and projections by name."""
        return {name: denoiser.get_submodule(name) for name in (*self.embedders, *self.projections)}

    def refuse_touched(self, denoiser: nn.Module) -> None:
        """Raises RecipeMismatch where a layer of the path is no longer the one that the model came with."""
        for name in self.projections:
            if type(denoiser.get_submodule(name)) is not nn.Linear:
                raise _touched(name)
        for name in self.embedders:
            embedder = denoiser.get_submodule(name)
            inner = [layer for layer in embedder.modules() if isinstance(getattr(layer, "weight", None), Tensor)]
            plain = all(type(layer).__module__.startswith(("torch.", "diffusers.")) for layer in embedder.modules())
            if not inner or not plain:
                raise _touched(name)


def _touched(name: str) -> RecipeMismatch:
    return RecipeMismatch(f"{name}: the time path is quantized or replaced already: start from the float model")


@contextmanager
def in_float32(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Modules whose floating-point tensors are float32 while the context is open, the same values afterwards."""
    kept = [(tensor, tensor.dtype) for module in modules.values() for tensor in _tensors(module)]
    for tensor, _ in kept:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor, dtype in kept:
            tensor.data = tensor.data.to(dtype)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]


def in_batch(timesteps: Sequence[float], request: Request, like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """All pairs of T timesteps and B rows of a request, [T B]: timesteps float32, the rows of a timestep together."""
    pictures = max((len(tensor) for tensor in request.values()), default=1)
    times = torch.tensor(timesteps, dtype=torch.float32, device=like.device).repeat_interleave(pictures)
    return times, {name: torch.cat([tensor] * len(timesteps)) for name, tensor in request.items()}


def looked_up(rows: Tensor, current: int | Tensor, like: Tensor) -> Tensor:
    """The current rows of [T, B, C], B pictures or one for all: [B, C], contiguous, in the dtype of `like` [B, any]."""
    if isinstance(current, Tensor):
        pictures = torch.arange(len(current)) if rows.shape[1] > 1 else torch.zeros_like(current)
        out = rows[current.to(rows.device), pictures.to(rows.device)]
    else:
        out = rows[current].expand(len(like), -1)
    return out.to(like.dtype).contiguous()
