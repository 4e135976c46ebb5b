"""The number type that a model computes in."""

from __future__ import annotations

import torch

from quant.engine import processor

AUTO = "auto"


def torch_dtype(name: str) -> torch.dtype:
    """The type of a name that is not `auto`. Raises ValueError for one that is no floating-point type."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype {name!r} is no floating-point type of torch")
    return dtype


def fastest(device: str) -> str:
    """What `auto` stands for on a device type: bfloat16 where it multiplies it, else float32."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if processor.multiplies_bfloat16() else "float32"


def resolved_dtype(name: str, device: str = "cpu") -> str:
    """The name itself, or what `auto` stands for on a device type."""
    return fastest(device) if name == AUTO else name
