"""Activation bits over the steps, and the output's correction, on the toy model."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from contract.stages import (
    EveryStep,
    ProgressiveRanges,
    Ptqd,
    RelaxedInputs,
    RelaxedSteps,
    RelaxedWindow,
    SameBits,
    Stages,
    WeightScales,
)
from quant.calibration.bench import Bench
from quant.calibration.input_sensitivity import input_sensitivities
from quant.calibration.stages import bits_over_time
from quant.calibration.trajectories import Drawn, record
from quant.quantizers.activation import FLOAT_BITS
from tests.support.toy_bench import apply, calibrated, final_error, final_latents, open_toy, run_stages

STEPS, PROMPTS = 10, 4


RECIPE = {"steps": STEPS, "prompts": PROMPTS, "activation_bits": 4}


def _stages(option: Any) -> Stages:
    return Stages(
        inputs=EveryStep(prompts=PROMPTS),
        weight_scales=WeightScales(kind="mse"),
        ranges=ProgressiveRanges(prompts=PROMPTS),
        bits_over_time=option,
        per_step=True,
    )


@cache
def _bench(option: Any, until: str = "ranges") -> Bench:
    """Not to be changed: tests share it."""
    return calibrated(_stages(option), until, **RECIPE)[0]


@torch.no_grad()
def _errors_by_step(bench: Bench) -> torch.Tensor:
    """Relative squared error of the student's output at every step of the reference's held-out trajectories."""
    walks = bench.walks(64, first=1000, batch=64)
    reference, student = map(bench.denoise, (bench.reference, bench.student.denoiser))
    errors = []

    def step(*rows: torch.Tensor) -> torch.Tensor:
        wanted = reference(*rows)
        errors.append((student(*rows) - wanted).pow(2).sum() / wanted.pow(2).sum())
        return wanted

    record(walks, step, lambda *_: None)
    return torch.stack(errors)


@pytest.mark.parametrize(
    ("start", "end", "relaxed"), [(0.0, 0.3, [0, 1, 2, 3]), (0.5, 0.6, [5, 6]), (0.8, 1.0, [8, 9]), (0.95, 1.0, [9])]
)
def test_exactly_the_steps_of_the_window_have_more_bits(start: float, end: float, relaxed: list[int]) -> None:
    bench = _bench(RelaxedWindow(start=start, end=end, bits=8), until="bits_over_time")
    for quantizer in bench.student.quantizers.values():
        rows = [int(quantizer.bits[bench.groups.nearest(t)]) for t in bench.timesteps]
        assert rows == [8 if step in relaxed else 4 for step in range(STEPS)]


def test_the_average_of_bits_over_the_steps() -> None:
    window = bits_over_time.window(50, 0.8, 1.0)
    assert _average_bits(8, 10, 50, len(window)) == pytest.approx(8.4)
    bench = _bench(RelaxedWindow(start=0.8, end=1.0, bits=8), until="bits_over_time")
    mean = next(iter(bench.student.quantizers.values())).bits.float().mean().item()
    assert mean == pytest.approx(_average_bits(4, 8, STEPS, 2)) == pytest.approx(4.8)


def _average_bits(base: int, relaxed: int, steps: int, relaxed_steps: int) -> float:
    """The mean over the steps, as PCR (arXiv 2311.06322) counts it."""
    return (base * (steps - relaxed_steps) + relaxed * relaxed_steps) / steps


def test_all_steps_in_floating_point_are_weight_only_quantization() -> None:
    bench = _bench(RelaxedWindow(start=0.0, end=1.0, bits=16))
    relaxed = final_latents(bench, student=True)
    with bench.student.float_inputs():
        assert torch.equal(relaxed, final_latents(bench, student=True))
    assert not torch.equal(relaxed, final_latents(bench, student=False))


def test_a_window_without_more_bits_changes_nothing() -> None:
    same, equal = _bench(SameBits()), _bench(RelaxedWindow(start=0.3, end=0.8, bits=4))
    one, other = same.student.ranges, equal.student.ranges
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_errors_fall_at_the_relaxed_steps_and_nowhere_else_rise() -> None:
    """Held-out pictures, 64 of them."""
    same = _errors_by_step(_bench(SameBits()))
    relaxed = _errors_by_step(_bench(RelaxedWindow(start=0.5, end=0.7, bits=8)))
    window = [5, 6, 7]
    others = [step for step in range(STEPS) if step not in window]
    assert bool((relaxed[window] < 0.7 * same[window]).all())
    assert torch.allclose(relaxed[others], same[others], rtol=0.15)
    assert torch.equal(relaxed[:5], same[:5])


def test_automatic_relaxing_finds_the_window_that_helps_most() -> None:
    notes: list[str] = []
    bench = open_toy(_stages(RelaxedSteps(width=0.3, bits=16, prompts=PROMPTS)), **RECIPE)
    listening = lambda stage, done, total, note="": notes.append(note) if "windows" in stage else None  # noqa: E731
    drawn = run_stages(replace(bench, progress=listening), "bits_over_time")
    errors = [float(note.rpartition(" ")[2]) for note in notes]
    best = errors.index(min(errors))
    chosen = list(range(3 * best, min(3 * best + 3, STEPS)))
    for quantizer in bench.student.quantizers.values():
        assert [int(b) for b in quantizer.bits] == [16 if step in chosen else 4 for step in range(STEPS)]
    assert len(notes) == 4 and not any(quantizer.enabled for quantizer in bench.student.quantizers.values())
    apply("ranges", bench, drawn)
    assert final_error(bench) < final_error(_bench(SameBits()))


def _raised(bench: Bench) -> set[tuple[str, int]]:
    """The (input, step) pairs with more bits than the recipe has."""
    bits = {name: quantizer.bits.tolist() for name, quantizer in bench.student.quantizers.items()}
    return {(name, step) for name, own in bits.items() for step in range(STEPS) if own[step] != 4}


def test_the_share_of_inputs_is_relaxed_and_no_other() -> None:
    bench = _bench(RelaxedInputs(share=0.05, bits=8, prompts=2), until="bits_over_time")
    assert len(_raised(bench)) == round(0.05 * len(bench.student.quantizers) * STEPS)
    assert {int(b) for quantizer in bench.student.quantizers.values() for b in quantizer.bits} == {4, 8}


def test_the_input_that_spoils_the_picture_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One input at one step is given a step size that nothing is left of."""
    observe = bits_over_time.observe_reference
    name = "up_blocks.1.resnets.1.conv_shortcut"

    def spoiled(bench: Bench, drawn: Drawn, stage: str) -> None:
        observe(bench, drawn, stage)
        bench.student.quantizers[name].scale[3] *= 100.0

    monkeypatch.setattr(bits_over_time, "observe_reference", spoiled)
    stages = _stages(RelaxedInputs(share=1e-6, prompts=2))
    bench, _ = calibrated(stages, "bits_over_time", **RECIPE | {"activation_bits": 8})
    raised = {
        (n, s) for n, q in bench.student.quantizers.items() for s, bits in enumerate(q.bits.tolist()) if bits != 8
    }
    assert raised == {(name, 3)}


