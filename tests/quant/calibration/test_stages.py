"""Stages as they follow each other: what one has found must reach the next, with a journal and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.stages import (
    EveryStep,
    FineGrained,
    LearnedRanges,
    ObservedRanges,
    ProgressiveRanges,
    RelaxedInputs,
    RelaxedSteps,
    RelaxedWindow,
    Stages,
)
from quant.calibration.bench import Bench
from quant.calibration.journal import Journal
from tests.support.toy_bench import apply, final_error, open_toy, run_stages

FINE = FineGrained(iterations=3, batch=4, scale_learning_rate=0.05)
CASES: dict[str, Stages] = {
    "relaxed window": Stages(
        inputs=EveryStep(prompts=2),
        ranges=ProgressiveRanges(prompts=2),
        bits_over_time=RelaxedWindow(start=0.6, end=1.0),
        per_step=True,
    ),
    "relaxed steps": Stages(
        inputs=EveryStep(prompts=2),
        ranges=ProgressiveRanges(prompts=2),
        bits_over_time=RelaxedSteps(width=0.4, prompts=2),
        per_step=True,
    ),
    "relaxed inputs": Stages(
        inputs=EveryStep(prompts=2),
        ranges=ProgressiveRanges(prompts=2),
        bits_over_time=RelaxedInputs(share=0.2, prompts=2),
        per_step=True,
    ),
    "learned with the rounding": Stages(inputs=EveryStep(prompts=2), rounding=FINE),
    "observed after the rounding": Stages(
        inputs=EveryStep(prompts=2),
        rounding=FineGrained(iterations=3, batch=4, learn_ranges=False),
        ranges=ObservedRanges(kind="mse", observed="quantized_weights"),
    ),
    "learned": Stages(inputs=EveryStep(prompts=2), ranges=LearnedRanges(iterations=3, batch=4)),
    "states of the quantized model": Stages(inputs=EveryStep(prompts=2, trajectory="quantized")),
}
FEW: dict[str, Any] = {
    "prompts": 2,
    "steps": 4,
    "keep_float": ("conv_in", "conv_out", "time_embedding.*", "*_blocks.*"),
}


def _finished(stages: Stages, journal: Path | None) -> Bench:
    bench = open_toy(stages, **FEW)
    run_stages(replace(bench, journal=Journal(journal)), "ranges")
    return bench


def _state(bench: Bench) -> dict[str, Tensor]:
    return bench.student.parameters_of(list(bench.student.layers))


@pytest.mark.parametrize("name", list(CASES))
def test_a_journal_changes_nothing(name: str, tmp_path: Path) -> None:
    """Neither when the pieces are written nor when they are read."""
    wanted = _state(_finished(CASES[name], None))
    for _ in range(2):
        found = _state(_finished(CASES[name], tmp_path / "journal"))
        assert found.keys() == wanted.keys()
        different = [key for key in wanted if not torch.equal(found[key], wanted[key])]
        assert not different


def test_ranges_that_were_learned_with_the_rounding_stay() -> None:
    bench = open_toy(CASES["learned with the rounding"], **FEW)
    drawn = run_stages(bench, "rounding")
    learned = {name: tensor.clone() for name, tensor in bench.student.ranges.items()}
    apply("ranges", bench, drawn)
    after = bench.student.ranges
    assert all(torch.equal(learned[name], after[name]) for name in learned)
    assert all(quantizer.enabled for quantizer in bench.student.quantizers.values())


def test_inputs_may_be_the_states_of_the_quantized_model() -> None:
    drawn = {}
    for trajectory in ("reference", "quantized"):
        option: Any = EveryStep(prompts=2, trajectory=trajectory)
        bench = open_toy(Stages(inputs=option), **FEW)
        drawn[trajectory] = run_stages(bench, "ranges").trajectories.latents
    assert torch.equal(drawn["reference"][:, 0], drawn["quantized"][:, 0])
    assert not torch.equal(drawn["reference"][:, -1], drawn["quantized"][:, -1])


def test_learned_ranges_lose_less_than_those_of_the_largest_values() -> None:
    """Held-out pictures."""
    errors = []
    for option in (ObservedRanges(), LearnedRanges(iterations=15, batch=16)):
        stages = Stages(inputs=EveryStep(prompts=4), ranges=option)
        bench = open_toy(stages, weight_bits=8, activation_bits=3, prompts=4, keep_float=FEW["keep_float"])
        run_stages(bench, "ranges")
        errors.append(final_error(bench))
    assert errors[1] < 0.95 * errors[0]
