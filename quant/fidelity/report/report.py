"""The report in three forms: JSON for programs, Markdown with its pictures beside it, a self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from contract.card import Statistic
from quant.fidelity.document import Document
from quant.fidelity.report.plots import LABELS, bars, trajectories
from quant.fidelity.report.worst_pair import WorstPair


@dataclass(frozen=True)
class Report:
    """What an evaluation found: its document, and the pairs of pictures that are farthest apart."""

    document: Document
    worst: list[WorstPair]


def write_report(report: Report, folder: Path) -> None:
    """Writes report.json, report.html, report.md and the pictures that the last shows to a folder, which must exist."""
    document = report.document
    sets = list(document.protocol.prompt_sets)
    plots = {name: (bars(document, name), trajectories(document, name)) for name in sets}
    rows = [_WorstRow.of(pair) for pair in report.worst]
    shared: dict[str, Any] = {"doc": document, "sets": sets, "labels": LABELS, "worst": rows}
    text = json.dumps(document.model_dump(mode="json"), indent=1, allow_nan=False)
    _write(folder / "report.json", f"{text}\n")
    _write(folder / "report.html", _render("report.html.j2", shared | {"plots": plots}, autoescape=True))
    _write(folder / "report.md", _render("report.md.j2", shared, autoescape=False))
    for name, (bar, trajectory) in plots.items():
        _write(folder / f"bars-{name}.svg", bar)
        _write(folder / f"trajectories-{name}.svg", trajectory)
    if report.worst:
        _contact_sheet(report.worst).save(folder / "worst.webp", quality=85)


@dataclass(frozen=True)
class _WorstRow:
    """A pair of pictures as the pages show it."""

    variant: str
    prompt_set: str
    prompt: str
    score: str
    pictures: list[str]

    @staticmethod
    def of(pair: WorstPair) -> _WorstRow:
        score = f"{pair.metric} {_figure(pair.score)}"
        pictures = [_data_url(picture) for picture in pair.pictures]
        return _WorstRow(pair.variant, pair.prompt_set, pair.prompt.text or "", score, pictures)


def _render(template: str, values: dict[str, Any], *, autoescape: bool) -> str:
    environment = Environment(
        loader=PackageLoader("quant.fidelity.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "statistic": _statistic, "p": _p, "megabytes": _megabytes}
    return environment.get_template(template).render(values)


def _contact_sheet(worst: list[WorstPair]) -> Image.Image:
    """A row per pair: reference, variant, difference; two pairs side by side."""
    triples = [pair.pictures for pair in worst]
    width, height = triples[0][0].size
    sheet = Image.new("RGB", (width * 6 + 8, height * -(-len(triples) // 2)), "white")
    for place, triple in enumerate(triples):
        for column, picture in enumerate(triple):
            sheet.paste(picture, ((place % 2) * (width * 3 + 8) + column * width, place // 2 * height))
    return sheet


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="webp", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    if 0.99 <= abs(value) < 1.0:
        return f"{value:.5f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}" if abs(value) < 0.001 else f"{value:.4f}"


def _statistic(statistic: Statistic | None) -> str:
    """Mean and interval; a dash where there is none, with the reason."""
    if statistic is None:
        return "–"
    if statistic.mean is None:
        return f"– ({statistic.reason})"
    interval = f" ({_figure(statistic.ci95[0])} to {_figure(statistic.ci95[1])})" if statistic.ci95 else ""
    return f"{_figure(statistic.mean)}{interval}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _megabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:.1f} MB"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
