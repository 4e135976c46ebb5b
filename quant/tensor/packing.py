"""Two 4-bit codes per byte, along each row."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_int4(codes: Tensor) -> Tensor:
    """Packs int8 codes in [-8, 7], [N, ...], to uint8 [N, ceil(K / 2)], K being the product of the other sizes.

    The first code of a pair is in the low nibble; an odd row ends with a zero code. Raises ValueError on other codes.

    >>> pack_int4(torch.tensor([[1, -1, 7]], dtype=torch.int8))
    tensor([[241,   7]], dtype=torch.uint8)
    """
    if codes.dtype != torch.int8 or (codes.numel() and (codes.min() < -8 or codes.max() > 7)):
        raise ValueError(f"4-bit codes are int8 in [-8, 7], got {codes.dtype}")
    rows = codes.reshape(codes.shape[0], -1)
    if rows.shape[1] % 2:
        rows = torch.nn.functional.pad(rows, (0, 1))
    nibbles = rows.view(torch.uint8) & 0xF
    return (nibbles[:, ::2] | (nibbles[:, 1::2] << 4)).contiguous()


def unpack_int4(packed: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """The int8 codes of `shape` that `pack_int4` packed. Raises ValueError when `packed` has another size."""
    columns = int(torch.Size(shape[1:]).numel())
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (shape[0], (columns + 1) // 2):
        raise ValueError(f"{tuple(packed.shape)} {packed.dtype} cannot hold 4-bit codes of shape {tuple(shape)}")
    nibbles = torch.stack([packed & 0xF, packed >> 4], dim=-1).view(torch.int8)
    codes = torch.where(nibbles > 7, nibbles - 16, nibbles)
    return codes.reshape(shape[0], -1)[:, :columns].reshape(shape).contiguous()
