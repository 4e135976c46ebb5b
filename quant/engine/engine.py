"""What an integer engine is: kernels for the products, and the passes between one product and the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.tensor.affine import signed_top, unsigned_top


@dataclass(frozen=True)
class Operands:
    """What a layer multiplies by: codes int8 ([N, K] or [N, C / groups, kH, kW]), their scales float32 [N], a bias
    float32 [N] or None, and how the activations are coded at every group of timesteps."""

    codes: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    inputs: ActivationTable


@dataclass(frozen=True)
class Window:
    """Where a convolution looks: (height, width) each, and the number of groups. Padding is with zeros."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Kernel(Protocol):
    """One layer, ready to run; its weight lies in a layout of the engine's own."""

    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        """Floats of `dtype` from uint8 codes that were quantized with the parameters of `group`, plus `residual` of
        the same shape and dtype. A convolution of several pixels may overwrite it, any other layer leaves it alone.

        Linear: [..., K] to [..., N]. Convolution: [B, C, H + 2 pH, W + 2 pW], the padding filled with the zero point,
        to [B, N, H', W'], both channels-last."""
        ...

    def codes(self) -> Tensor:
        """The weight as it was given, int8."""
        ...

    def resident_bytes(self) -> int:
        """Memory that the weight takes."""
        ...


class LinearKernel(Kernel, Protocol):
    """A linear layer that can also take activations with a scale for each token."""

    def per_token(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """Floats [..., N] from symmetric int8 codes [..., K] with scales float32 [...]."""
        ...


@dataclass(frozen=True)
class AttentionScales:
    """Symmetric scales of query, key and value (x = code * scale, codes -top to top), and the bits of the softmax
    output: codes 0 to softmax_top of exp(score - the row's largest score)."""

    query: float
    key: float
    value: float
    bits: int = 8
    softmax_bits: int = 8

    @property
    def top(self) -> int:
        """The largest code of query, key and value."""
        return signed_top(self.bits)

    @property
    def softmax_top(self) -> int:
        """The largest code of the softmax output."""
        return unsigned_top(self.softmax_bits)


class Passes(Protocol):
    """Everything between two products that ends in codes, in as few passes over the data as the device allows."""

    name: str

    def quantize(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """Codes of tokens [..., C]."""
        ...

    def quantize_image(self, x: Tensor, to: ActivationParameters, frame: tuple[int, int] = (0, 0)) -> Tensor:
        """Codes of a picture [B, C, H, W], channels-last, with `frame` rows and columns of the zero point around."""
        ...

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
        """Codes, framed, of the normalized `x` + `shift` [B, C], with SiLU or without."""
        ...

    def layer_norm(self, x: Tensor, norm: nn.LayerNorm, to: ActivationParameters) -> Tensor:
        """Codes of normalized tokens [..., C]."""
        ...

    def geglu(self, x: Tensor, to: ActivationParameters) -> Tensor:
        """Codes [..., C] of x[..., :C] * gelu(x[..., C:])."""
        ...

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        to: ActivationParameters | None,
        integers: AttentionScales | None = None,
    ) -> Tensor:
        """softmax(query key^T * scale) value for [B, L, H, D] and twice [B, S, H, D]: codes uint8 [B, L, H * D], or
        floats when `to` is None. With `integers`, both products multiply codes."""
        ...

    def quantize_per_token(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Symmetric int8 codes [..., C] and the scale of every token, float32 [...]: its largest magnitude / 127."""
        ...


class Engine(Protocol):
    """Prepares layers for integer execution on one kind of device.

    `packed` keeps weights of 4 bits or fewer two codes to a byte and unpacks them at every call into a buffer that all
    layers of a thread share; otherwise each code takes a byte."""

    name: str
    passes: Passes

    def linear(self, operands: Operands, packed: bool = False) -> LinearKernel:
        """A kernel for tokens."""
        ...

    def conv2d(self, operands: Operands, window: Window, packed: bool = False) -> Kernel:
        """A kernel for pictures."""
        ...
