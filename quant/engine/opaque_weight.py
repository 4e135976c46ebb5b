"""A weight in oneDNN's own layout, one byte per code or two codes per byte."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from quant.engine import native


class OpaqueWeight:
    """What oneDNN's operators multiply by."""

    def __init__(self, opaque: Tensor) -> None:
        self._opaque = opaque

    def tensor(self) -> Tensor:
        """The opaque tensor, valid until the next weight is asked for."""
        return self._opaque

    def resident_bytes(self) -> int:
        """Memory that the weight takes."""
        return int(torch.ops.mkldnn._nbytes(self._opaque))


class Scratch(threading.local):
    """Memory that all weights of a thread are unpacked into, one after the other: as much as the largest one takes.
    Threads share none, so pipelines that run side by side leave each other's weights alone."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.int8)

    def of(self, size: int) -> Tensor:
        """The calling thread's buffer, int8 with `size` elements or more; what it held is lost."""
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=torch.int8)
        return self._buffer


SCRATCH = Scratch()


class NibbleWeight:
    """Codes of 4 bits or fewer, packed in oneDNN's order and unpacked at every use into the thread's buffer.

    The layout is opaque: bytes are packed as far as all of them are such codes, the rest (sums that some layouts carry
    at their end) is kept as it is."""

    def __init__(self, opaque: Tensor) -> None:
        size = int(torch.ops.mkldnn._nbytes(opaque))
        stored = torch.ops.facsimile.copy_bytes(torch.ops.mkldnn.data_ptr(opaque), size)
        values = stored.view(torch.int8)
        wide = ((values < -8) | (values > 7)).nonzero()
        self._codes = size // 2 * 2 if len(wide) == 0 else int(wide[0]) // 64 * 64
        nibbles = stored[: self._codes] & 0xF
        self._packed = nibbles[::2] | (nibbles[1::2] << 4)
        self._tail = stored[self._codes :].clone()
        self._layout = torch.ops.mkldnn._get_mkldnn_serialized_md(opaque)
        self._sizes = list(opaque.shape)

    def tensor(self) -> Tensor:
        """See `OpaqueWeight.tensor`; valid until this thread asks for the next one."""
        scratch = SCRATCH.of(self._codes + self._tail.numel())
        unpacked: Tensor = torch.ops.facsimile.unpack_weight(
            self._packed, self._tail, self._codes, self._sizes, self._layout, scratch
        )
        return unpacked

    def resident_bytes(self) -> int:
        """See `OpaqueWeight.resident_bytes`; the shared buffer is not counted."""
        return self._packed.numel() + self._tail.numel() + self._layout.numel()


def store(opaque: Tensor, packed: bool) -> OpaqueWeight | NibbleWeight:
    """Keeps an opaque weight; packing needs the native kernels and is left out without them."""
    return NibbleWeight(opaque) if packed and native.available() else OpaqueWeight(opaque)
