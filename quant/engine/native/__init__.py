"""Our own compiled kernels: fused passes and attention for processors with AVX-512. Optional: without them, plain torch
does the same, slower."""

from __future__ import annotations

from quant.engine.native.library import available, has_tiles, status

__all__ = ["available", "has_tiles", "status"]
