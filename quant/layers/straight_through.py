"""Gradients of quantized layers and of integer attention with respect to their inputs.

Codes have no gradient. The straight-through estimator (arXiv 1308.3432) takes that of the same product in floating
point, with the values that the codes stand for; what was clipped gets none. It is used under grad alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from quant.engine.engine import AttentionScales

if TYPE_CHECKING:
    from quant.layers.layer import QuantizedLayer


def needs_gradient(*inputs: Tensor | None) -> bool:
    """Whether a call with these inputs is recorded for a backward pass."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


def is_trained(module: nn.Module, *inputs: Tensor | None) -> bool:
    """As `needs_gradient`, the parameters of `module` being inputs too."""
    return torch.is_grad_enabled() and (needs_gradient(*inputs) or any(p.requires_grad for p in module.parameters()))


class StraightThrough(torch.autograd.Function):
    """The integers of a layer forward, its floats backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLayer[Any]) -> Tensor:
        """`layer.compute(x)`."""
        ctx.layer = layer
        ctx.activation = None if layer.is_dynamic else layer.activation
        ctx.save_for_backward(x)
        return layer.compute(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of the input, in its shape and dtype."""
        (x,) = ctx.saved_tensors
        into: Tensor = ctx.layer.input_gradient(gradient.float(), x.shape)
        if ctx.activation is not None:
            low, high = ctx.activation.range
            into = into * ((x >= low) & (x <= high))
        return into.to(x.dtype), None


class IntegerAttention(torch.autograd.Function):
    """Both products of attention on integers forward, on the values of the codes backward; the softmax output counts as
    if it were not quantized."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, integers: AttentionScales, passes: Any
    ) -> Tensor:
        """`passes.attention` of [B, L, H, D] and twice [B, S, H, D]: [B, L, H * D]."""
        ctx.save_for_backward(query, key, value)
        ctx.scale, ctx.integers = scale, integers
        out: Tensor = passes.attention(query, key, value, scale, None, integers)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of query, key and value."""
        integers: AttentionScales = ctx.integers
        leaves = [tensor.detach().float().requires_grad_() for tensor in ctx.saved_tensors]
        steps = (integers.query, integers.key, integers.value)
        with torch.enable_grad():
            query, key, value = (
                _symmetric(leaf, step, integers.top).transpose(1, 2) for leaf, step in zip(leaves, steps, strict=True)
            )
            out = functional.scaled_dot_product_attention(query, key, value, scale=ctx.scale)
            found = torch.autograd.grad(out.transpose(1, 2).flatten(2), leaves, gradient.float())
        return (*(g.to(x.dtype) for g, x in zip(found, ctx.saved_tensors, strict=True)), None, None, None)


def _symmetric(x: Tensor, scale: float, top: int) -> Tensor:
    """The values of symmetric codes of `x`; the gradient passes where nothing is clipped."""
    clipped = x.clamp(-top * scale, top * scale)
    return clipped + ((clipped / scale).round() * scale - clipped).detach()
