"""Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567) up to its pooled features, in the form of December 2015 that FID
is defined on. Parts have the names of torchvision's state dict.

It differs from later editions: mean pools leave the border out of the mean, and the last block pools by maximum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

_Layer = tuple[int, int | tuple[int, int]]
"""Output channels and kernel."""
_Step = _Layer | list[_Layer]
"""One layer, or several on the same input whose outputs are joined."""
_Branches = dict[str, list[_Step]]

_mean_pool = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_max_pool = partial(functional.max_pool2d, kernel_size=3, stride=1, padding=1)
_halving_pool = partial(functional.max_pool2d, kernel_size=3, stride=2)

_ROW, _COLUMN = (1, 7), (7, 1)


class _Unit(nn.Module):
    """A convolution without bias, batch normalization, ReLU."""

    def __init__(self, inputs: int, layer: _Layer, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        outputs, kernel = layer
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side, their outputs joined, the pooled input (through any `branch_pool`) last."""

    def __init__(
        self, inputs: int, pool: Callable[[Tensor], Tensor], branches: _Branches, halves: bool = False
    ) -> None:
        super().__init__()
        self.pool = pool
        self.paths = {name: self._add(inputs, name, steps, halves) for name, steps in branches.items()}
        self.outputs = sum(_width(steps[-1]) for steps in branches.values()) + (inputs if halves else 0)

    def _add(self, inputs: int, name: str, steps: list[_Step], halves: bool) -> list[list[str]]:
        """Registers a branch's layers; returns their names, step by step."""
        path: list[list[str]] = []
        for number, step in enumerate(steps, start=1):
            layers = step if isinstance(step, list) else [step]
            forks = "ab" if len(layers) > 1 else ("",)
            path.append([f"{name}_{number}{fork}" if len(steps) > 1 else name for fork in forks])
            shrinks = halves and number == len(steps)
            for part, layer in zip(path[-1], layers, strict=True):
                self.add_module(part, _Unit(inputs, layer, stride=2 if shrinks else 1, padded=not shrinks))
            inputs = _width(step)
        return path

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x)
        outputs = [self._run(path, pooled if name == "branch_pool" else x) for name, path in self.paths.items()]
        return torch.cat(outputs if "branch_pool" in self.paths else [*outputs, pooled], dim=1)

    def _run(self, path: list[list[str]], x: Tensor) -> Tensor:
        for step in path:
            x = torch.cat([self.get_submodule(name)(x) for name in step], dim=1)
        return x


def _width(step: _Step) -> int:
    return sum(outputs for outputs, _ in (step if isinstance(step, list) else [step]))


def _square(inputs: int, pooled: int) -> _Block:
    branches: _Branches = {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "branch_pool": [(pooled, 1)],
    }
    return _Block(inputs, _mean_pool, branches)


def _factored(inputs: int, inner: int) -> _Block:
    branches: _Branches = {
        "branch1x1": [(192, 1)],
        "branch7x7": [(inner, 1), (inner, _ROW), (192, _COLUMN)],
        "branch7x7dbl": [(inner, 1), (inner, _COLUMN), (inner, _ROW), (inner, _COLUMN), (192, _ROW)],
        "branch_pool": [(192, 1)],
    }
    return _Block(inputs, _mean_pool, branches)


def _forked(inputs: int, pool: Callable[[Tensor], Tensor]) -> _Block:
    fork: list[_Layer] = [(384, (1, 3)), (384, (3, 1))]
    branches: _Branches = {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1), fork],
        "branch3x3dbl": [(448, 1), (384, 3), fork],
        "branch_pool": [(192, 1)],
    }
    return _Block(inputs, pool, branches)


def _first_halving(inputs: int) -> _Block:
    branches: _Branches = {"branch3x3": [(384, 3)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3)]}
    return _Block(inputs, _halving_pool, branches, halves=True)


def _second_halving(inputs: int) -> _Block:
    branches: _Branches = {
        "branch3x3": [(192, 1), (320, 3)],
        "branch7x7x3": [(192, 1), (192, _ROW), (192, _COLUMN), (192, 3)],
    }
    return _Block(inputs, _halving_pool, branches, halves=True)


class InceptionNet(nn.Module):
    """The network without weights: no auxiliary head, no classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Unit(3, (32, 3), stride=2, padded=False)
        self.Conv2d_2a_3x3 = _Unit(32, (32, 3), padded=False)
        self.Conv2d_2b_3x3 = _Unit(32, (64, 3))
        self.Conv2d_3b_1x1 = _Unit(64, (80, 1))
        self.Conv2d_4a_3x3 = _Unit(80, (192, 3), padded=False)
        self.Mixed_5b = _square(192, 32)
        self.Mixed_5c = _square(256, 64)
        self.Mixed_5d = _square(288, 64)
        self.Mixed_6a = _first_halving(288)
        self.Mixed_6b = _factored(768, 128)
        self.Mixed_6c = _factored(768, 160)
        self.Mixed_6d = _factored(768, 160)
        self.Mixed_6e = _factored(768, 192)
        self.Mixed_7a = _second_halving(768)
        self.Mixed_7b = _forked(1280, _mean_pool)
        self.Mixed_7c = _forked(2048, _max_pool)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features float32 [N, 2048], the mean over the last 8 x 8, of pictures [N, 3, 299, 299] in [-1, 1]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pictures)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halving_pool(x)))
        x = _halving_pool(x)
        for block in (child for child in self.children() if isinstance(child, _Block)):
            x = block(x)
        return x.mean(dim=(2, 3))
