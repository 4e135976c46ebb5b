"""What the documents say of the shipped report, held against its JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from contract.card import Card
from contract.places import ROOT

FOLDER = ROOT / "docs/reports/shapes-sd"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def report() -> Json:
    document: Json = json.loads((FOLDER / "report.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("w8a8-minmax", "w6a6-minmax"),
        ("w8a8-minmax", "w4a8-minmax"),
        ("w6a6-minmax", "w4a6-minmax"),
        ("w4a8-minmax", "w4a6-minmax"),
    ],
)
@pytest.mark.parametrize("prompt_set", ["shapes-plain", "shapes-ornate"])
def test_more_bits_are_better_on_ssim(report: Json, better: str, worse: str, prompt_set: str) -> None:
    tests = [t for t in report["comparisons"] if (t["prompt_set"], t["metric"]) == (prompt_set, "ssim")]
    found = next(t for t in tests if {t["a"], t["b"]} == {better, worse})
    assert found["a"] == better and found["p"] < 0.01 and found["difference"]["ci95"][0] > 0.0


def test_the_figures_in_the_readme_are_those_of_the_report(report: Json) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(w\da\d-minmax)` \|(.*)\|$", text, flags=re.MULTILINE))
    assert set(rows) == set(report["variants"])
    for name, row in rows.items():
        figures = report["variants"][name]["shapes-plain"]
        shown = [float(number) for number in re.findall(r"\d+\.\d+", row)]
        (low, high), ssim = figures["psnr"]["ci95"], figures["ssim"]["mean"]
        expected = [figures["psnr"]["mean"], low, high, ssim, figures["frechet"]["mean"]]
        assert shown[:5] == pytest.approx(expected, abs=0.051) and shown[3] == pytest.approx(ssim, abs=0.00006)


def test_the_report_is_of_the_shipped_checkpoints(report: Json) -> None:
    for path in (ROOT / "models/variants/shapes-sd").glob("*/card.json"):
        card = Card.model_validate_json(path.read_bytes())
        assert report["variants"][card.variant]["card"]["digest"] == card.digest


def test_the_page_shows_pictures_that_are_there() -> None:
    for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (FOLDER / "report.md").read_text(encoding="utf-8")):
        assert (FOLDER / figure).is_file()
