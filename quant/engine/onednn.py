"""int8 products of oneDNN, through the operators that torch registers for its own compiler."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from quant.engine import native
from quant.engine.engine import Operands, Passes, Window
from quant.engine.opaque_weight import NibbleWeight, OpaqueWeight, store
from quant.quantizers.activation import ActivationParameters, ActivationTable

LAYOUTS = 2
"""Layouts of one convolution's weight that are kept at the same time."""


class Form(NamedTuple):
    """A kind of product, the dtype of its result, and whether it adds a residual."""

    product: str
    dtype: torch.dtype
    residual: bool

    def __str__(self) -> str:
        added = " with a residual" if self.residual else ""
        return f"{self.product} in {str(self.dtype).removeprefix('torch.')}{added}"


_PACKING = threading.Lock()
"""Of two threads that call one convolution, one changes its layouts at a time."""


class OneDNNEngine:
    """AMX, AVX512-VNNI or AVX-VNNI, whichever the processor has. With none of them, oneDNN sums pairs of products in 16
    bits, saturated: such processors fail the self-test.

    Three facts shape this file. A convolution called with a zero point other than 0 re-packs its weight at every call:
    so the codes come padded with the zero point, the kernel is told that it is 0, and what that leaves in the sums,
    zero_point * sum(codes), is taken out of the bias, which is exact and differs only from group to group. Weight zero
    points are ignored by the linear operator: weights are symmetric. And a weight in a layout that does not suit the
    size of the picture is re-packed at every call: so convolutions of single pixels run as linear layers, which have
    one layout, and others keep a layout per kind of size."""

    name = "onednn"

    def __init__(self, passes: Passes, widened: frozenset[Form] | None = None) -> None:
        """`widened` are the forms that run in float32 and are cast; None: those that oneDNN gets wrong here."""
        self.passes = passes
        self.widened = missing_forms() if widened is None else widened

    def linear(self, operands: Operands, packed: bool = False) -> _Linear:
        """See `Engine.linear`."""
        return _Linear(operands, packed, self.widened)

    def conv2d(self, operands: Operands, window: Window, packed: bool = False) -> _Convolution | _Pointwise:
        """See `Engine.conv2d`."""
        if window == Window(padding=window.padding) and operands.codes.shape[2:] == (1, 1):
            return _Pointwise(operands, packed, self.widened)
        return _Convolution(operands, window, packed, self.widened)


@cache
def missing_forms() -> frozenset[Form]:
    """The forms that oneDNN cannot compute on this processor, or gets wrong, tried once on a small layer each."""
    generator = torch.Generator().manual_seed(0)
    inputs, scale = ActivationTable((ActivationParameters(0.02, 117),)), torch.full((16,), 0.125)
    # So small that pairs of products do not saturate: that is the self-test's business.
    weight = torch.randint(-31, 32, (16, 32, 3, 3), generator=generator).to(torch.int8)
    image = torch.randint(0, 256, (2, 32, 6, 7), generator=generator).to(torch.uint8)
    kernels: dict[str, tuple[_Linear | _Convolution, Tensor]] = {
        "linear": (_Linear(Operands(weight[..., 0, 0].contiguous(), scale, None, inputs), False, frozenset()),
                   image.permute(0, 2, 3, 1).contiguous()),
        "convolution": (_Convolution(Operands(weight, scale, None, inputs), Window(), False, frozenset()), image),
    }  # fmt: skip
    missing = set()
    for product, (kernel, codes) in kernels.items():
        wanted = kernel(codes, 0, torch.float32)
        for dtype in (torch.bfloat16, torch.float16):
            for residual in (None, wanted.flip(0).to(dtype)):
                # Without AMX oneDNN has no convolution in float16 of its own, or only its slow reference.
                slow = product == "convolution" and dtype is torch.float16 and not native.has_tiles()
                if slow or not _computes(kernel, codes, dtype, residual, wanted):
                    missing.add(Form(product, dtype, residual is not None))
    return frozenset(missing)


