"""Reconstruction of units: AdaRound's variables, the losses of BRECQ and FBR, and what they gain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract.stages import AdaRound, EveryStep, Nearest, Stages, WeightScales
from quant.calibration.arithmetic import autocast
from quant.calibration.bench import Bench
from quant.calibration.reconstruction.inner_layers import InnerLayers
from quant.calibration.reconstruction.objective import Objective, error
from quant.calibration.reconstruction.reconstruct import reconstruct
from quant.calibration.reconstruction.trained import Trained
from quant.calibration.reconstruction.unit_data import Collector, UnitData
from quant.calibration.reconstruction.units import Unit, call_unit, find_units
from quant.calibration.trajectories import Drawn
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.layers.trainable.soft_rounding import SoftRounding, by_channel
from tests.support.toy_bench import calibrated, final_error

BLOCK = "mid_block.resnets.0"
TRANSFORMER = "up_blocks.0.attentions.0.transformer_blocks.0"
BRECQ = Objective(60, 16, 1e-1, regularization=0.01)
Calibrated = tuple[Bench, Drawn]
DEFAULT, NEAREST = AdaRound(kind="brecq"), Nearest()


def _bench(seed: int = 0, option: Any = NEAREST, until: str = "weight_scales", prompts: int = 8) -> Calibrated:
    stages = Stages(inputs=EveryStep(prompts=prompts), weight_scales=WeightScales(kind="mse"), rounding=option)
    return calibrated(stages, until, prompts=prompts, seed=seed)


def _unit(calibrated: Calibrated, name: str = BLOCK) -> Unit:
    bench, drawn = calibrated
    denoiser = bench.student.denoiser
    units = find_units(denoiser, lambda: bench.call(denoiser, drawn.picked[slice(0, 1)]), blocks=True)
    return next(unit for unit in units if unit.name == name)


def _data(calibrated: Calibrated, unit: Unit) -> UnitData:
    bench, drawn = calibrated
    with Collector(bench, drawn.picked, [unit.name]) as collector:
        return collector.data(unit.name)


def _reconstructed(calibrated: Calibrated, unit: Unit, objective: Objective) -> tuple[UnitData, float]:
    """The data of a reconstruction, and what it returned."""
    bench, data = calibrated[0], _data(calibrated, unit)
    with bench.seeded("test") as generator:
        own = bench.reference.get_submodule(unit.name)
        return data, reconstruct(unit, own, data, objective, bench.select, generator)


@torch.no_grad()
def _error(bench: Bench, unit: Unit, data: UnitData) -> float:
    """The unit's output error over all samples."""
    bench.select(data.samples)
    return float(error(unit.module(*data.quantized.positional, **data.quantized.named), data.outputs[0]))


def _soft_layer(bits: int = 4, shape: tuple[int, ...] = (24, 40)) -> FakeQuantizedLayer:
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0])
    fake = FakeQuantizedLayer(layer, bits, None)  # type: ignore[arg-type]
    fake.weight_scale.data *= 0.8  # so that some weights are clipped
    fake.weight_quantized = True
    fake.soft = SoftRounding(fake.weight, fake.weight_scale)
    return fake


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_soft_weights_begin_as_the_float_weights_but_for_clipping(bits: int) -> None:
    layer = _soft_layer(bits)
    assert layer.soft is not None
    ends = layer.top * by_channel(layer.weight_scale, layer.weight)
    wanted = torch.maximum(torch.minimum(layer.weight, ends), -ends)
    steps = (layer.quantized_weight() - wanted).abs() / by_channel(layer.weight_scale, layer.weight)
    assert steps.max() < 1.1e-4 and not torch.equal(wanted, layer.weight)


def test_rounding_variables_stay_between_down_and_up_and_harden_to_either() -> None:
    layer = _soft_layer()
    soft, generator = layer.soft, torch.Generator().manual_seed(1)
    assert soft is not None
    soft.alpha.data = 3.0 * torch.randn(soft.alpha.shape, generator=generator)
    assert soft.up.min() == 0.0 and soft.up.max() == 1.0
    assert ((soft.up > 0.0) & (soft.up < 1.0)).any()
    free = soft.hard_codes(1000)
    assert bool(((free == soft.floor) | (free == soft.floor + 1)).all())
    assert torch.equal(free == soft.floor + 1, soft.up >= 0.5)
    codes = soft.hard_codes(layer.top)
    assert torch.equal(codes, free.clamp(-7, 7)) and not torch.equal(codes, free)
    before = layer.weight.clone()
    layer.harden()
    assert layer.soft is None and torch.equal(layer.export().codes.float(), codes)
    assert torch.equal(layer.quantized_weight(), codes * by_channel(layer.weight_scale, before))
    moved = (layer.weight - before).abs() / by_channel(layer.weight_scale, before)
    inside = (before.abs() / by_channel(layer.weight_scale, before)) < layer.top
    assert moved[inside].max() <= 0.5 + 0.49 + 1e-5


