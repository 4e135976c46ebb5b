"""Upsampling of codes instead of floats: a quarter of the values are quantized."""

from __future__ import annotations

from typing import Any

from diffusers.models.upsampling import Upsample2D
from torch import Tensor
from torch.nn.functional import interpolate, pad

from quant.layers.capture import uncompiled
from quant.layers.conv import QuantizedConv2d
from quant.layers.fusion.parts import runs_fused


class FusedUpsample2D(Upsample2D):  # type: ignore[misc]
    """`Upsample2D` that repeats codes: the nearest neighbour of a code is the code of the nearest neighbour."""

    PARTS = ("conv",)

    @staticmethod
    def can_fuse(block: Upsample2D) -> bool:
        """Whether a quantized convolution follows a plain enlargement."""
        return (
            block.use_conv
            and not block.use_conv_transpose
            and block.interpolate
            and block.norm is None
            and isinstance(getattr(block, "conv", None), QuantizedConv2d)
        )

    @uncompiled
    def forward(self, hidden_states: Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        """[B, C, H, W] to [B, N, 2 H, 2 W] or `output_size`."""
        conv = self.conv
        if not runs_fused(self, hidden_states) or not conv.takes_codes:
            out: Tensor = super().forward(hidden_states, output_size, *args, **kwargs)
            return out
        codes = conv.chosen_engine.passes.quantize_image(hidden_states, conv.activation)
        if output_size is None:
            codes = interpolate(codes, scale_factor=2.0, mode="nearest")
        else:
            codes = interpolate(codes, size=output_size, mode="nearest")
        rows, columns = conv.window.padding
        framed = pad(codes, (columns, columns, rows, rows), value=conv.activation.zero_point)
        return conv.multiply(framed, hidden_states.dtype)  # type: ignore[no-any-return]
