"""The residual block of a UNet: normalization, SiLU and quantization in one pass before each convolution."""

from __future__ import annotations

from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from quant.layers.capture import uncompiled
from quant.layers.conv import QuantizedConv2d
from quant.layers.fusion.parts import runs_fused


class FusedResnetBlock2D(ResnetBlock2D):  # type: ignore[misc]
    """`ResnetBlock2D` whose convolutions take codes. The time embedding is added by the second normalization, the
    shortcut by the second convolution."""

    PARTS = ("norm1", "conv1", "norm2", "dropout", "conv2")

    @staticmethod
    def can_fuse(block: ResnetBlock2D) -> bool:
        """Whether both convolutions are quantized and the block is of the plain kind."""
        return (
            isinstance(block.conv1, QuantizedConv2d)
            and isinstance(block.conv2, QuantizedConv2d)
            and isinstance(block.nonlinearity, nn.SiLU)
            and block.upsample is None
            and block.downsample is None
            and block.time_embedding_norm == "default"
            and not block.skip_time_act
            and block.output_scale_factor == 1.0
        )

    @uncompiled
    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        """[B, C, H, W] to [B, N, H, W], channels-last."""
        first, second = self.conv1, self.conv2
        if not runs_fused(self, input_tensor, temb) or not (first.takes_codes and second.takes_codes):
            out: Tensor = super().forward(input_tensor, temb, *args, **kwargs)
            return out
        passes, dtype = first.chosen_engine.passes, input_tensor.dtype
        codes = passes.group_norm(input_tensor, self.norm1, first.activation, silu=True, frame=first.window.padding)
        hidden = first.multiply(codes, dtype)
        shift = None
        if self.time_emb_proj is not None and temb is not None:
            shift = self.time_emb_proj(self.nonlinearity(temb))
        codes = passes.group_norm(
            hidden, self.norm2, second.activation, silu=True, shift=shift, frame=second.window.padding
        )
        if self.conv_shortcut is None:
            return second.multiply(codes, dtype).add_(input_tensor)
        return second.multiply(codes, dtype, residual=self.conv_shortcut(input_tensor))
