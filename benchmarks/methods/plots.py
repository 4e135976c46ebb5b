"""Pictures of the study, SVG files that stay the same while the results do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.methods.arms import BITS, PRESETS
from benchmarks.methods.claims import FLOOR
from benchmarks.methods.evidence import SSIM, Json, Results, floor, has_tiles, primary

ORDER = ("w8a8", "w6a6", "w4a8", "w4a6", "w3a8", "w4a4")
CURVES_AT = "w4a8"
SMALLEST = 1e-6
LABEL = "1 - SSIM"
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "facsimile", "font.size": 9, "axes.spines.top": False}
WIDTH = 7.5
PLACES = 3


def draw(results: Results, titles: Mapping[str, str], folder: Path) -> list[str]:
    """Draws all pictures that there are results for; returns the names of their files."""
    presets = [result for result in results.values() if result["group"] is None]
    ablations = {name: result for name, result in results.items() if result["group"] is not None}
    drawn: dict[str, Figure] = {}
    with mpl.rc_context(STYLE):
        if presets:
            drawn["quality-seconds"] = quality_by_seconds(presets)
            drawn["quality-bits"] = quality_by_bits(presets)
        if any(result["bits"] == CURVES_AT for result in presets):
            drawn["error-growth"] = error_growth([each for each in presets if each["bits"] == CURVES_AT])
        if ablations:
            drawn["ablation-bars"] = ablation_bars(results, ablations, titles)
        if drawn:
            folder.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            _settle(figure)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return [f"{name}.svg" for name in drawn]


def _settle(figure: Figure) -> None:
    """Rounds where the layout put the axes: its last digits differ between processors, and with them names in the
    file."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        axis.set_position([round(float(edge), PLACES) for edge in axis.get_position().bounds])


def quality_by_seconds(presets: Sequence[Json]) -> Figure:
    """Error against seconds of calibration, both logarithmic: a panel for each of the bits that all presets have, and
    the floor. Points are hollow where the processor had no AMX tiles."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    panels = figure.subplots(1, len(BITS), sharex=True, sharey=True)
    for bits, axis in zip(BITS, panels, strict=True):
        shown = [result for result in presets if result["bits"] == bits]
        for result in shown:
            mean, below, above = _error(result)
            seconds, colour = max(result["calibration"]["seconds"], 0.1), _colour(result["preset"])
            filled = colour if has_tiles(result) else "white"
            spread = [[below], [above]]
            axis.errorbar(seconds, mean, spread, fmt="o", color=colour, mfc=filled, markersize=4, elinewidth=1)
        for result in shown[:1]:  # the floor is the same for all
            axis.axhline(1.0 - floor(result, FLOOR, SSIM, primary(result)), ls="--", color="#888888", lw=0.8)
        axis.set_title(bits.upper(), fontsize=9, loc="left")
        axis.set_xlabel("seconds of calibration")
        axis.grid(alpha=0.25)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.margins(x=0.1)
        _plain_ticks(axis.xaxis, (1.0, 3.0))
        _plain_ticks(axis.yaxis, (1.0, 2.0, 5.0))
    panels[0].set_ylabel(LABEL)
    names = dict.fromkeys(result["preset"] for result in presets if result["bits"] in BITS)
    points = [Line2D([], [], color=_colour(name), marker="o", markersize=4, ls="") for name in names]
    figure.legend(points, names, loc="outside upper center", ncols=len(PRESETS), fontsize=7, frameon=False)
    return figure


def quality_by_bits(presets: Iterable[Json]) -> Figure:
    """A line per preset: error over bits of weights and activations."""
    figure, axis = _figure(4.2)
    for preset, by_bits in _by_preset(presets).items():
        places = [place for place, bits in enumerate(ORDER) if bits in by_bits]
        errors = [_error(by_bits[ORDER[place]]) for place in places]
        spread = [[below for _, below, _ in errors], [above for _, _, above in errors]]
        means = [mean for mean, _, _ in errors]
        axis.errorbar(places, means, spread, fmt="o-", color=_colour(preset), label=preset, markersize=4, lw=1.3)
    axis.set_xticks(range(len(ORDER)), ORDER)
    axis.set_yscale("log")
    _plain_ticks(axis.yaxis, (1.0, 2.0, 5.0))
    axis.set_ylabel(LABEL)
    axis.legend(fontsize=7, frameon=False, ncols=2)
    return figure


def error_growth(presets: Iterable[Json]) -> Figure:
    """How far the latents are from the reference's after every step, a curve per preset, and the floor."""
    figure, axis = _figure(4.2)
    lowest: list[Any] = []
    for result in presets:
        curve = result["curves"][primary(result)]
        axis.plot(range(1, len(curve) + 1), curve, color=_colour(result["preset"]), label=result["preset"], lw=1.5)
        lowest = lowest or result["floor_curves"].get(FLOOR, {}).get(primary(result), [])
    if lowest:
        axis.plot(range(1, len(lowest) + 1), lowest, "--", color="#888888", label="bfloat16 (floor)", lw=1.2)
    axis.set_yscale("log")
    _plain_ticks(axis.yaxis, (1.0, 2.0, 5.0))
    axis.set_xlabel("step")
    axis.set_ylabel("relative distance of the latents")
    axis.legend(fontsize=7, frameon=False, ncols=2)
    return figure


