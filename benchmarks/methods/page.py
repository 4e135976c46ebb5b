"""The tables of docs/results.md and docs/results/notes.md, between their markers; the text around them is written by
hand.

A marker is `<!-- <name> -->`, and its section ends with `<!-- /<name> -->`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.methods.arms import BITS
from benchmarks.methods.claims import FLOOR, Claim, claims
from benchmarks.methods.evidence import (
    FRECHET,
    SSIM,
    NotMeasured,
    difference_json,
    drawn_otherwise,
    error,
    paired,
    primary,
    processor,
    typical,
)
from benchmarks.methods.results import Json, Standing, current
from benchmarks.methods.table import COLUMNS, FLOORS, cell, columns, sets_of, table
from benchmarks.shape import ROOT

PAGE = ROOT / "docs" / "results.md"
NOTES = ROOT / "docs" / "results" / "notes.md"
PAGES = (PAGE, NOTES)
"""The answer, and the laboratory book. Each has the markers of the sections that it shows."""
PICTURES = ROOT / "docs" / "results"
EMPTY = "_Not measured yet._"
IMAGES = {
    "quality-seconds": "Error against seconds of calibration",
    "quality-bits": "Error against bits",
    "error-growth": "Distance of the latents after every step, W4A8",
    "ablation-bars": "1 - SSIM of the ablations",
}


def fill(standing: Mapping[str, Standing], titles: Mapping[str, str]) -> None:
    """Writes every page with its sections made anew."""
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8"), standing, titles, at=path), encoding="utf-8")


def page(
    text: str,
    standing: Mapping[str, Standing],
    titles: Mapping[str, str],
    pictures: Path = PICTURES,
    at: Path = PAGE,
) -> str:
    """A page with every section that it has a marker for made anew; `titles` are those of the groups of ablations, `at`
    is where the page lies."""
    sections = {
        "where": _where(standing),
        "summary": _summary(current(standing)),
        "table": _tables(standing),
        "generalization": _generalization(standing),
        "claims": _claims(claims(current(standing))),
        "ablations": _ablations(standing, titles),
        **{name: _image(name, alt, pictures, at) for name, alt in IMAGES.items()},
    }
    for name, body in sections.items():
        pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)"
        text = re.sub(pattern, lambda m, body=body: f"{m[1]}\n{body}\n\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def _where(standing: Mapping[str, Standing]) -> str:
    """On what machine, with what versions and settings."""
    results = list(current(standing).values())
    if not results:
        return EMPTY
    machines = "; ".join(f"{mark} {name}" for name, mark in _processors(results).items())
    versions = sorted({f"{name} {version}" for r in results for name, version in r["versions"].items()})
    dates = sorted({r["date"] for r in results})
    codes = len({r["code"]["calibrating"] for r in results})
    code = "one version" if codes == 1 else f"{codes} versions"
    protocol = results[0]["protocol"]
    sets = ", ".join(f"`{name}`" for name in protocol["prompt_sets"])
    return (
        f"_{len(results)} arms on {protocol['limit']} test prompts each of {sets}, seed {protocol['seed']}; "
        f"{machines}; {', '.join(versions)}; {code} of the calibrating code; "
        f"{dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''}._"
    )


def _processors(results: Iterable[Json]) -> dict[str, str]:
    """The processors of results, each with the mark that seconds on it have."""
    return {name: f"({place})" for place, name in enumerate(sorted(set(map(processor, results))), 1)}


def _summary(results: Mapping[str, Json]) -> str:
    """A row for every preset at the bits that all presets have, the nearest typical picture first, and the floor."""
    presets = [result for result in results.values() if result["group"] is None]
    marks = _processors(results.values())
    rows = [
        [result["bits"].upper(), *_brief(result), f"{result['calibration']['seconds']:.0f} {marks[processor(result)]}"]
        for bits in sorted(BITS, key=("w4a8", "w4a6", "w8a8").index)
        for result in sorted((each for each in presets if each["bits"] == bits), key=_rank)
    ]
    floor: Json = next((found for each in presets if (found := each["floors"].get(FLOOR))), {})
    for figures in [floor[name] for name in list(floor)[:1]]:
        rows.append(["", "_bfloat16_", _error(1.0 - figures[SSIM]["mean"]), "", "", *_psnr_and_distance(figures), ""])
    head = ("", "preset", "1 - SSIM", "typical picture", "drawn otherwise", "PSNR, dB", "Fréchet, judge", "seconds")
    return _table(head, rows) if rows else EMPTY


def _rank(result: Json) -> float:
    try:
        return typical(result, primary(result))
    except NotMeasured:
        return math.inf


def _brief(result: Json) -> list[str]:
    name, rank = primary(result), _rank(result)
    measured = math.isfinite(rank)
    return [
        f"`{result['arm']}`",
        _error(error(result, SSIM, name)),
        _error(rank) if measured else "–",
        str(drawn_otherwise(result, name)) if measured else "–",
        *_psnr_and_distance(result["figures"][name]),
    ]


def _psnr_and_distance(figures: Json) -> list[str]:
    means = [(figures.get(metric) or {}).get("mean") for metric in ("psnr", FRECHET)]
    return ["–" if mean is None else f"{mean:.{digits}f}" for mean, digits in zip(means, (1, 2), strict=True)]


def _error(value: float) -> str:
    """Three digits, as a decimal fraction."""
    return f"{value:.{2 - math.floor(math.log10(value))}f}" if value > 0.0 else "0"


def _tables(standing: Mapping[str, Standing]) -> str:
    presets = {name: each for name, each in standing.items() if each.arm.group is None}
    document, marks = table(presets), _processors(current(standing).values())
    parts = []
    for prompt_set in sets_of(document):
        metrics = columns(document, prompt_set)
        rows = [
            [
                _name(name, row),
                *(cell(row[prompt_set].get(metric)) for metric in metrics),
                f"{row['seconds']:.0f} {marks.get(row['processor'], '')}".rstrip(),
                f"{(row['peak_bytes'] or 0) / 1e9:.2f}",
                f"{row['bytes'] / 1e6:.1f}",
            ]
            for name, row in document.items()
            if name != FLOORS and prompt_set in row
        ]
        rows += [
            [f"_{name}_", *(cell(floor[prompt_set].get(metric)) for metric in metrics), "", "", ""]
            for name, floor in document.get(FLOORS, {}).items()
            if prompt_set in floor
        ]
        head = ("arm", *metrics, "calibration, s", "peak, GB", "denoiser, MB")
        parts.append(f"### {prompt_set}\n\n{_table(head, rows)}")
    return "\n\n".join(parts) or EMPTY


def _generalization(standing: Mapping[str, Standing]) -> str:
    document = table({name: each for name, each in standing.items() if each.arm.group is None})
    gaps = {n: row["generalization"] for n, row in document.items() if n != FLOORS and row["generalization"]}
    parts = []
    for away in dict.fromkeys(away for gap in gaps.values() for away in gap):
        metrics = [metric for metric in COLUMNS if any(metric in gap.get(away, {}) for gap in gaps.values())]
        rows = [[f"`{name}`", *(cell(gap[away].get(m)) for m in metrics)] for name, gap in gaps.items() if away in gap]
        parts.append(f"### On {away}\n\n{_table(('arm', *metrics), rows)}")
    return "\n\n".join(parts) or EMPTY


def _claims(found: list[Claim]) -> str:
    rows = [[claim.sentence, f"**{claim.verdict}**", claim.evidence] for claim in found]
    return _table(("claim", "verdict", "evidence"), rows)


def _ablations(standing: Mapping[str, Standing], titles: Mapping[str, str]) -> str:
    results, parts = current(standing), []
    marks = _processors(results.values())
    for group, title in titles.items():
        names = [name for name, each in standing.items() if each.arm.group == group and name in results]
        rows = [_ablation(name, standing[name].arm.preset, results, marks) for name in names]
        head = ("arm", "bits", "ssim", "frechet:judge", "calibration, s", "changes", "SSIM gained over it, paired")
        if rows:
            parts.append(f"### {title}\n\n{_table(head, rows)}")
    return "\n\n".join(parts) or EMPTY


def _ablation(name: str, preset: str, results: Mapping[str, Json], marks: Mapping[str, str]) -> list[str]:
    result = results[name]
    figures = result["figures"][primary(result)]
    cells = [cell(figures.get(metric)) for metric in (SSIM, "frechet:judge")]
    seconds = f"{result['calibration']['seconds']:.0f} {marks[processor(result)]}"
    return [f"`{name}`", result["bits"], *cells, seconds, f"`{preset}`", _gain(result, results.get(preset))]


def _gain(result: Json, base: Json | None) -> str:
    if base is None:
        return ""
    if base["identity"] == result["identity"]:
        return "the same"
    try:
        found = difference_json(paired(result, base, SSIM, primary(result)))
    except NotMeasured:
        return ""
    p = "–" if found["p"] is None else f"{found['p']:.2g}"
    return f"{cell({'mean': found['better_by'], 'ci95': found['ci95']})}, p {p}"


def _image(name: str, alt: str, pictures: Path, at: Path) -> str:
    path = pictures / f"{name}.svg"
    return f"![{alt}]({Path(os.path.relpath(path, at.parent)).as_posix()})" if path.is_file() else EMPTY


def _name(name: str, row: Json) -> str:
    return f"`{name}`" if row["state"] == "finished" else f"`{name}` ({row['state']})"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