def test_the_penalty_is_nothing_once_all_is_decided() -> None:
    soft = SoftRounding(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), torch.full((8,), 0.1))
    undecided = soft.penalty(2.0)
    soft.alpha.data = torch.where(soft.alpha >= 0, 10.0, -10.0)
    assert float(soft.penalty(2.0)) == 0.0 < float(undecided) and float(soft.penalty(20.0)) == 0.0


@contextmanager
def _finishing(monkeypatch: pytest.MonkeyPatch, look: Callable[[Trained], None]) -> Iterator[None]:
    """Calls `look(trained)` when a unit's optimization is over and nothing is hardened yet."""
    finish = Trained.finish

    def watched(trained: Trained) -> None:
        look(trained)
        finish(trained)

    with monkeypatch.context() as patch:
        patch.setattr(Trained, "finish", watched)
        yield


def _optimized(monkeypatch: pytest.MonkeyPatch, objective: Objective, seed: int = 0) -> tuple[float, float, float]:
    """Error of the block with soft and with hard weights, and the share of decided roundings."""
    bench, _ = toy = _bench(seed)
    unit, found = _unit(toy), []
    data = _data(toy, unit)

    def look(_: Trained) -> None:
        up = torch.cat([layer.soft.up.flatten() for layer in unit.layers.values() if layer.soft is not None])
        found.extend([_error(bench, unit, data), float(((2.0 * up - 1.0).abs() > 0.98).float().mean())])

    with _finishing(monkeypatch, look), bench.seeded("test") as generator:
        reconstruct(unit, bench.reference.get_submodule(unit.name), data, objective, bench.select, generator)
    return found[0], _error(bench, unit, data), found[1]