def ablation_bars(results: Results, ablations: Mapping[str, Json], titles: Mapping[str, str]) -> Figure:
    """A panel per group: the preset that it changes, where it is measured, and every ablation, with intervals."""
    groups = _groups(results, ablations)
    counts = [len(rows) for rows in groups.values()]
    figure = Figure(figsize=(WIDTH, sum(0.75 + 0.24 * count for count in counts)), layout="constrained")
    grid = figure.add_gridspec(len(groups), 1, height_ratios=[count + 1.5 for count in counts])
    for place, (group, rows) in enumerate(groups.items()):
        axis = figure.add_subplot(grid[place])
        for row, (name, result) in enumerate(rows.items()):
            mean, below, above = _error(result)
            colour = "#64748b" if name in results and results[name]["group"] is None else "#c2410c"
            axis.barh(row, mean, xerr=[[below], [above]], color=colour, height=0.7, error_kw={"lw": 1})
        axis.set_yticks(range(len(rows)), [_row_label(name, result) for name, result in rows.items()], fontsize=7)
        axis.invert_yaxis()
        axis.set_title(titles.get(group, group), fontsize=9, loc="left")
        axis.set_xlabel(LABEL, fontsize=7)
        axis.tick_params(axis="x", labelsize=7)
    return figure


def _groups(results: Results, ablations: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
    """The bars of every group; a preset that one of the ablations is the same as is not shown again."""
    groups: dict[str, dict[str, Json]] = {}
    for group in dict.fromkeys(result["group"] for result in ablations.values()):
        own = {name: result for name, result in ablations.items() if result["group"] == group}
        known = {result["identity"] for result in own.values()}
        presets = {
            result["preset"]: results[result["preset"]] for result in own.values() if result["preset"] in results
        }
        groups[group] = {name: preset for name, preset in presets.items() if preset["identity"] not in known} | own
    return groups


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.add_subplot()
    axis.grid(alpha=0.25)
    return figure, axis


def _plain_ticks(axis: Axis, within_decade: Sequence[float]) -> None:
    """Numbers as one writes them, at these places of every power of ten."""
    axis.set_major_locator(LogLocator(subs=within_decade))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _error(result: Json) -> tuple[float, float, float]:
    """1 - SSIM on the primary set, and how far its interval reaches below and above."""
    statistic = result["figures"][primary(result)][SSIM]
    if statistic["mean"] is None:
        return SMALLEST, 0.0, 0.0
    mean = max(1.0 - statistic["mean"], SMALLEST)
    low, high = statistic["ci95"] or (statistic["mean"], statistic["mean"])
    return mean, max(mean - max(1.0 - high, SMALLEST), 0.0), max(1.0 - low - mean, 0.0)


def _by_preset(presets: Iterable[Json]) -> dict[str, dict[str, Json]]:
    found: dict[str, dict[str, Json]] = {}
    for result in presets:
        found.setdefault(result["preset"], {})[result["bits"]] = result
    return found


def _colour(preset: str) -> str:
    return f"C{PRESETS.index(preset)}" if preset in PRESETS else "black"


def _row_label(name: str, result: Json) -> str:
    return name if result["group"] is None else f"{name} ({result['bits']})"
