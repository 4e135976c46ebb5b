"""What the pages say of stored results, held against these."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.methods import plots
from benchmarks.methods.ablation import read_ablations
from benchmarks.methods.arms import all_arms
from benchmarks.methods.page import PAGES, PICTURES, page
from benchmarks.methods.results import current, standings
from benchmarks.methods.task import Places, Protocol
from tests.support.study import resolution


def test_the_page_of_performance_is_what_the_results_say() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    assert report.page(text) == text, "run `python -m benchmarks.report`"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_shipped_pages_are_what_the_results_say(path: Path) -> None:
    ablations, places = read_ablations(), Places()
    standing = standings(all_arms(places.recipes, ablations, resolution()), places.results, Protocol())
    text = path.read_text(encoding="utf-8")
    assert page(text, standing, ablations.groups, at=path) == text, "run `python -m benchmarks.methods --plots`"


def test_the_shipped_pictures_are_what_the_results_say(tmp_path: Path) -> None:
    ablations, places = read_ablations(), Places()
    results = current(standings(all_arms(places.recipes, ablations, resolution()), places.results, Protocol()))
    for name in plots.draw(results, ablations.groups, tmp_path):
        assert (PICTURES / name).read_text() == (tmp_path / name).read_text(), (
            "run `python -m benchmarks.methods --plots`"
        )
