"""The plots of a report, as SVG text that is the same for the same document."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contract.card import Statistic
from quant.fidelity.document import Document, MetricTraits
from quant.fidelity.floors import BFLOAT16, FINITE_SAMPLE, OTHER_SEEDS

COLUMNS = 3
SMALLEST = 1e-9
"""What perfection is drawn as on a logarithmic scale."""
COLOURS = {BFLOAT16: "#7a7a7a", OTHER_SEEDS: "#b0b0b0", FINITE_SAMPLE: "#d0d0d0"}
LABELS = {BFLOAT16: "bfloat16 (floor)", OTHER_SEEDS: "other seeds", FINITE_SAMPLE: "finite sample"}
"""Of the floors, as COLOURS."""


def bars(document: Document, prompt_set: str) -> str:
    """A panel per metric: one bar with its 95 % interval for every variant and floor."""
    metrics = document.protocol.metrics
    rows = -(-len(metrics) // COLUMNS)
    figure = Figure(figsize=(12, 2.9 * rows), layout="constrained")
    for place, metric in enumerate(metrics):
        _bar_panel(figure.add_subplot(rows, COLUMNS, place + 1), document, prompt_set, metric)
    return _svg(figure)


def trajectories(document: Document, prompt_set: str) -> str:
    """How far the latents are from the reference's after every step, a curve per variant and floor."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axis = figure.add_subplot()
    for name, floor in document.floors.items():
        if floor.curves:
            curve = np.array(floor.curves[prompt_set], dtype=np.float64)
            axis.plot(range(1, len(curve) + 1), curve, "--", color="#888888", label=LABELS[name], linewidth=1.2)
    for name, variant in document.measured.items():
        curve = np.array(variant.curves[prompt_set], dtype=np.float64)
        axis.plot(range(1, len(curve) + 1), curve, label=name, linewidth=1.8)
    axis.set_yscale("log")
    axis.axhline(document.protocol.diverged_at, color="crimson", linewidth=0.8, linestyle=":")
    axis.set_xlabel("step")
    axis.set_ylabel("relative distance of the latents")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25)
    return _svg(figure)


def _bar_panel(axis: Axes, document: Document, prompt_set: str, metric: str) -> None:
    traits = document.protocol.metrics[metric]
    arms = _arms(document, prompt_set, metric)
    perfect = None if any((statistic.mean or 0.0) < 0.0 for statistic, _ in arms.values()) else traits.identical
    for place, (statistic, colour) in enumerate(arms.values()):
        if statistic.mean is not None:
            low, high = statistic.ci95 or (statistic.mean, statistic.mean)
            low, mean, high = sorted(_shown(value, perfect) for value in (low, statistic.mean, high))
            axis.bar(place, mean, color=colour, width=0.7)
            axis.vlines(place, low, high, color="black", linewidth=1.2)
    if perfect is not None:
        axis.set_yscale("log")
    axis.set_xticks(range(len(arms)), list(arms), rotation=30, ha="right", fontsize=7)
    axis.tick_params(axis="y", labelsize=7)
    axis.set_title(_title(metric, traits, perfect), fontsize=9)


def _arms(document: Document, prompt_set: str, metric: str) -> dict[str, tuple[Statistic, str]]:
    """The statistic and the colour of every bar."""
    variants = enumerate(document.measured.items())
    arms = {name: (variant.prompt_sets[prompt_set][metric], f"C{place}") for place, (name, variant) in variants}
    floors = {name: floor.prompt_sets[prompt_set] for name, floor in document.floors.items()}
    return arms | {LABELS[name]: (by[metric], COLOURS[name]) for name, by in floors.items() if metric in by}


def _shown(value: float, perfect: float | None) -> float:
    """A value as its distance from perfection, where that is 0 or 1."""
    return value if perfect is None else max(abs(value - perfect), SMALLEST)


def _title(metric: str, traits: MetricTraits, perfect: float | None) -> str:
    if perfect is None:
        unit = f", {traits.unit}" if traits.unit else ""
        return f"{metric}{unit} ({traits.better} is better)"
    return f"{'1 - ' if perfect else ''}{metric} (lower is better, log scale)"


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "facsimile", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
