"""The document's models: they hold what stored documents hold, and write it down key for key and digit for digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract.card import Statistic
from contract.places import ROOT
from quant.fidelity.document import Document, Failure, ReportCard, Variant
from quant.fidelity.statistics import Spread
from tests.support.documents import small_json

SHIPPED = ROOT / "docs/reports/shapes-sd/report.json"
RESULTS = sorted((ROOT / "benchmarks/results/methods").glob("*.json"))
DIGESTS = {"one": "1" * 64, "two": "2" * 64}


def _dumped(document: Document | ReportCard) -> str:
    return json.dumps(document.model_dump(mode="json"), indent=1, allow_nan=False)


def test_the_shipped_report_reads_and_is_written_as_it_was() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert f"{_dumped(Document.model_validate_json(text))}\n" == text


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_stored_report_cards_read_and_are_written_as_they_were(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))["card"]
    assert _dumped(ReportCard.model_validate(stored)) == json.dumps(stored, indent=1)


def test_what_is_written_is_what_was_read() -> None:
    values = small_json(DIGESTS)
    document = Document.model_validate(values)
    assert _dumped(document) == json.dumps(values, indent=1)
    assert json.loads(document.model_dump_json()) == values
    assert Document.model_validate(document.model_dump(mode="json")) == document


def test_each_figure_keeps_its_kind() -> None:
    document = Document.model_validate(small_json(DIGESTS))
    one, two = document.variants["one"], document.variants["two"]
    assert isinstance(one, Variant) and isinstance(two, Failure)
    assert type(one.prompt_sets["plain"]["psnr"]) is Spread and type(one.prompt_sets["plain"]["frechet"]) is Statistic
    assert one.generalization.gaps.keys() == {"ornate"} and one.worst[0].scores == {"ssim": 0.5}
    assert document.measured == {"one": one} and document.failures == {"two": "its files are damaged"}
    assert document.floors["bfloat16"].primary == document.floors["bfloat16"].prompt_sets["plain"]
    assert document.floors["finite_sample"].curves == {}


def _changed(*place: str, value: Any) -> dict[str, Any]:
    values = small_json(DIGESTS)
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return values


@pytest.mark.parametrize(
    "values",
    [
        _changed("format", value=2),
        _changed("protocol", "speed", value=1.0),
        _changed("variants", "one", "note", value="x"),
        _changed("reference", "plain", value={"psnr": {"mean": 1.0, "count": 1, "std": 0.5}}),
        _changed("comparisons", value=[{"a": "one"}]),
        _changed("times", "seconds", value=None),
    ],
)
def test_what_it_does_not_know_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Document.model_validate(values)


def test_it_does_not_change() -> None:
    document = Document.model_validate(small_json(DIGESTS))
    with pytest.raises(ValidationError):
        document.model = "other"  # type: ignore[misc]
