"""A weight in memory: one byte per code, or two codes per byte."""

# A kernel's arguments have the types of each launch.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from quant.engine.triton.launch import ceil_div, on_device_of
from quant.tensor.packing import pack_int4

_BLOCK = 4096


class ByteWeight:
    """Codes int8 as the product reads them."""

    def __init__(self, codes: Tensor) -> None:
        self._codes = codes.contiguous()

    def tensor(self) -> Tensor:
        """The codes, in the shape that was given."""
        return self._codes

    def resident_bytes(self) -> int:
        """Memory that the weight takes."""
        return self._codes.numel()


class NibbleWeight:
    """Codes in [-8, 7], unpacked at every use into memory that goes back to torch's allocator after the product, which
    gives the next layer the same block: in the order of the stream that is safe, also within a CUDA graph."""

    def __init__(self, codes: Tensor) -> None:
        self._shape = codes.shape
        self._packed = pack_int4(codes.reshape(1, -1)).flatten()

    def tensor(self) -> Tensor:
        """The codes, int8, in the shape that was given."""
        count = self._shape.numel()
        codes = torch.empty(count, dtype=torch.int8, device=self._packed.device)
        if count:
            with on_device_of(codes):
                size = len(self._packed)
                unpack_kernel[(ceil_div(size, _BLOCK),)](self._packed, codes, size, count, BLOCK=_BLOCK)
        return codes.view(self._shape)

    def resident_bytes(self) -> int:
        """Memory that the weight takes between uses."""
        return self._packed.numel()


def store(codes: Tensor, packed: bool) -> ByteWeight | NibbleWeight:
    """Keeps codes int8 of any shape."""
    return NibbleWeight(codes) if packed else ByteWeight(codes)


@triton.jit
def unpack_kernel(packed, codes, size, count, BLOCK: tl.constexpr):
    """Codes int8 from bytes, the low nibble first."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    place = start + tl.arange(0, BLOCK)
    byte = tl.load(packed + place, mask=place < size, other=0)
    nibbles = tl.reshape(tl.join(byte & 15, byte >> 4), (2 * BLOCK,)).to(tl.int8)
    at = start * 2 + tl.arange(0, 2 * BLOCK)
    tl.store(codes + at, (nibbles ^ 8) - 8, mask=at < count)
