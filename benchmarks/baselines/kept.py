"""The layers that every quantized contender keeps in floating point: first and last convolution and the time path."""

from __future__ import annotations

from fnmatch import fnmatchcase

KEPT = ("conv_in", "conv_out", "time_embedding.*", "*.time_emb_proj")
"""fnmatch patterns on a layer's full name."""


def is_kept(name: str) -> bool:
    """Whether the layer called `name` stays in floating point."""
    return any(fnmatchcase(name, pattern) for pattern in KEPT)
