"""The two matrix products of attention on integer codes."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from quant.engine.engine import AttentionScales
from quant.engine.selection import default_engine
from quant.errors import CheckpointError, RecipeMismatch
from quant.layers.capture import uncompiled
from quant.layers.moved import Moved
from quant.layers.straight_through import IntegerAttention, needs_gradient
from quant.layers.timesteps import TimestepGroups

PROJECTIONS = ("to_q", "to_k", "to_v")
"""What diffusers calls the layers that make query, key and value, in this order."""

SOFTMAX_BITS = (2, 3, 4, 5, 6, 7, 8, 16)
"""Bits that the softmax output can have."""


class AttentionProducts(Moved):
    """Scales of query, key and value, each float32 [T] for T groups of timesteps or one for all: symmetric codes of
    `bits` bits.

    The softmax output is quantized to `softmax_bits` relative to the largest weight of its row, zero point 0."""

    query_scale: Tensor
    key_scale: Tensor
    value_scale: Tensor

    def __init__(self, bits: int = 8, softmax_bits: int = 8, groups: int = 1) -> None:
        super().__init__()
        if not 2 <= bits <= 8:
            raise RecipeMismatch(f"attention_bits {bits} is not 2 to 8")
        if softmax_bits not in SOFTMAX_BITS:
            raise RecipeMismatch(f"softmax_bits {softmax_bits} is not one of {SOFTMAX_BITS}")
        self.bits = bits
        self.softmax_bits = softmax_bits
        self.timesteps = TimestepGroups()
        for name in ("query_scale", "key_scale", "value_scale"):
            self.register_buffer(name, torch.ones(groups))
        self._rows: tuple[AttentionScales, ...] | None = None

    def assign(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Takes over the scales, float32 [T] each."""
        self.query_scale, self.key_scale, self.value_scale = query.float(), key.float(), value.float()
        self._rows = None

    @property
    def scales(self) -> AttentionScales:
        """The scales at the current timestep."""
        if self._rows is None:
            columns = (self.query_scale.tolist(), self.key_scale.tolist(), self.value_scale.tolist())
            self._rows = tuple(
                AttentionScales(*row, self.bits, self.softmax_bits) for row in zip(*columns, strict=True)
            )
        return self._rows[self.timesteps.current if len(self._rows) > 1 else 0]

    def check(self) -> None:
        """Raises CheckpointError where the scales make no sense."""
        tables = (self.query_scale, self.key_scale, self.value_scale)
        tiny = torch.finfo(torch.float32).tiny
        if any(len(t) != len(tables[0]) or len(t) not in (1, len(self.timesteps)) for t in tables):
            raise CheckpointError(f"attention scales must have 1 or {len(self.timesteps)} rows")
        if not all(bool((t.isfinite() & (t >= tiny)).all()) for t in tables):
            raise CheckpointError("attention scales must be positive, normal and finite")

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._rows = None
        super()._load_from_state_dict(*arguments)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, softmax_bits={self.softmax_bits}, timestep_groups={len(self.query_scale)}"


class IntegerAttnProcessor:
    """A processor of diffusers' `Attention` for a module that has `products`; used where a block is not fused."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """[B, L, C] to [B, L, C]. Raises RecipeMismatch for what integer products do not cover."""
        if attention_mask is not None or attn.group_norm is not None or attn.spatial_norm is not None:
            raise RecipeMismatch("integer attention takes no mask and no normalization of its own")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        out = attend(attn, query, key, value)
        return attn.to_out[1](attn.to_out[0](out)) / attn.rescale_output_factor  # type: ignore[no-any-return]


@uncompiled
def attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T) value of [B, L, C] and twice [B, S, C], with the integer scales of `attn.products`."""
    passes = default_engine(query.device.type).passes
    query, key, value = (x.unflatten(-1, (attn.heads, -1)) for x in (query, key, value))
    if needs_gradient(query, key, value):
        out: Tensor = IntegerAttention.apply(query, key, value, attn.scale, attn.products.scales, passes)
        return out
    return passes.attention(query, key, value, attn.scale, None, attn.products.scales)
