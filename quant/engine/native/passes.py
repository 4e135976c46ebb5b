"""The passes as native kernels where they exist for the input, plain torch elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.engine.engine import AttentionScales
from quant.engine.native.library import has_tiles
from quant.engine.passes import TorchPasses
from quant.quantizers.activation import ActivationParameters

_ELEMENTS = (torch.float32, torch.bfloat16)


class NativePasses(TorchPasses):
    """One pass over the data each, for float32 and bfloat16 on a processor with AVX-512; attention needs AMX.

    Attention multiplies in bfloat16 whatever the input's dtype, unless it is given integer scales."""

    name = "native"

    def quantize(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """See `Passes.quantize`."""
        if not _fits(x):
            return super().quantize(x, to)
        codes: Tensor = torch.ops.facsimile.quantize_rows(x, to.scale, to.zero_point, to.top)
        return codes

    def quantize_image(self, x: Tensor, to: ActivationParameters, frame: tuple[int, int] = (0, 0)) -> Tensor:
        """See `Passes.quantize_image`."""
        if not _fits(x):
            return super().quantize_image(x, to, frame)
        codes: Tensor = torch.ops.facsimile.quantize_image(x, to.scale, to.zero_point, to.top, *frame)
        return codes

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
        if not _fits(x):
            return super().group_norm(x, norm, to, silu=silu, shift=shift, frame=frame)
        codes: Tensor = torch.ops.facsimile.group_norm_quantize(
            x, shift, norm.weight, norm.bias, norm.num_groups, norm.eps, silu, to.scale, to.zero_point, to.top, *frame
        )
        return codes

    def layer_norm(self, x: Tensor, norm: nn.LayerNorm, to: ActivationParameters) -> Tensor:
        """See `Passes.layer_norm`."""
        if not _fits(x) or norm.bias is None:
            return super().layer_norm(x, norm, to)
        codes: Tensor = torch.ops.facsimile.layer_norm_quantize(
            x, norm.weight, norm.bias, norm.eps, to.scale, to.zero_point, to.top
        )
        return codes

    def geglu(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """See `Passes.geglu`."""
        if not _fits(x):
            return super().geglu(x, to)
        codes: Tensor = torch.ops.facsimile.geglu_quantize(x, to.scale, to.zero_point, to.top)
        return codes

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
        if not _fits(query) or not has_tiles():
            return super().attention(query, key, value, scale, to, integers)
        target = (None, 0, 255) if to is None else (to.scale, to.zero_point, to.top)
        if integers is None:
            return torch.ops.facsimile.attention(query, key, value, scale, *target)  # type: ignore[no-any-return]
        return torch.ops.facsimile.integer_attention(
            query,
            key,
            value,
            scale,
            integers.query,
            integers.key,
            integers.value,
            integers.top,
            integers.softmax_top,
            *target,
        )  # type: ignore[no-any-return]

    def quantize_per_token(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Passes.quantize_per_token`."""
        if not _fits(x):
            return super().quantize_per_token(x)
        codes, scale = torch.ops.facsimile.quantize_rows_dynamic(x)
        return codes, scale


def _fits(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in _ELEMENTS