def _computes(
    kernel: _Linear | _Convolution, codes: Tensor, dtype: torch.dtype, residual: Tensor | None, wanted: Tensor
) -> bool:
    """Whether a kernel gives what it gives in float32, but for rounding."""
    try:
        found = kernel(codes, 0, dtype, None if residual is None else residual.clone())
    except RuntimeError:  # oneDNN has no such primitive here
        return False
    exact = wanted if residual is None else wanted + residual.float()
    return bool((found.float() - exact).abs().max() < exact.abs().max() / 128)


class _Linear:
    def __init__(self, operands: Operands, packed: bool, widened: frozenset[Form]) -> None:
        self._widened = widened
        self._weight = store(torch.ops.onednn.qlinear_prepack(operands.codes.contiguous(), None), packed)
        self._scale, self._inputs = operands.weight_scale.float().contiguous(), operands.inputs
        self._offsets = torch.zeros(len(operands.codes), dtype=torch.int32)
        self._bias = None if operands.bias is None else operands.bias.float()

    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        if not codes.numel():  # the operator gets the shape of an empty result wrong
            return codes.new_empty((*codes.shape[:-1], len(self._scale)), dtype=dtype)
        if dtype is not torch.float32 and Form("linear", dtype, residual is not None) in self._widened:
            return self(codes, group, torch.float32, None if residual is None else residual.float()).to(dtype)
        inputs, weight = self._inputs.at(group), self._weight.tensor()
        if residual is None:
            out: Tensor = torch.ops.onednn.qlinear_pointwise(
                codes, inputs.scale, inputs.zero_point, weight, self._scale, self._offsets, self._bias, 1.0, 0, dtype,
                "none", [], "",
            )  # fmt: skip
            return out
        return torch.ops.onednn.qlinear_pointwise.binary(
            codes, inputs.scale, inputs.zero_point, weight, self._scale, self._offsets, residual, self._bias, 1.0, 0,
            dtype, 1.0, 0, "add", 1.0, "none", [], "",
        )  # fmt: skip

    def per_token(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        if not codes.numel():
            return codes.new_empty((*codes.shape[:-1], len(self._scale)), dtype=dtype)
        zero_point = 0
        if not native.has_tiles():
            # Signed inputs run in oneDNN's reference kernel there, a thousand times as slow; the shift is exact.
            codes, zero_point = codes.contiguous().view(torch.uint8) ^ 128, 128
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, zero_point, self._weight.tensor(), self._scale, self._offsets, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        out *= scale[..., None]
        return (out if self._bias is None else out.add_(self._bias)).to(dtype)

    def codes(self) -> Tensor:
        return self._weight.tensor().to_dense().t().contiguous()

    def resident_bytes(self) -> int:
        return self._weight.resident_bytes()


class _Pointwise:
    """A convolution that looks at one pixel, as a linear layer of its channels."""

    def __init__(self, operands: Operands, packed: bool, widened: frozenset[Form]) -> None:
        self._shape = operands.codes.shape
        self._linear = _Linear(replace(operands, codes=operands.codes.flatten(1)), packed, widened)

    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        rows = codes.permute(0, 2, 3, 1).contiguous()
        added = None if residual is None else residual.permute(0, 2, 3, 1).contiguous()
        return self._linear(rows, group, dtype, added).permute(0, 3, 1, 2)

    def codes(self) -> Tensor:
        return self._linear.codes().view(self._shape)

    def resident_bytes(self) -> int:
        return self._linear.resident_bytes()


class _Convolution:
    def __init__(self, operands: Operands, window: Window, packed: bool, widened: frozenset[Form]) -> None:
        self._widened = widened
        self._window, self._packed, self._shape = window, packed, operands.codes.shape
        self._plain: Tensor | None = operands.codes  # until the first picture tells which layout suits its size
        self._by_layout: dict[bytes, OpaqueWeight | NibbleWeight] = {}
        self._by_size: dict[torch.Size, OpaqueWeight | NibbleWeight] = {}
        self._scale, self._inputs = operands.weight_scale.float().contiguous(), operands.inputs
        self._offsets = torch.zeros(len(operands.codes), dtype=torch.int32)
        sums = operands.codes.to(torch.int32).flatten(1).sum(dim=1).double()
        self._correction = sums * operands.weight_scale.double()
        self._bias = torch.zeros(len(sums)) if operands.bias is None else operands.bias.float()
        self._biases: dict[int, Tensor] = {}

    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        if dtype is not torch.float32 and Form("convolution", dtype, residual is not None) in self._widened:
            return self(codes, group, torch.float32, None if residual is None else residual.float()).to(dtype)
        inputs, window = self._inputs.at(group), self._window
        stride, dilation = list(window.stride), list(window.dilation)
        codes, stride[1] = self._without_lone_column(codes, stride[1])
        codes = codes.contiguous(memory_format=torch.channels_last)
        arguments = (
            codes, inputs.scale, 0, self._weight(codes), self._scale, self._offsets,
        )  # fmt: skip
        geometry = (stride, [0, 0], dilation, window.groups, 1.0, 0, dtype)
        bias = self._corrected_bias(group)
        if residual is None:
            out: Tensor = torch.ops.onednn.qconv_pointwise(*arguments, bias, *geometry, "none", [], "")
            return out
        residual = residual.contiguous(memory_format=torch.channels_last)
        return torch.ops.onednn.qconv2d_pointwise.binary(
            *arguments, residual, bias, *geometry, 1.0, 0, "sum", 1.0, "none", [], ""
        )  # type: ignore[no-any-return]

    def codes(self) -> Tensor:
        if self._plain is not None:
            return self._plain
        weight = next(iter(self._by_layout.values()))
        return weight.tensor().to_dense().reshape(self._shape)

    def resident_bytes(self) -> int:
        plain = 0 if self._plain is None else self._plain.numel()
        return plain + sum(weight.resident_bytes() for weight in self._by_layout.values())

    def _without_lone_column(self, codes: Tensor, stride: int) -> tuple[Tensor, int]:
        """A strided convolution whose result is one column wide comes out wrong on AMX (oneDNN in torch 2.13): only the
        columns that it looks at are passed, and a stride of 1, which is the same."""
        reach = (self._shape[-1] - 1) * self._window.dilation[1] + 1
        if stride > 1 and (codes.shape[-1] - reach) // stride == 0:
            return codes[..., :reach], 1
        return codes, stride

    def _weight(self, codes: Tensor) -> Tensor:
        weight = self._by_size.get(codes.shape)
        if weight is None:
            with _PACKING:
                weight = self._by_size[codes.shape] = self._packed_for(codes)
        return weight.tensor()

    def _packed_for(self, codes: Tensor) -> OpaqueWeight | NibbleWeight:
        window = self._window
        opaque = torch.ops.onednn.qconv_prepack(
            self.codes(), self._scale, 1.0, 0, list(window.stride), [0, 0], list(window.dilation), window.groups,
            list(codes.shape),
        )  # fmt: skip
        layout = torch.ops.mkldnn._get_mkldnn_serialized_md(opaque).numpy().tobytes()
        if layout not in self._by_layout:
            if len(self._by_layout) == LAYOUTS:
                self._by_layout.clear()
                self._by_size.clear()
            self._by_layout[layout] = store(opaque, self._packed)
        self._plain = None
        return self._by_layout[layout]

    def _corrected_bias(self, group: int) -> Tensor:
        row = group if len(self._inputs.rows) > 1 else 0
        if row not in self._biases:
            inputs = self._inputs.at(row)
            offset = self._correction * (inputs.scale * inputs.zero_point)
            self._biases[row] = (self._bias.double() - offset).float()
        return self._biases[row]
