"""The harness measures real processes in rounds, says who is missing, and splits what does not fit into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import contest, process
from benchmarks.contest import Contest, Record, Records, groups, options_of, ratio, spread
from benchmarks.shape import SHAPES, ensure_weights, parameters
from benchmarks.unet_step import measure

TINY = SHAPES["tiny"]


@pytest.fixture(autouse=True)
def weights() -> None:
    ensure_weights(TINY)


def settings(rounds: int = 2) -> Contest:
    return Contest("tiny", batch=2, rounds=rounds, threads=1, seed=0, memory=1e12, parameters=parameters(TINY))


@pytest.mark.slow
def test_contenders_run_in_rounds_and_agree_with_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PEERS", Path("nowhere"))
    result = measure(settings(), ["diffusers-fp32", "diffusers-bf16", "ours-w8a8", "openvino-int8"])
    assert list(result["median_s"]) == ["diffusers-fp32", "diffusers-bf16", "ours-w8a8"]
    assert all(len(seconds) == 2 for seconds in result["rounds_s"].values())
    assert result["relative_rms_error"]["diffusers-fp32"] == 0.0
    assert 0.0 < result["relative_rms_error"]["diffusers-bf16"] < 0.05
    assert 0.0 < result["relative_rms_error"]["ours-w8a8"] < 0.2
    assert "diffusers-bf16/ours-w8a8" in result["ratio"]
    assert "make bench-peers" in result["missing"]["openvino-int8"]


def test_a_contender_that_fails_is_missing_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "_task", lambda *_: {"contender": "diffusers-fp32", "shape": "no such shape"})
    records = contest.run(settings(1), ["diffusers-fp32"], tmp_path, lambda _: None)
    assert not records.ran
    assert "diffusers-fp32 failed at `load`" in records.missing["diffusers-fp32"]


def test_groups_share_the_first_contender() -> None:
    names = ["ours-w8a8", "diffusers-fp32", "diffusers-bf16", "openvino-bf16"]
    assert groups(names, 10**9, 1e12) == [names]
    assert groups(names, 10**9, 8e9) == [
        ["ours-w8a8", "diffusers-fp32"],
        ["ours-w8a8", "diffusers-bf16"],
        ["ours-w8a8", "openvino-bf16"],
    ]
    assert groups([], 10**9, 1.0) == []


def test_ratios_of_one_group_are_taken_within_rounds() -> None:
    ran = {"a": Record(seconds={0: [2.0, 20.0, 2.2]}), "b": Record(seconds={0: [1.0, 10.0, 1.1]})}
    assert ratio(Records(ran, groups=[["a", "b"]]), "a", "b") == pytest.approx({"median": 2.0, "q25": 2.0, "q75": 2.0})


def test_ratios_of_two_groups_go_through_the_anchor() -> None:
    ran = {
        "anchor": Record(seconds={0: [1.0], 1: [2.0]}),
        "a": Record(seconds={0: [3.0]}),
        "b": Record(seconds={1: [3.0]}),
    }
    records = Records(ran, groups=[["anchor", "a"], ["anchor", "b"]])
    assert ratio(records, "a", "b")["median"] == pytest.approx(2.0)


def test_spread_is_median_and_quartiles() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median": 3.0, "q25": 2.0, "q75": 4.0}
    assert spread([7.0]) == {"median": 7.0, "q25": 7.0, "q75": 7.0}


def test_options_go_to_the_contenders_that_their_pattern_fits() -> None:
    options = {"ours-*.dtype": "float32", "openvino-*.rebuild": True, "*.level": 1}
    assert options_of("ours-w8a8", options) == {"dtype": "float32", "level": 1}
