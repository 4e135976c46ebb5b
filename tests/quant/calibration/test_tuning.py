"""Fine-tuning as a whole: what is collected, what is minimized, what is frozen, and whether it helps."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.stages import EveryStep, FineTuning, ProgressiveRanges, Stages, WeightScales
from quant.calibration.arithmetic import autocast
from quant.calibration.bench import Bench
from quant.calibration.trajectories import Drawn, Samples
from quant.calibration.tuning.collection import Lessons, collect
from quant.calibration.tuning.features import Features, feature_errors, mean_error, stages_of
from quant.calibration.tuning.freezing import OscillationFreezing, PlateauFreezing
from quant.calibration.tuning.trainer import Trainer
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.sampling.walk import Walk
from tests.support.toy_bench import apply, calibrated, final_error

PROMPTS, STEPS, BATCH = 16, 6, 16
RATES = {"weight_learning_rate": 3e-3, "weight_scale_learning_rate": 3e-4, "activation_learning_rate": 6e-4}


def _options(kind: str, **changed: Any) -> FineTuning:
    given = {"rounds": 4, "prompts": PROMPTS, "batch": BATCH, "validation_prompts": 16, **RATES, **changed}
    return FineTuning(kind=kind, **given)


def _bench(options: FineTuning, seed: int = 0) -> Bench:
    """Calibrated, and not yet tuned."""
    return _calibrated(options, seed)[0]


def _calibrated(options: FineTuning, seed: int = 0, **recipe: Any) -> tuple[Bench, Drawn]:
    stages = Stages(
        inputs=EveryStep(prompts=8),
        weight_scales=WeightScales(kind="mse"),
        ranges=ProgressiveRanges(prompts=8),
        per_step=True,
        fine_tuning=options,
    )
    recipe = {"weight_bits": 3, "activation_bits": 6} | recipe
    return calibrated(stages, "ranges", prompts=PROMPTS, steps=STEPS, seed=seed, **recipe)


def _lessons(bench: Bench, options: FineTuning, number: int = 0) -> Lessons:
    walks = bench.walks(options.prompts, first=number * options.prompts)
    return collect(bench, walks, options, lambda *_: None)


def _loss(trainer: Trainer, lessons: Lessons) -> float:
    """The mean loss over all states."""
    with torch.no_grad():
        parts = [trainer.loss(*lessons.batch(index)).item() for index in torch.arange(len(lessons)).split(BATCH)]
    return sum(parts) / len(parts)


def _round(trainer: Trainer, lessons: Lessons, seed: int) -> list[float]:
    order = torch.randperm(len(lessons), generator=torch.Generator().manual_seed(seed))
    return [trainer.update(trainer.loss(*lessons.batch(index))) for index in order.split(BATCH)]


@torch.no_grad()
def test_states_are_those_of_a_fresh_run_of_the_quantized_sampler_and_targets_the_teachers_there() -> None:
    options = _options("serial_to_parallel", prompts=4)
    bench = _bench(options)
    lessons, trainer = _lessons(bench, options), Trainer(bench, options, 10, frozenset())
    (walk,) = bench.walks(4)
    for step in range(STEPS):
        assert torch.equal(walk.state.latents, lessons.trajectories.latents[:, step])
        with autocast():
            output = bench.call(bench.student.denoiser, _rows(walk)).float()
            wanted = bench.call(bench.reference, _rows(walk)).float()
        samples, targets = lessons.batch(torch.tensor([STEPS + step]))
        assert torch.equal(samples.latents[1], walk.state.latents[1]) and targets is None
        difference = torch.stack([output[1] - wanted[1], output[5] - wanted[5]])
        assert trainer.loss(samples).item() == pytest.approx(difference.pow(2).mean().item(), rel=1e-4)
        walk.advance(output)


def _rows(walk: Walk) -> Samples:
    return Samples(*walk.state.rows)


@torch.no_grad()
def test_targets_may_be_those_of_the_references_trajectory() -> None:
    options = _options("serial_to_parallel", prompts=4, target="reference_trajectory")
    bench = _bench(options)
    lessons = _lessons(bench, options)
    (walk,) = bench.walks(4)
    for step in range(STEPS):
        with autocast():
            output = bench.call(bench.reference, _rows(walk)).float()
        assert lessons.targets is not None
        assert torch.equal(lessons.targets[:, step], torch.stack(output.chunk(2), dim=1))
        walk.advance(output)
    assert not torch.equal(lessons.trajectories.latents[:, -1], walk.latents)


def test_the_gradient_of_mixed_steps_is_the_sum_of_those_of_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.engine.native.has_tiles", lambda: False)  # float32: only the order of sums differs
    options = _options("serial_to_parallel", prompts=2, feature_weight=0.0)
    bench = _bench(options)
    lessons = _lessons(bench, options)
    with Trainer(bench, options, 10, frozenset()) as trainer:
        trainer.loss(*lessons.batch(torch.arange(len(lessons)))).backward()
        whole = {name: p.grad.clone() for name, p in trainer.parameters.items() if p.grad is not None}
        for parameter in trainer.parameters.values():
            parameter.grad = None
        for index in torch.arange(len(lessons)):
            (trainer.loss(*lessons.batch(index[None])) / len(lessons)).backward()
        for name, gradient in whole.items():
            own = trainer.parameters[name].grad
            assert own is not None and (own - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name
        assert any(name.endswith("log_change") and bool((g != 0).all()) for name, g in whole.items())


def test_a_student_that_is_the_teacher_has_no_feature_loss() -> None:
    bench, drawn = _calibrated(_options("parallel"))
    bench.student.quantize_weights(False)
    student, teacher = Features(bench.student.denoiser), Features(bench.reference)
    with torch.no_grad(), bench.student.float_inputs(), autocast():
        samples = drawn.trajectories.pick(((0, 1), (1, 4)))
        bench.call(bench.student.denoiser, samples)
        bench.call(bench.reference, samples)
    errors = feature_errors(student, teacher)
    assert errors.keys() == set(stages_of(bench.reference)) and len(errors) == 5
    assert float(mean_error(errors)) == 0.0
    student.close()
    assert not student.found


@cache
def _tuned(kind: str, seed: int = 0, **changed: Any) -> tuple[float, float, tuple[float, ...]]:
    """Held-out error before and after, and the loss of every update."""
    options, losses, update = _options(kind, **changed), [], Trainer.update
    bench, drawn = _calibrated(options, seed)
    before = final_error(bench)

    def note(self: Trainer, loss: Tensor) -> float:
        losses.append(update(self, loss))
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", note)
        apply("fine_tuning", bench, drawn)
    return before, final_error(bench), tuple(losses)


def _jumps(losses: tuple[float, ...]) -> float:
    return float(torch.tensor(losses).diff().std())


@pytest.mark.slow
def test_held_out_pictures_are_nearer_after_the_rounds_and_no_worse_than_of_the_parallel_arm() -> None:
    before, after, losses = _tuned("serial_to_parallel")
    assert after < 0.95 * before
    assert after < 1.05 * _tuned("parallel")[1]
    assert len(losses) == len(_tuned("parallel")[2]) == len(_tuned("serial")[2]) == 4 * STEPS


@pytest.mark.slow
def test_the_loss_jumps_less_than_in_serial_training() -> None:
    assert _jumps(_tuned("serial_to_parallel")[2]) < 0.95 * _jumps(_tuned("serial")[2])


def test_a_round_lowers_the_loss_on_its_data() -> None:
    options = _options("serial_to_parallel")
    bench = _bench(options)
    lessons = _lessons(bench, options)
    with Trainer(bench, options, 4 * STEPS, frozenset()) as trainer:
        before = _loss(trainer, lessons)
        for number in range(2):
            _round(trainer, lessons, number)
        assert _loss(trainer, lessons) < 0.95 * before


def test_data_of_the_first_round_no_longer_fits_the_student_that_learned_on_it() -> None:
    """Lessons of round 1 are on another trajectory than the student of then takes: less so with every round."""
    options = _options("serial_to_parallel")
    bench, gaps = _bench(options), []
    with Trainer(bench, options, 4 * STEPS, frozenset()) as trainer:
        for number in range(4):
            lessons = _lessons(bench, options)
            _round(trainer, lessons, number)
            fresh = _lessons(bench, options)
            gaps.append(float((fresh.trajectories.latents - lessons.trajectories.latents).pow(2).mean()))
            if number == 0:
                assert _loss(trainer, lessons) != pytest.approx(_loss(trainer, fresh), rel=1e-3)
    assert gaps[-1] < 0.95 * gaps[0], gaps


@torch.no_grad()
def _feature_error(bench: Bench) -> float:
    student, teacher = Features(bench.student.denoiser), Features(bench.reference)
    walks = bench.walks(8, first=1000)
    lessons = collect(bench, walks, _options("serial_to_parallel"), lambda *_: None)
    samples, _ = lessons.batch(torch.arange(len(lessons)))
    bench.call(bench.student.denoiser, samples)
    bench.call(bench.reference, samples)
    found = float(mean_error(feature_errors(student, teacher)))
    student.close()
    teacher.close()
    return found


def test_inter_layer_distillation_brings_features_nearer() -> None:
    found = []
    for weight in (0.0, 1.0):
        options = _options("serial_to_parallel", feature_weight=weight)
        bench = _bench(options)
        with Trainer(bench, options, 2 * STEPS, frozenset()) as trainer:
            for number in range(2):
                _round(trainer, _lessons(bench, options, number), number)
        found.append(_feature_error(bench))
    assert found[1] < 0.95 * found[0]


def _trainable(bench: Bench) -> int:
    found = {id(p): p for layer in bench.student.layers.values() for p in layer.parameters()}
    return sum(p.numel() for p in found.values() if p.requires_grad)


def test_a_block_on_a_plateau_no_longer_moves() -> None:
    options = _options("serial_to_parallel", freezing="plateau")
    bench = _bench(options)
    lessons, counts = _lessons(bench, options), []
    with Trainer(bench, options, 40, frozenset()) as trainer:
        for step in range(8):
            trainer.update(trainer.loss(*lessons.batch(torch.arange(8))))
            counts.append(_trainable(bench))
            if step == 3:
                trainer.plateau.freeze("mid_block")
                kept = _snapshot(bench, "mid_block.")
    after = _snapshot(bench, "mid_block.")
    assert kept.keys() == after.keys() and all(torch.equal(kept[name], after[name]) for name in kept)
    assert counts == sorted(counts, reverse=True) and counts[-1] < counts[0]
    assert trainer.frozen == {"mid_block"}
    others, untrained = _snapshot(bench, "up_blocks."), _snapshot(_bench(options), "up_blocks.")
    assert any(not torch.equal(others[name], untrained[name]) for name in others)


def _snapshot(bench: Bench, prefix: str) -> dict[str, Tensor]:
    names = [name for name in bench.student.layers if name.startswith(prefix)]
    return {name: tensor.clone() for name, tensor in bench.student.parameters_of(names).items()}


def test_a_plateau_is_an_error_that_no_longer_falls() -> None:
    blocks = {name: [torch.nn.Parameter(torch.zeros(1))] for name in ("falls", "stays")}
    freezing = PlateauFreezing(blocks)
    for update in range(200):
        freezing.observe({"falls": 0.99**update, "stays": 1.0, "unknown": 1.0})
        again = PlateauFreezing(blocks)
        again.restore(freezing.state())
        freezing = again
    assert freezing.frozen == {"stays"}
    assert blocks["falls"][0].requires_grad and not blocks["stays"][0].requires_grad


def _oscillating(updates: int, high_at: set[int]) -> tuple[FakeQuantizedLayer, OscillationFreezing]:
    """A layer with one weight between two codes, 2 most of the time and 3 at some updates."""
    layer = FakeQuantizedLayer(torch.nn.Linear(4, 3), 4, None)  # type: ignore[arg-type]
    layer.weight.data[0, 0] = 2.4 * layer.weight_scale[0]
    freezing = OscillationFreezing({"layer": layer})
    for update in range(updates):
        layer.weight.data[0, 0] = (2.6 if update in high_at else 2.4) * layer.weight_scale[0]
        freezing.observe()
    return layer, freezing


def test_weights_that_flip_to_and_fro_are_held_where_they_are_most_of_the_time() -> None:
    layer, freezing = _oscillating(60, set(range(0, 60, 3)))
    steady = layer.export().codes
    assert freezing.held == 1 and int(steady[0, 0]) == 2
    layer.weight.data[0, 0] = 5.0 * layer.weight_scale[0]
    freezing.observe()
    assert torch.equal(layer.export().codes, steady)


def test_a_weight_that_came_back_once_is_not_held() -> None:
    """One reversal in a hundred updates is less than OSCILLATION, 0.02 an update."""
    assert _oscillating(100, {50})[1].held == 0


def test_only_sensitive_layers_and_activations_train_when_the_rest_is_frozen() -> None:
    options = _options("serial_to_parallel", freezing="sensitive", rounds=1)
    bench, drawn = _calibrated(options)
    before = _snapshot(bench, "")
    apply("fine_tuning", bench, drawn)
    after = _snapshot(bench, "")
    moved = {n for n in before if n.rpartition(".")[2] == "weight" and not torch.equal(before[n], after[n])}
    assert 0 < len(moved) <= round(len(bench.student.layers) * 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("freezing", ["plateau", "oscillation"])
def test_freezing_costs_little(freezing: str) -> None:
    assert _tuned("serial_to_parallel", freezing=freezing)[1] < 1.05 * _tuned("serial_to_parallel")[1]