def test_default_options_decide_nearly_all_roundings(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Objective(
        DEFAULT.iterations, 32, DEFAULT.learning_rate, regularization=DEFAULT.regularization, warmup=DEFAULT.warmup
    )
    assert _optimized(monkeypatch, objective)[2] > 0.95


def test_hardening_costs_less_with_the_regularizer(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard, _ = _optimized(monkeypatch, replace(BRECQ, regularization=0.0))
    assert hard - soft > 0.0
    decided_soft, decided_hard, _ = _optimized(monkeypatch, BRECQ)
    assert decided_hard - decided_soft < 0.95 * (hard - soft)


@pytest.mark.parametrize("name", [BLOCK, TRANSFORMER])
def test_a_units_output_is_nearer_after_reconstruction(name: str) -> None:
    bench, _ = toy = _bench()
    unit = _unit(toy, name)
    before = _error(bench, unit, _data(toy, unit))
    data, _ = _reconstructed(toy, unit, BRECQ)
    assert _error(bench, unit, data) < 0.95 * before


@pytest.mark.parametrize("kind", ["adaround", "brecq"])
def test_the_networks_output_is_nearer_after_reconstruction(kind: Any) -> None:
    nearest = final_error(_bench()[0])
    option = AdaRound(kind=kind, iterations=12, learning_rate=0.1, batch=16)
    assert final_error(_bench(option=option, until="rounding", prompts=3)[0]) < 0.95 * nearest


def _first_loss(objective: Objective) -> tuple[float, float, dict[str, float]]:
    """The loss of the first iteration; what the output's and the inner layers' errors are, computed here."""
    toy = _bench()
    unit = _unit(toy, TRANSFORMER)
    data, loss = _reconstructed(toy, unit, replace(objective, iterations=1))
    fresh, _ = same = _bench()
    own = _unit(same, TRANSFORMER)
    for layer in own.layers.values():
        layer.soft = SoftRounding(layer.weight, layer.weight_scale)
    with fresh.seeded("test") as generator:
        index = torch.randint(len(data.samples), (16,), generator=generator)
    fresh.select(data.samples[index])
    seen: dict[str, list[Tensor]] = {name: [] for name in own.layers}
    reference = fresh.reference.get_submodule(TRANSFORMER)
    for block in (own.module, reference):
        for name in own.layers:
            block.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen[name].append(out))
    with torch.no_grad(), autocast():
        output = own.module(*data.quantized[index].positional, **data.quantized[index].named)
        reference(*data.reference[index].positional, **data.reference[index].named)
    inner = {name: float(error(outputs[0], outputs[1].float())) for name, outputs in seen.items()}
    return loss, float(error(output, data.outputs[0][index])), inner


def test_without_gamma_the_loss_is_brecqs() -> None:
    loss, output, _ = _first_loss(replace(BRECQ, gamma=0.0))
    assert loss == output


def test_with_gamma_the_loss_adds_all_layers_but_the_last() -> None:
    loss, output, inner = _first_loss(replace(BRECQ, gamma=0.8))
    del inner[list(inner)[-1]]
    assert loss == pytest.approx(output + 0.8 * sum(inner.values()), rel=1e-5) and loss > 1.01 * output


def test_the_inner_layers_term_has_no_gradient_to_the_last_layer() -> None:
    bench, _ = toy = _bench()
    unit = _unit(toy, TRANSFORMER)
    data = _data(toy, unit)
    for layer in unit.layers.values():
        layer.weight.requires_grad_(True)
    index = torch.arange(8)
    bench.select(data.samples[index])
    with InnerLayers(unit, bench.reference.get_submodule(TRANSFORMER)) as inner:
        inner.run_reference(data.reference[index])
        call_unit(unit.module, data.quantized[index])
        inner.errors().backward()
    *others, last = unit.layers.values()
    assert last.weight.grad is None or not last.weight.grad.any()
    assert all(layer.weight.grad is not None and layer.weight.grad.any() for layer in others)


@torch.no_grad()
def _inner_error(gamma: float, seed: int) -> float:
    """The mean error of the layers inside after reconstruction, relative to their outputs."""
    bench, _ = toy = _bench(seed)
    unit = _unit(toy, TRANSFORMER)
    with torch.enable_grad():
        data, _ = _reconstructed(toy, unit, replace(BRECQ, gamma=gamma))
    reference = bench.reference.get_submodule(TRANSFORMER)
    seen: dict[str, list[Tensor]] = {}
    for block in (unit.module, reference):
        for name in unit.layers:
            block.get_submodule(name).register_forward_hook(
                lambda _, __, out, name=name: seen.setdefault(name, []).append(out)
            )
    data = _data(toy, unit)
    seen.clear()
    bench.select(data.samples)
    unit.module(*data.quantized.positional, **data.quantized.named)
    reference(*data.reference.positional, **data.reference.named)
    ratios = [(own - wanted).pow(2).sum() / wanted.pow(2).sum() for own, wanted in list(seen.values())[:-1]]
    return float(torch.stack(ratios).mean())


def test_gamma_brings_the_layers_inside_nearer() -> None:
    assert _inner_error(0.8, seed=0) < 0.95 * _inner_error(0.0, seed=0)


def test_units_are_in_the_order_of_data_and_cover_every_layer_once() -> None:
    bench, drawn = _bench()
    run = lambda: bench.call(bench.student.denoiser, drawn.picked[slice(0, 1)])  # noqa: E731
    for blocks in (True, False):
        units = find_units(bench.student.denoiser, run, blocks=blocks)
        names = [f"{unit.name}.{inner}".rstrip(".") for unit in units for inner in unit.layers]
        assert sorted(names) == sorted(bench.student.layers) and len(units) < len(bench.student.layers) + (not blocks)
        kinds = [unit.name.partition("_")[0] for unit in units]
        assert kinds == sorted(kinds, key=["down", "mid", "up"].index)


def test_layers_that_were_not_reconstructed_stay_bit_for_bit() -> None:
    bench, _ = toy = _bench()
    before = {name: tensor.clone() for name, tensor in bench.student.parameters_of(list(bench.student.layers)).items()}
    unit = _unit(toy)
    _reconstructed(toy, unit, replace(BRECQ, iterations=5))
    after = bench.student.parameters_of(list(bench.student.layers))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(BLOCK) and name.endswith(".weight") for name in changed)
