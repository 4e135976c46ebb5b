"""What quantized linear and convolution layers share: their tensors, and a kernel made of them at the first call."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from quant.engine.engine import Engine, Kernel, Operands
from quant.engine.selection import default_engine
from quant.errors import CheckpointError
from quant.layers.capture import uncompiled
from quant.layers.moved import Moved
from quant.layers.straight_through import StraightThrough, needs_gradient
from quant.layers.timesteps import TimestepGroups
from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.quantizers.weight import QuantizedWeight
from quant.tensor.packing import pack_int4, unpack_int4

KernelT = TypeVar("KernelT", bound=Kernel)

_BUILDING = threading.RLock()
"""Of two threads that call one layer for the first time, one makes its kernel."""


def is_hooked(module: nn.Module) -> bool:
    """Whether calling a module does more than the forward of its class, so that nobody may pass it by."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


class QuantizedLayer(Moved, ABC, Generic[KernelT]):
    """A layer whose weight is integer codes and whose input is quantized to uint8 with calibrated scales.

    Buffers, which are also the checkpoint's tensors: `weight` (int8 [N, ...], or for 4 bits and fewer uint8
    [N, ceil(K / 2)] holding two codes per byte), `weight_scale` float32 [N], `bias` float32 [N] or None, and the table
    of the input, one row per group of timesteps or one for all: `input_scale` float32 [T], `input_zero_point` int32
    [T], `input_bits` uint8 [T]. A dynamic layer has no table: T is 0, and its scales come from every input anew.

    The first call moves the weight into the kernel's own layout; `weight` is then rebuilt when it is asked for."""

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor
    input_zero_point: Tensor
    input_bits: Tensor
    bias: Tensor | None

    def __init__(self, shape: tuple[int, ...], weight_bits: int, has_bias: bool, groups: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.weight_bits = weight_bits
        packed = (shape[0], (int(torch.Size(shape[1:]).numel()) + 1) // 2)
        weight = torch.zeros(shape, dtype=torch.int8) if weight_bits > 4 else torch.zeros(packed, dtype=torch.uint8)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", torch.ones(shape[0]))
        self.register_buffer("input_scale", torch.ones(groups))
        self.register_buffer("input_zero_point", torch.zeros(groups, dtype=torch.int32))
        self.register_buffer("input_bits", torch.full((groups,), 8, dtype=torch.uint8))
        self.register_buffer("bias", torch.zeros(shape[0]) if has_bias else None)
        self.timesteps = TimestepGroups()
        self.engine: Engine | None = None
        self.packed = False
        self._table: ActivationTable | None = None
        self._kernel: KernelT | None = None

    def assign(
        self, weight: QuantizedWeight, inputs: ActivationTable | ActivationParameters | None, bias: Tensor | None
    ) -> None:
        """Takes over codes, scales, the input's quantization (None: dynamic) and the bias."""
        table = ActivationTable((inputs,)) if isinstance(inputs, ActivationParameters) else inputs
        self.release()
        self.weight = self._stored(weight.codes)
        self.weight_scale = weight.scale
        self.input_scale, self.input_zero_point, self.input_bits = (table or ActivationTable(())).write()
        self.bias = None if bias is None else bias.detach().float()
        self._table = None

    @property
    def inputs(self) -> ActivationTable:
        """How the input is quantized. Raises CheckpointError where the stored values make no sense."""
        if self._table is None:
            self._table = ActivationTable.read(self.input_scale, self.input_zero_point, self.input_bits)
        return self._table

    @property
    def is_dynamic(self) -> bool:
        """Whether the input's scale is found anew for every token."""
        return not self.inputs.rows

    @property
    def activation(self) -> ActivationParameters:
        """How the input is quantized at the current timestep. Raises AttributeError for a dynamic layer."""
        rows = self.inputs.rows
        if not rows:
            raise AttributeError("a layer with a scale per token has no calibrated one")
        return rows[0] if len(rows) == 1 else rows[self.timesteps.current]

    @property
    def takes_codes(self) -> bool:
        """Whether at the current timestep the layer multiplies codes of a calibrated scale."""
        rows = self.inputs.rows
        return bool(rows) and not rows[self.timesteps.current if len(rows) > 1 else 0].is_float

    @property
    def quantized_weight(self) -> QuantizedWeight:
        """The weight's codes, one per element, and scales."""
        if self._kernel is not None:
            return QuantizedWeight(self._kernel.codes(), self.weight_scale)
        codes = self.weight if self.weight_bits > 4 else unpack_int4(self.weight, self.shape)
        return QuantizedWeight(codes, self.weight_scale)

    def check(self) -> None:
        """Raises CheckpointError where scales or zero points make no sense."""
        if len(self.inputs.rows) not in (0, 1, len(self.timesteps)):
            raise CheckpointError(f"a table of {len(self.inputs.rows)} rows for {len(self.timesteps)} timestep groups")
        if not bool((self.weight_scale.isfinite() & (self.weight_scale > 0.0)).all()):
            raise CheckpointError("weight_scale must be positive and finite")
        if self.bias is not None and not bool(self.bias.isfinite().all()):
            raise CheckpointError("bias must be finite")

    @property
    def kernel(self) -> KernelT:
        """The prepared layer. Made at the first call, when the buffer `weight` is given up."""
        kernel = self._kernel
        if kernel is None:
            with _BUILDING:
                kernel = self._kernel = self._kernel or self._built()
                self._buffers.pop("weight", None)
        return kernel

    @property
    def chosen_engine(self) -> Engine:
        """The engine that was set, or the default one of the device."""
        return self.engine or default_engine(self.weight_scale.device.type)

    def multiply(self, codes: Tensor, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        """The layer on codes of the current timestep's parameters; see `Kernel`."""
        group = 0 if len(self.inputs.rows) == 1 else self.timesteps.current
        return self.kernel(codes, group, dtype, residual)

    @abstractmethod
    def quantize(self, x: Tensor) -> Tensor:
        """Codes of an input, as `multiply` takes them."""

    @abstractmethod
    def dequantized(self) -> nn.Module:
        """The floating-point layer that this one approximates, with the weight that the codes stand for."""

    def _built(self) -> KernelT:
        weight = self.quantized_weight
        operands = Operands(weight.codes, weight.scale, self.bias, self.inputs)
        return self._build(self.chosen_engine, operands)

    @abstractmethod
    def _build(self, engine: Engine, operands: Operands) -> KernelT: ...

    @abstractmethod
    def _dynamic(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def input_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The gradient, float32 of `shape`, of an input of that shape that was not clipped, from the output's."""

    @uncompiled
    def forward(self, x: Tensor) -> Tensor:
        """As the floating-point layer: floats in, floats of the same dtype out. The gradient is that of
        `StraightThrough`; codes, scales and bias have none."""
        if needs_gradient(x):
            out: Tensor = StraightThrough.apply(x, self)
            return out
        return self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        """`forward` without a gradient."""
        if self.is_dynamic:
            return self._dynamic(x)
        if self.activation.is_float:
            out: Tensor = self.dequantized().to(x.dtype)(x)
            return out
        return self.multiply(self.quantize(x), x.dtype)

    @property
    def kernel_bytes(self) -> int:
        """Memory that the weight takes in the kernel; 0 while it is in its buffer."""
        return 0 if self._kernel is None else self._kernel.resident_bytes()

    @property
    def num_weights(self) -> int:
        """How many numbers the floating-point layer has: weights and biases."""
        return torch.Size(self.shape).numel() + (0 if self.bias is None else len(self.bias))

    @property
    def stored_bytes(self) -> int:
        """Bytes of the codes in their buffer and in a checkpoint, wherever they are now."""
        columns = torch.Size(self.shape[1:]).numel()
        return self.shape[0] * (columns if self.weight_bits > 4 else (columns + 1) // 2)

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, weight_bits={self.weight_bits}, timestep_groups={len(self.input_scale)}"

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and self.__dict__.get("_kernel") is not None:
            return self._stored(self.__dict__["_kernel"].codes())
        return super().__getattr__(name)

    def _stored(self, codes: Tensor) -> Tensor:
        return codes if self.weight_bits > 4 else pack_int4(codes)

    def release(self) -> None:
        """Gives the weight back to its buffer and forgets the kernel."""
        if self._kernel is not None:
            weight = self.weight
            self._kernel = None
            self._buffers["weight"] = weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLayer[KernelT]:
        self.release()
        self._table = None
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *options: Any) -> None:
        """Takes the tensors, also after the first call, and makes a kernel of them at the next one."""
        self.release()
        self._table = None
        super()._load_from_state_dict(state_dict, prefix, *options)
        try:
            self.check()
        except CheckpointError as error:
            options[-1].append(f"{prefix.rstrip('.')}: {error}")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the weight in its buffer: the kernel's layout cannot be copied."""
        if self._kernel is None:
            return self.__dict__
        buffers = self._buffers | {"weight": self.weight}
        return self.__dict__ | {"_kernel": None, "_buffers": buffers}
