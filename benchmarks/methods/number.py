"""How figures are written down for people."""

from __future__ import annotations


def number(value: float) -> str:
    """A figure in three or four digits."""
    if 0.99 <= abs(value) < 1.0:
        return f"{value:.5f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.4f}" if abs(value) >= 0.01 or value == 0.0 else f"{value:.3g}"
