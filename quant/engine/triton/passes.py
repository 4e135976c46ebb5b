"""The passes between products as Triton kernels; attention is torch's."""

from __future__ import annotations

from torch import Tensor, nn

from quant.engine.engine import AttentionScales
from quant.engine.passes import TorchPasses
from quant.engine.triton import image, rows
from quant.quantizers.activation import ActivationParameters

_WIDEST_ROW = 2**14
"""Channels of a token that one program still holds in registers."""


class TritonPasses(TorchPasses):
    """Float32, bfloat16 and float16. Group normalization reads its input twice, everything else once."""

    name = "triton"

    def quantize(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """See `Passes.quantize`."""
        return rows.quantize(x.contiguous(), to)

    def quantize_image(self, x: Tensor, to: ActivationParameters, frame: tuple[int, int] = (0, 0)) -> Tensor:
        """See `Passes.quantize_image`."""
        return image.quantize(x, to, frame)

    def group_norm(
        self,
        x: Tensor,
        norm: nn.GroupNorm,
        to: ActivationParameters,
        *,
        silu: bool,
        shift: Tensor | None = None,
        frame: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """See `Passes.group_norm`."""
        return image.quantize(x, to, frame, image.group_norm(x, norm, shift), silu)

    def layer_norm(self, x: Tensor, norm: nn.LayerNorm, to: ActivationParameters) -> Tensor:
        """See `Passes.layer_norm`."""
        if len(norm.normalized_shape) != 1 or x.shape[-1] > _WIDEST_ROW:
            return super().layer_norm(x, norm, to)
        return rows.layer_norm(x.contiguous(), norm.weight, norm.bias, norm.eps, to)

    def geglu(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """See `Passes.geglu`."""
        return rows.geglu(x.contiguous(), to)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        to: ActivationParameters | None,
        integers: AttentionScales | None = None,
    ) -> Tensor:
        """See `Passes.attention`."""
        if to is None or integers is not None:
            return super().attention(query, key, value, scale, to, integers)
        return self.quantize(super().attention(query, key, value, scale, None), to)

    def quantize_per_token(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Passes.quantize_per_token`."""
        if x.shape[-1] > _WIDEST_ROW:
            return super().quantize_per_token(x)
        return rows.quantize_per_token(x.contiguous())
