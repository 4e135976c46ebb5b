"""Figures as the page writes them, and the link to where they are explained."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from contract.card import Statistic

IDENTICAL = "∞ (identical)"
"""A metric that has no finite value: PSNR of two equal pictures."""


def figure(value: float | None) -> str:
    """Four significant digits."""
    if value is None:
        return IDENTICAL
    return f"{value:#.4g}".rstrip(".") if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def statistic(value: Statistic | None) -> str:
    """The mean, and its 95 % interval where there is one."""
    if value is None:
        return "not measured"
    if value.mean is None:
        return value.reason or "no figure"
    if value.ci95 is None:
        return figure(value.mean)
    low, high = value.ci95
    return f"{figure(value.mean)}  [{figure(low)}, {figure(high)}]"


def megabytes(count: int) -> str:
    """Bytes as MB."""
    return f"{count / 1e6:.1f} MB"


def stages(seconds: Mapping[str, float]) -> str:
    """Seconds in total, and per stage."""
    total = seconds.get("total", sum(seconds.values()))
    parts = ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items() if stage != "total")
    return f"{total:.2f} s ({parts})" if parts else f"{total:.2f} s"


def metric_name(name: str) -> str:
    """A metric's identifier as prose, with what it sees pictures through after it if that is named."""
    known = {"psnr": "PSNR (dB)", "ssim": "SSIM", "latent_mse": "Latent MSE", "lpips": "LPIPS"}
    metric, _, backbone = name.partition(":")
    prose = known.get(metric, metric.replace("_", " ").capitalize())
    return f"{prose} ({backbone})" if backbone else prose


def report_link(url: str, text: str) -> str:
    """A link as HTML to a report, which opens in a tab of its own."""
    return f'<a href="{escape(url)}" target="_blank" rel="noopener">{escape(text)}</a>'
