"""Units of reconstruction, and their arguments over the calibration samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant.calibration.arithmetic import autocast
from quant.discovery import anatomy_of
from quant.layers.trainable.chance import chosen
from quant.layers.trainable.layer import FakeQuantizedLayer


@dataclass(frozen=True)
class Unit:
    """A block or a layer outside of blocks, by its name in the denoiser."""

    name: str
    module: nn.Module

    @property
    def layers(self) -> dict[str, FakeQuantizedLayer]:
        """The quantized layers inside, by their names in the unit, in module order."""
        return {name: m for name, m in self.module.named_modules() if isinstance(m, FakeQuantizedLayer)}

    @property
    def is_block(self) -> bool:
        """Whether there may be layers between the unit's input and its output."""
        return not isinstance(self.module, FakeQuantizedLayer)


def find_units(denoiser: nn.Module, run: Callable[[], Any], *, blocks: bool) -> list[Unit]:
    """The units of a denoiser in the order in which `run` reaches them; without `blocks` every layer is one."""
    found: dict[str, nn.Module] = {}
    whole = anatomy_of(denoiser).blocks if blocks else ()
    for name, module in denoiser.named_modules():
        inside = any(name.startswith(f"{parent}.") for parent in found)
        if inside:
            continue
        holds = any(isinstance(m, FakeQuantizedLayer) for m in module.modules())
        if isinstance(module, FakeQuantizedLayer) or (isinstance(module, whole) and holds):
            found[name] = module
    order: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: order.append(name)

    handles = [module.register_forward_pre_hook(note(name)) for name, module in found.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [Unit(name, found[name]) for name in dict.fromkeys(order)]


@dataclass(frozen=True)
class Arguments:
    """A unit's arguments over M samples: tensors with a row for every sample, and constants."""

    positional: tuple[Any, ...]
    named: dict[str, Any]

    def __getitem__(self, index: Tensor) -> Arguments:
        def pick(value: Any) -> Any:
            return value[index] if isinstance(value, Tensor) else value

        return Arguments(tuple(map(pick, self.positional)), {name: pick(value) for name, value in self.named.items()})

    def mixed(self, other: Arguments, share: float, generator: torch.Generator) -> Arguments:
        """Every floating-point value from `other` with probability `share`, else from here."""

        def mix(mine: Any, theirs: Any) -> Any:
            if not isinstance(mine, Tensor) or not mine.is_floating_point():
                return mine
            return torch.where(chosen(mine.shape, share, generator), theirs, mine)

        pairs = zip(self.positional, other.positional, strict=True)
        return Arguments(
            tuple(mix(a, b) for a, b in pairs), {name: mix(v, other.named[name]) for name, v in self.named.items()}
        )


def joined(calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> Arguments:
    """The arguments of calls for batches as those for all samples, floating-point tensors in float32."""

    def join(values: list[Any]) -> Any:
        return torch.cat([_exact(v) for v in values]) if isinstance(values[0], Tensor) else values[0]

    positional = tuple(join([args[i] for args, _ in calls]) for i in range(len(calls[0][0])))
    return Arguments(positional, {name: join([kwargs[name] for _, kwargs in calls]) for name in calls[0][1]})


def call_unit(module: nn.Module, arguments: Arguments) -> Any:
    """What a unit gives, in the arithmetic of training."""
    with autocast():
        return module(*arguments.positional, **arguments.named)


def outputs_of(output: Any) -> tuple[Tensor, ...]:
    """A unit's outputs, whether it gives one tensor or several, in float32; what it leaves out (None) is left out."""
    given = output if isinstance(output, tuple) else (output,)
    return tuple(_exact(tensor) for tensor in given if tensor is not None)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
