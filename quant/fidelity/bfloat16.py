"""A model in bfloat16: the floor of every comparison, what numeric noise alone does to its pictures."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from quant.checkpoints.pipelines import denoiser_of
from quant.layers.calls import bound


def bfloat16_copy(reference: DiffusionPipeline) -> DiffusionPipeline:
    """The reference with a copy of its denoiser that computes in bfloat16, the sampler and the rest unchanged: what
    numeric noise alone does to its pictures."""
    name = next(key for key, part in reference.components.items() if part is denoiser_of(reference))
    copied = copy.deepcopy(denoiser_of(reference))
    dtype = next(copied.parameters()).dtype
    for module in () if has_convolutions() else copied.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = _Convolution
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = tensor.data.bfloat16() if tensor.is_floating_point() else tensor.data

    def lower(
        denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = bound(denoiser, args, kwargs)  # the time of a step is no number that a model rounds
        return (), {name: value if name == "timestep" else _bfloat16(value) for name, value in given.items()}

    def lift(_: nn.Module, __: Any, output: Any) -> Any:
        return (output[0].to(dtype), *output[1:])

    copied.register_forward_pre_hook(lower, with_kwargs=True)
    copied.register_forward_hook(lift)
    noisy = type(reference)(**(reference.components | {name: copied}), **_checker(reference))
    noisy.set_progress_bar_config(disable=True)
    return noisy


def has_convolutions() -> bool:
    """Whether oneDNN has bfloat16 convolutions for this processor: AVX-512 or AMX."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _bfloat16(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.is_floating_point() else value


def _checker(pipeline: DiffusionPipeline) -> dict[str, bool]:
    key = "requires_safety_checker"
    return {key: bool(pipeline.config[key])} if key in pipeline.config else {}


class _Convolution(nn.Conv2d):
    """For processors without bfloat16 convolutions, where torch's take ten times those of float32: a float32 one of the
    same values, rounded. It is the same, since a product of bfloat16 values is exact in float32, where both sum."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type != "cpu":
            return super()._conv_forward(x, weight, bias)
        wide = None if bias is None else bias.float()
        return super()._conv_forward(x.float(), weight.float(), wide).to(x.dtype)
