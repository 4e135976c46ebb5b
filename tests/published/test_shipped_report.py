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


def test_the_figures_in_the_documents_are_those_of_the_report(report: Json) -> None:
    text = (ROOT / "docs/quantization.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(w\da\d-minmax)` \|(.*)\|$", text, flags=re.MULTILINE))
    assert set(rows) == set(report["variants"])
    for name, row in rows.items():
        figures = report["variants"][name]["shapes-plain"]
        shown = [float(number) for number in re.findall(r"\d+\.\d+", row)]
        (low, high), ssim = figures["psnr"]["ci95"], figures["ssim"]["mean"]
        expected = [figures["psnr"]["mean"], low, high, ssim, figures["frechet"]["mean"]]
        assert shown[:5] == pytest.approx(expected, abs=0.051) and shown[3] == pytest.approx(ssim, abs=0.00006)


@pytest.mark.parametrize(
    ("label", "arm", "floor"),
    [
        ("`best`, the best method", "best-w4a8", None),
        ("`minmax`, the baseline", "minmax-w4a8", None),
        ("*floor: bfloat16 rounding*", "best-w4a8", "bfloat16"),
        ("*floor: other noise*", "best-w4a8", "other_seeds"),
    ],
)
def test_the_table_in_the_readme_is_what_the_study_measured(label: str, arm: str, floor: str | None) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {re.escape(label)} \|(.*)\|$", text, flags=re.MULTILINE)
    shown = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", row)]
    result: Json = json.loads((ROOT / f"benchmarks/results/methods/{arm}.json").read_text(encoding="utf-8"))
    figures = result["floors"][floor]["shapes-plain"] if floor else result["figures"]["shapes-plain"]
    psnr, distance = figures["psnr"], figures["frechet:judge"]["mean"]
    assert shown[:3] == pytest.approx([psnr["mean"], *psnr["ci95"]], abs=0.051)
    assert shown[3] == pytest.approx(1.0 - figures["ssim"]["mean"], rel=0.06, abs=0.00005)
    assert shown[4] == pytest.approx(distance, abs=0.051)
    assert shown[5] == pytest.approx(100.0 * figures["prompt_accuracy"]["mean"], abs=0.051)
    if not floor:
        assert shown[6] == pytest.approx(result["calibration"]["seconds"], abs=0.51)


def test_the_report_is_of_the_shipped_checkpoints(report: Json) -> None:
    for path in (ROOT / "models/variants/shapes-sd").glob("*/card.json"):
        card = Card.model_validate_json(path.read_bytes())
        assert report["variants"][card.variant]["card"]["digest"] == card.digest


def test_the_page_shows_pictures_that_are_there() -> None:
    for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (FOLDER / "report.md").read_text(encoding="utf-8")):
        assert (FOLDER / figure).is_file()
