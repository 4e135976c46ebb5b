"""The compiled library: where it lies, whether it is up to date, and whether this processor can run it."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import torch

from contract.places import installed, user_cache
from quant.engine import processor

SOURCE = Path(__file__).parent / "source"
BUILD = Path(__file__).parent / "build"
"""Where a checkout and an image have the library."""


def library_path() -> Path:
    """Where the library for these sources and this torch is, or belongs; any change of either gives another name.

    It belongs beside the sources, or, where these are installed or cannot be written to, in the user's cache folder."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    name = f"facsimile-{digest.hexdigest()[:16]}.so"
    beside = BUILD / name
    if beside.is_file() or (not installed() and os.access(BUILD if BUILD.is_dir() else BUILD.parent, os.W_OK)):
        return beside
    return user_cache() / "kernels" / name


@cache
def status() -> str:
    """`ready`, or why the native kernels are not used. The first call loads the library."""
    if not processor.allows("avx512_bf16"):
        return f"{processor.VARIABLE} is {processor.CAP}"
    features = torch.backends.cpu.get_cpu_capability()
    if not torch.cpu._is_avx512_supported() or not torch.cpu._is_avx512_bf16_supported():
        return f"this processor lacks AVX-512 with BF16 ({features})"
    if not library_path().is_file():
        return "not compiled: `python -m quant.engine.native.compilation` does it, as does `make setup`"
    try:
        torch.ops.load_library(library_path())
    except OSError as error:
        return f"the compiled library cannot be loaded: {error}"
    return "ready"


def available() -> bool:
    """Whether `torch.ops.facsimile` can be called."""
    return status() == "ready"


@cache
def has_tiles() -> bool:
    """Whether the processor has AMX tiles, the system lets us use them, and no cap forbids it."""
    return bool(processor.allows("amx") and torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx())
