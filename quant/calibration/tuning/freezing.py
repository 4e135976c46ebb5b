"""Selective freezing: which parameters no longer train."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quant.layers.trainable.layer import FakeQuantizedLayer

PLATEAU_UPDATES = 50
"""Updates that a block's error is averaged over before it is compared with the average before."""

PLATEAU_GAIN = 0.01
"""A block whose error falls by a smaller share than this is frozen."""

OSCILLATION = 0.02
"""Reversed code flips per update, averaged, above which a weight is frozen."""

_MOMENTUM = 0.01


class PlateauFreezing:
    """Freezes a block when its normalized feature error has stopped falling (our reading of arXiv 2412.06661)."""

    def __init__(self, blocks: dict[str, list[nn.Parameter]]) -> None:
        self._blocks = blocks
        self._errors: dict[str, list[float]] = {name: [] for name in blocks}
        self._before: dict[str, float] = {}
        self.frozen: set[str] = set()

    def observe(self, errors: dict[str, float]) -> None:
        """Takes the errors of one update."""
        for name in errors.keys() & self._blocks.keys() - self.frozen:
            seen = self._errors[name]
            seen.append(errors[name])
            if len(seen) < PLATEAU_UPDATES:
                continue
            mean = sum(seen) / len(seen)
            seen.clear()
            if name in self._before and mean > (1.0 - PLATEAU_GAIN) * self._before[name]:
                self.freeze(name)
            self._before[name] = mean

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes."""
        return {
            **{f"frozen/{name}": torch.ones(1) for name in self.frozen},
            **{f"before/{name}": torch.tensor(value, dtype=torch.float64) for name, value in self._before.items()},
            **{
                f"errors/{name}": torch.tensor(seen, dtype=torch.float64) for name, seen in self._errors.items() if seen
            },
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from a state."""
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            if kind == "frozen":
                self.freeze(name)
            elif kind == "before":
                self._before[name] = float(tensor)
            elif kind == "errors":
                self._errors[name] = tensor.tolist()

    def freeze(self, name: str) -> None:
        """Ends the training of a block."""
        self.frozen.add(name)
        for parameter in self._blocks[name]:
            parameter.requires_grad_(False)
            parameter.grad = None


class OscillationFreezing:
    """Holds every weight whose code flips to and fro at the code where it is most of the time (arXiv 2203.11086)."""

    def __init__(self, layers: dict[str, FakeQuantizedLayer]) -> None:
        self._layers = layers
        self._seen: dict[str, _Flips] = {name: _Flips.of(_codes(layer)) for name, layer in layers.items()}

    @torch.no_grad()
    def observe(self) -> None:
        """Looks at the codes after an update, and puts those that are held back."""
        for name, layer in self._layers.items():
            codes, seen = _codes(layer), self._seen[name]
            moved = (codes - seen.codes).sign()
            seen.frequency.lerp_(((moved != 0) & (moved == -seen.direction)).float(), _MOMENTUM)
            seen.mean.lerp_(codes.float(), _MOMENTUM)
            seen.direction = torch.where(moved != 0, moved, seen.direction)
            seen.held |= seen.frequency > OSCILLATION
            seen.codes = torch.where(seen.held, seen.mean.round().to(codes.dtype), codes)
            scale = layer.weight_scale.view(-1, *[1] * (codes.ndim - 1))
            layer.weight.data = torch.where(seen.held, seen.codes * scale, layer.weight)

    @property
    def held(self) -> int:
        """Weights that are frozen."""
        return sum(int(seen.held.sum()) for seen in self._seen.values())

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes."""
        return {f"{part}/{name}": t for name, seen in self._seen.items() for part, t in vars(seen).items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from a state."""
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            if name in self._seen and hasattr(self._seen[name], part):
                setattr(self._seen[name], part, tensor.clone())


@dataclass
class _Flips:
    """Of every weight of a layer: its code, the direction of the last flip, how often flips were reversed, the mean
    code, and whether it is held."""

    codes: Tensor
    direction: Tensor
    frequency: Tensor
    mean: Tensor
    held: Tensor

    @staticmethod
    def of(codes: Tensor) -> _Flips:
        return _Flips(
            codes,
            torch.zeros_like(codes),
            torch.zeros(codes.shape),
            codes.float(),
            torch.zeros(codes.shape, dtype=torch.bool),
        )


def _codes(layer: FakeQuantizedLayer) -> Tensor:
    return layer.export().codes


def parameters_of(layers: dict[str, FakeQuantizedLayer], prefix: str) -> list[nn.Parameter]:
    """Weights, biases and scales of the layers of a block."""
    chosen = [layer for name, layer in layers.items() if name.startswith(f"{prefix}.")]
    found = [p for m in chosen for p in (m.weight, m.bias, m.weight_scale, m.inputs.log_change) if p is not None]
    return list({id(p): p for p in found}.values())
