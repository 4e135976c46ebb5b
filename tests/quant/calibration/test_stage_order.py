"""Stages as a plan: one order for all who tell of it, one file each, each of them run once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import quant.calibration.stages as package
from contract.places import ROOT
from contract.recipe import CalibrationRun, Recipe
from contract.stages import ORDER, StageOptions, Stages, Tdac, Tiar, kinds
from quant.calibration import calibrate as module
from quant.calibration import estimate
from quant.calibration.calibrate import calibrate
from quant.calibration.journal import Journal
from quant.calibration.run import Run
from quant.calibration.stage import stages
from quant.discovery import names
from quant.errors import NotEnoughMemory, RecipeMismatch
from quant.methods import best
from quant.sampling.request import Sampling
from tests.support.tiny_families import SIZE, build
from tests.support.toy_bench import open_toy


def test_a_key_of_recipes_is_a_file_of_options_and_a_file_of_work() -> None:
    assert set(names(package)) == set(ORDER)
    options = {path.stem for path in (ROOT / "contract" / "stages").glob("*.py")} - {"__init__", "option"}
    assert options == set(ORDER)
    assert tuple(Stages.model_fields)[: len(ORDER)] == tuple(StageOptions.model_fields) == tuple(stages()) == ORDER


def test_the_table_in_the_documents_has_the_stages_in_order_with_all_kinds() -> None:
    page = (ROOT / "docs" / "quantization.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.partition("| stage | options |")[2].splitlines()[2:]]
    table = {row[1].strip(" `"): row[2] for row in rows[: len(ORDER)]}
    assert tuple(table) == ORDER
    for stage, told in table.items():
        for kind in kinds(stage):
            assert f"`{kind}`" in told, f"{stage}: {kind}"


class _Trace:
    """Which of the stages' files are entered from outside of them, and from one another, one after the other."""

    def __init__(self) -> None:
        self._folder = str(Path(package.__file__).parent)
        self.entered: list[str] = []
        self.nested: set[tuple[str, str]] = set()

    def _stage(self, frame: FrameType) -> str | None:
        path = Path(frame.f_code.co_filename)
        return path.stem if str(path.parent) == self._folder else None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        stage = self._stage(frame) if event == "call" else None
        if stage is None:
            return
        outer = frame.f_back
        while outer is not None and self._stage(outer) is None:
            outer = outer.f_back
        if outer is not None and self._stage(outer) != stage:
            self.nested.add((str(self._stage(outer)), stage))
        if outer is None and (not self.entered or self.entered[-1] != stage):
            self.entered.append(stage)


def test_a_calibration_enters_every_stage_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work, after all stages were asked what they need."""
    few: dict[str, Any] = {"iterations": 2, "batch": 4}
    chosen = best.STAGES.model_dump() | {
        "inputs": {"kind": "all", "prompts": 2},
        "bits": {"kind": "greedy", "prompts": 1, "steps": 1},
        "time_path": {"kind": "tiar", "iterations": 2},
        "bits_over_time": {"kind": "sensitive", "prompts": 1},
        "rounding": {"kind": "brecq"} | few,
        "ranges": {"kind": "progressive", "prompts": 2},
        "fine_tuning": {"kind": "parallel", "rounds": 1, "prompts": 2, "validation_prompts": 1},
        "output_correction": {"kind": "ptqd", "prompts": 1},
        "per_step": True,
    }
    bench = open_toy(
        Stages.model_validate(chosen), prompts=2, steps=3, keep_float=("conv_in", "conv_out", "up_blocks.*")
    )
    trace, check = _Trace(), estimate.check

    def watched(asked: Any) -> estimate.Estimate:
        told = check(asked)
        sys.setprofile(trace)
        return told

    monkeypatch.setattr(module, "open_bench", lambda *_: bench)
    monkeypatch.setattr(module.estimate, "check", watched)
    try:
        calibrate(bench.pipeline, bench.recipe, bench.stages, bench.run, Journal(None), lambda *_: None)
    finally:
        sys.setprofile(None)
    assert trace.entered == list(ORDER) and not trace.nested


@pytest.mark.parametrize(
    ("model", "stages", "fault"),
    [
        ("sd3", Stages(time_path=Tiar()), "all layers of the time path are kept in floating point"),
        ("sd1", Stages(inputs=Tdac()), "2 prompts cannot cover the 3 timesteps of PNDMScheduler"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_drawn(
    model: str, stages: Stages, fault: str, tmp_path: Path
) -> None:
    few = CalibrationRun(num_prompts=2, num_inference_steps=2, guidance_scale=3.0)
    recipe = Recipe(method="minmax", keep_float=("@time",), calibration=few)
    run = Run(("a b", "c"), Sampling(num_inference_steps=2, width=SIZE, height=SIZE))
    with pytest.raises(RecipeMismatch, match=fault):
        calibrate(build(model), recipe, stages, run, Journal(tmp_path / "journal"), lambda *_: None)
    assert not list((tmp_path / "journal").iterdir())


def test_what_does_not_fit_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "available_bytes", lambda: 1)
    with pytest.raises(NotEnoughMemory, match=r"about 0\.\d GiB, 0\.0 GiB are available"):
        estimate.check(open_toy(Stages(), prompts=1, steps=2))


def test_more_work_is_estimated_longer_and_larger() -> None:
    """Of every kind of option that works through the denoiser: against the plainest of its stage."""
    plain = estimate.check(open_toy(Stages(), prompts=4, steps=4))
    for stage, option in MORE.items():
        more = estimate.check(open_toy(Stages.model_validate({stage: option, "per_step": True}), prompts=4, steps=4))
        assert more.seconds > 1.5 * plain.seconds, stage
        assert more.bytes >= plain.bytes, stage


MORE: dict[str, dict[str, Any]] = {
    "bits": {"kind": "greedy"},
    "bits_over_time": {"kind": "sensitive"},
    "rounding": {"kind": "brecq"},
    "ranges": {"kind": "progressive", "passes": 8},
    "fine_tuning": {"kind": "parallel"},
    "output_correction": {"kind": "ptqd"},
}