def _float_weights() -> tuple[Bench, Drawn]:
    """Not shared, with ranges of 8 bits, so that errors are small."""
    bench, drawn = calibrated(_stages(SameBits()), "ranges", **RECIPE | {"activation_bits": 8})
    bench.student.quantize_weights(False)
    return bench, drawn


def _quantize_only(bench: Bench, names: list[str], steps: list[int]) -> None:
    for name, quantizer in bench.student.quantizers.items():
        quantizer.bits.fill_(FLOAT_BITS)
        if name in names:
            quantizer.bits[steps] = 8


@torch.no_grad()
def test_inputs_share_a_steps_cost_as_the_output_errors_that_each_makes_alone() -> None:
    (bench, drawn), step = _float_weights(), 6
    found = input_sensitivities(bench, drawn, PROMPTS)[:, step]
    states = drawn.trajectories.pick(tuple((i, step) for i in range(PROMPTS)))
    wanted, alone = bench.guided(bench.reference, states), []
    for name in bench.student.quantizers:
        _quantize_only(bench, [name], [step])
        alone.append(float((bench.guided(bench.student.denoiser, states) - wanted).square().sum()))
    shares, truth = found / found.sum(), torch.tensor(alone, dtype=torch.float64) / sum(alone)
    assert float((shares - truth).abs().sum()) < 0.5
    assert float(torch.corrcoef(torch.stack([shares.log(), truth.log()]))[0, 1]) > 0.95


def test_a_step_costs_what_quantizing_it_alone_does() -> None:
    bench, drawn = _float_weights()
    found = input_sensitivities(bench, drawn, PROMPTS).sum(dim=0)
    for step in (0, 6, STEPS - 1):
        _quantize_only(bench, list(bench.student.quantizers), [step])
        truth, own = (final_latents(bench, student=s, count=PROMPTS, first=0).flatten(1) for s in (False, True))
        errors = (own - truth).square().sum(dim=1) / truth.square().sum(dim=1)
        assert float(found[step]) == pytest.approx(float(errors.log().mean().exp()), rel=0.02)


@pytest.mark.slow
def test_relaxed_inputs_help_more_than_the_best_step_of_the_same_cost() -> None:
    step = _bench(RelaxedSteps(width=1.0 / STEPS, bits=16, prompts=PROMPTS))
    inputs = _bench(RelaxedInputs(share=1.0 / STEPS, prompts=PROMPTS))
    assert len(_raised(inputs)) == len(_raised(step))
    assert final_error(inputs) < final_error(step) < final_error(_bench(SameBits()))


@torch.no_grad()
def test_the_correction_lowers_the_error_at_the_calibration_states() -> None:
    stages = Stages(
        inputs=EveryStep(prompts=8), weight_scales=WeightScales(kind="mse"), output_correction=Ptqd(prompts=8)
    )
    bench, _ = calibrated(stages, prompts=8, steps=5, activation_bits=4, weight_bits=3)
    correction = bench.student.correction
    assert correction is not None and len(correction.slope) == 5
    student, reference = (bench.denoise(one) for one in (bench.student.denoiser, bench.reference))
    for walk in bench.walks(8):
        while not walk.done:
            rows = walk.state.rows
            output, wanted = student(*rows), reference(*rows)
            corrected = correction(output, rows[1])
            assert (corrected - wanted).pow(2).mean() < (output - wanted).pow(2).mean()
            walk.advance(corrected)
