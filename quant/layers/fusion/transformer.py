"""The transformer of a UNet: one quantized tensor feeds query, key and value; attention and GEGLU end in codes."""

from __future__ import annotations

from typing import Any

from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, cat, nn

from quant.layers.attention import IntegerAttnProcessor
from quant.layers.capture import uncompiled
from quant.layers.conv import QuantizedConv2d
from quant.layers.fusion.parts import runs_fused
from quant.layers.linear import QuantizedLinear

TOKENS_AT_A_TIME = 1024
"""Of the widest tensor of the feed-forward part, about as much as the caches hold is made at a time on a CPU."""

PROCESSORS = (AttnProcessor, AttnProcessor2_0, IntegerAttnProcessor)
"""Processors that compute what a fused block computes; with any other the block's own forward calls the processor."""


class FusedTransformerBlock(BasicTransformerBlock):  # type: ignore[misc]
    """`BasicTransformerBlock` with layer normalization whose linear layers take codes."""

    PARTS = ("norm1", "attn1", "norm2", "attn2", "norm3", "ff")

    @staticmethod
    def can_fuse(block: BasicTransformerBlock) -> bool:
        """Whether all linear layers are quantized and the block is of the plain kind."""
        feed_forward = [*block.ff.net]
        return (
            block.norm_type == "layer_norm"
            and block.pos_embed is None
            and block._chunk_size is None
            and not block.only_cross_attention
            and _plain_attention(block.attn1)
            and (block.attn2 is None or _plain_attention(block.attn2))
            and isinstance(feed_forward[0], GEGLU)
            and isinstance(feed_forward[0].proj, QuantizedLinear)
            and isinstance(feed_forward[2], QuantizedLinear)
            and not hasattr(block, "fuser")
        )

    @uncompiled
    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Tokens [B, L, C] to the same."""
        masked = attention_mask is not None or encoder_attention_mask is not None
        if masked or cross_attention_kwargs or not self._runs_fused(hidden_states, encoder_hidden_states):
            out: Tensor = super().forward(
                hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask, timestep,
                cross_attention_kwargs, class_labels, added_cond_kwargs,
            )  # fmt: skip
            return out
        hidden = _attention(self.attn1, self.norm1, hidden_states, None)
        if self.attn2 is not None:
            hidden = _attention(self.attn2, self.norm2, hidden, encoder_hidden_states)
        return self._feed_forward(hidden)

    def _runs_fused(self, hidden: Tensor, context: Any) -> bool:
        attentions = (self.attn1,) if self.attn2 is None else (self.attn1, self.attn2)
        # An adapter for pictures as prompts puts their tokens beside those of the text.
        if isinstance(context, tuple) or self._chunk_size is not None or not runs_fused(self, hidden, context):
            return False
        if any(type(attn.processor) not in PROCESSORS for attn in attentions):
            return False
        layers = [layer for attn in attentions for layer in (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0])]
        return all(layer.takes_codes for layer in (*layers, self.ff.net[0].proj, self.ff.net[2]))

    def _feed_forward(self, hidden: Tensor) -> Tensor:
        widen, narrow = self.ff.net[0].proj, self.ff.net[2]
        passes = widen.chosen_engine.passes
        tokens = hidden.flatten(0, -2)
        # On a GPU a launch costs more than what the caches save.
        rows = TOKENS_AT_A_TIME if hidden.device.type == "cpu" else max(len(tokens), 1)
        parts = []
        for some in tokens.split(rows):
            codes = passes.layer_norm(some, self.norm3, widen.activation)
            codes = passes.geglu(widen.multiply(codes, hidden.dtype), narrow.activation)
            parts.append(narrow.multiply(codes, hidden.dtype, residual=some))
        return (parts[0] if len(parts) == 1 else cat(parts)).view_as(hidden)


class FusedTransformer2DModel(Transformer2DModel):  # type: ignore[misc]
    """`Transformer2DModel` of pictures whose projections take codes."""

    PARTS = ("norm", "proj_in", "proj_out")

    @staticmethod
    def can_fuse(block: Transformer2DModel) -> bool:
        """Whether both projections are quantized; they look at one pixel, as linear layers do."""
        projections = (getattr(block, "proj_in", None), getattr(block, "proj_out", None))
        return block.is_input_continuous and all(isinstance(p, QuantizedConv2d | QuantizedLinear) for p in projections)

    @uncompiled
    def _operate_on_continuous_inputs(self, hidden_states: Tensor) -> tuple[Tensor, int]:
        layer = self.proj_in
        if not runs_fused(self, hidden_states) or not layer.takes_codes:
            return super()._operate_on_continuous_inputs(hidden_states)  # type: ignore[no-any-return]
        codes = layer.chosen_engine.passes.group_norm(hidden_states, self.norm, layer.activation, silu=False)
        if isinstance(layer, QuantizedLinear):
            tokens = layer.multiply(codes.permute(0, 2, 3, 1), hidden_states.dtype).flatten(1, 2)
        else:
            tokens = layer.multiply(codes, hidden_states.dtype).permute(0, 2, 3, 1).flatten(1, 2)
        return tokens, tokens.shape[-1]

    @uncompiled
    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
    ) -> Tensor:
        layer, dtype = self.proj_out, hidden_states.dtype
        picture = hidden_states.view(batch_size, height, width, inner_dim)
        if not runs_fused(self, hidden_states, residual) or not layer.takes_codes:
            return super()._get_output_for_continuous_inputs(  # type: ignore[no-any-return]
                hidden_states, residual, batch_size, height, width, inner_dim
            )
        if isinstance(layer, QuantizedLinear):
            rows = residual.permute(0, 2, 3, 1).contiguous()
            return layer.multiply(layer.quantize(picture), dtype, rows).permute(0, 3, 1, 2)  # type: ignore[no-any-return]
        return layer.multiply(layer.quantize(picture.permute(0, 3, 1, 2)), dtype, residual)  # type: ignore[no-any-return]


def _plain_attention(attn: Attention) -> bool:
    layers = (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0])
    return (
        all(isinstance(layer, QuantizedLinear) for layer in layers)
        and attn.group_norm is None
        and attn.spatial_norm is None
        and attn.norm_q is None
        and attn.norm_k is None
        and attn.norm_cross is None
        and attn.rescale_output_factor == 1.0
        and not attn.residual_connection
    )


def _attention(attn: Attention, norm: nn.LayerNorm, hidden: Tensor, context: Tensor | None) -> Tensor:
    """`hidden` plus the attention of its normalized tokens to `context`, or to themselves."""
    query, out = attn.to_q, attn.to_out[0]
    passes, dtype = query.chosen_engine.passes, hidden.dtype
    codes: dict[Any, Tensor] = {query.activation: passes.layer_norm(hidden, norm, query.activation)}
    projected = [query.multiply(codes[query.activation], dtype)]
    if context is not None:
        codes.clear()
    for layer in (attn.to_k, attn.to_v):
        if layer.activation not in codes:
            codes[layer.activation] = (
                passes.layer_norm(hidden, norm, layer.activation) if context is None else layer.quantize(context)
            )
        projected.append(layer.multiply(codes[layer.activation], dtype))
    heads = (x.unflatten(-1, (attn.heads, -1)) for x in projected)
    products = getattr(attn, "products", None)
    attended = passes.attention(*heads, attn.scale, out.activation, None if products is None else products.scales)
    return out.multiply(attended, dtype, residual=hidden)  # type: ignore[no-any-return]
