"""The passes between integer products in plain torch: on any device and dtype, and the truth for the fused ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from quant.engine.engine import AttentionScales
from quant.quantizers.activation import ActivationParameters
from quant.tensor.affine import to_codes

ROWS_AT_A_TIME = 256
"""Queries whose scores against all keys are in memory together."""


class TorchPasses:
    """See `Passes`. Normalizations and sums are float32 whatever the dtype of the input."""

    name = "torch"

    def quantize(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """See `Passes.quantize`."""
        return to.quantize(x)

    def quantize_image(self, x: Tensor, to: ActivationParameters, frame: tuple[int, int] = (0, 0)) -> Tensor:
        """See `Passes.quantize_image`."""
        codes = to.quantize(x).contiguous(memory_format=torch.channels_last)
        if not any(frame):
            return codes
        framed = functional.pad(codes, (frame[1], frame[1], frame[0], frame[0]), value=to.zero_point)
        return framed.contiguous(memory_format=torch.channels_last)

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
        y = x.float() if shift is None else x.float() + shift.float()[:, :, None, None]
        y = y.contiguous()  # torch's channels-last variance loses digits where the mean is far from zero
        y = torch.group_norm(y, norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps)
        return self.quantize_image(functional.silu(y) if silu else y, to, frame)

    def layer_norm(self, x: Tensor, norm: nn.LayerNorm, to: ActivationParameters) -> Tensor:
        """See `Passes.layer_norm`."""
        bias: Tensor | None = norm.bias
        bias = None if bias is None else bias.float()
        return to.quantize(functional.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), bias, norm.eps))

    def geglu(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """See `Passes.geglu`."""
        value, gate = x.float().chunk(2, dim=-1)
        return to.quantize(value * functional.gelu(gate))

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
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        if integers is None:
            out = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        else:
            out = _integer_attention(q, k, v, scale, integers)
        out = out.transpose(1, 2).flatten(2)
        return out.to(query.dtype) if to is None else to.quantize(out)

    def quantize_per_token(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Passes.quantize_per_token`."""
        y = x.float().nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        scale = (y.masked_fill(y.isinf(), 0.0).abs().amax(dim=-1) / 127.0).clamp_min(1e-8)
        return to_codes(y * (1.0 / scale)[..., None], -127, 127).to(torch.int8), scale


def _symmetric(x: Tensor, scale: float, top: int) -> Tensor:
    return to_codes((x.float() * (1.0 / scale)).nan_to_num_(nan=0.0), -top, top)


def _integer_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, integers: AttentionScales) -> Tensor:
    """Both products on codes, exactly: they are sums of less than 2^24 that float32 holds, or float64 where it may not.
    Rows of scores go by in blocks."""
    top = integers.top
    keys = _symmetric(k, integers.key, top).transpose(-1, -2)
    values = _symmetric(v, integers.value, top).double()
    factor = integers.query * integers.key * scale
    blocks = []
    for rows in _symmetric(q, integers.query, top).split(ROWS_AT_A_TIME, dim=2):
        scores = (rows @ keys) * factor
        weights = (torch.exp(scores - scores.amax(dim=-1, keepdim=True)) * integers.softmax_top).round_().double()
        blocks.append((weights @ values * integers.value / weights.sum(dim=-1, keepdim=True)).float())
    return torch.cat(blocks, dim=2)
