"""The floor that the company of other pictures makes."""

from __future__ import annotations

import math

from benchmarks.batch_floor import floor, summary
from tests.support.toy_model import PROMPTS, build_toy_pipeline, toy_sampling


def test_the_floor_is_of_the_same_prompts_and_seeds() -> None:
    pipeline, prompts = build_toy_pipeline(), list(PROMPTS[:3])
    found = floor(pipeline, prompts, 2, toy_sampling(2))
    assert len(found) == 3 and min(found) > 60.0
    assert math.isinf(floor(pipeline, prompts[:1], 1, toy_sampling(2))[0]), "alone twice is the same to the bit"


def test_a_summary_has_no_infinities() -> None:
    assert summary([math.inf, 40.0, 50.0, 45.0]) == {
        "identical": 1, "differing": 3, "db": {"least": 40.0, "median": 45.0, "largest": 50.0}
    }  # fmt: skip
    assert summary([math.inf])["db"] is None
