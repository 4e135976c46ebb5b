"""The tables of docs/results.md, between its markers; the text around them is written by hand.

A marker is `<!-- <name> -->`, and its section ends with `<!-- /<name> -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.methods.claims import Claim, claims
from benchmarks.methods.evidence import SSIM, NotMeasured, difference_json, paired, primary, processor
from benchmarks.methods.results import Json, Standing, current
from benchmarks.methods.table import COLUMNS, FLOORS, cell, columns, sets_of, table
from benchmarks.shape import ROOT

PAGE = ROOT / "docs" / "results.md"
PICTURES = ROOT / "docs" / "results"
EMPTY = "_Not measured yet._"
IMAGES = {
    "quality-seconds": "Error against seconds of calibration",
    "quality-bits": "Error against bits",
    "error-growth": "Distance of the latents after every step, W4A8",
    "ablation-bars": "1 - SSIM of the ablations",
}


def page(text: str, standing: Mapping[str, Standing], titles: Mapping[str, str], pictures: Path = PICTURES) -> str:
    """The page with every section made anew; `titles` are those of the groups of ablations."""
    sections = {
        "where": _where(standing),
        "table": _tables(standing),
        "generalization": _generalization(standing),
        "claims": _claims(claims(current(standing))),
        "ablations": _ablations(standing, titles),
        **{name: _image(name, alt, pictures) for name, alt in IMAGES.items()},
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


def _image(name: str, alt: str, pictures: Path) -> str:
    return f"![{alt}](results/{name}.svg)" if (pictures / f"{name}.svg").is_file() else EMPTY


def _name(name: str, row: Json) -> str:
    return f"`{name}`" if row["state"] == "finished" else f"`{name}` ({row['state']})"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
