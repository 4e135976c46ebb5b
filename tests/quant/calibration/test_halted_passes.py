"""What units are reconstructed on: what they would be given in whole passes, wherever earlier passes have halted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract.stages import EveryStep, Nearest, ObservedRanges, Stages, WeightScales
from quant.calibration.arithmetic import autocast
from quant.calibration.bench import Bench
from quant.calibration.reconstruction import unit_data
from quant.calibration.reconstruction.halted import Call, Passes
from quant.calibration.reconstruction.unit_data import Collector
from quant.calibration.reconstruction.units import Unit, find_units
from quant.calibration.trajectories import Drawn
from tests.support.toy_bench import calibrated

BATCHES = 6


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Drawn]:
    """Weights and inputs quantized, a table row for every step, and batches that mix steps; all of them may halt."""
    monkeypatch.setattr(unit_data, "BATCH", 16)
    stages = Stages(
        inputs=EveryStep(prompts=8),
        weight_scales=WeightScales(kind="mse"),
        rounding=Nearest(),
        ranges=ObservedRanges(kind="minmax", observed="quantized_weights"),
        per_step=True,
    )
    bench, drawn = calibrated(stages, "ranges", prompts=8)
    return replace(bench, halted=100), drawn


def _units(bench: Bench, drawn: Drawn, *, blocks: bool = True) -> list[Unit]:
    denoiser = bench.student.denoiser
    return find_units(denoiser, lambda: bench.call(denoiser, drawn.picked[slice(0, 1)]), blocks=blocks)


@torch.no_grad()
def _whole(bench: Bench, drawn: Drawn, denoiser: nn.Module, unit: str) -> tuple[list[Tensor], Tensor]:
    """The tensors that a unit is given, and its output, by whole passes of all batches."""
    given: list[list[Tensor]] = []
    outputs: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        given.append([value.float() for value in (*args, *kwargs.values()) if isinstance(value, Tensor)])
        outputs.append(output.float())

    handle = denoiser.get_submodule(unit).register_forward_hook(note, with_kwargs=True)
    with autocast():
        for batch in drawn.picked.batches(16):
            bench.call(denoiser, batch)
    handle.remove()
    assert len(outputs) == BATCHES
    return [torch.cat(values) for values in zip(*given, strict=True)], torch.cat(outputs)


def _tensors(arguments: Any) -> list[Tensor]:
    values = (*arguments.positional, *arguments.named.values())
    return [value for value in values if isinstance(value, Tensor)]


def _same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(torch.equal, found, wanted))


@pytest.mark.parametrize(("blocks", "halted"), [(True, 0), (True, 1), (True, 100), (False, 100)])
def test_every_unit_gets_what_whole_passes_give_it(calibration: tuple[Bench, Drawn], blocks: bool, halted: int) -> None:
    bench, drawn = replace(calibration[0], halted=halted), calibration[1]
    units = _units(bench, drawn, blocks=blocks)
    units = units if blocks else units[::4]  # a unit need not be the next one
    with Collector(bench, drawn.picked, [unit.name for unit in units]) as collector:
        for unit in units:
            data = collector.data(unit.name)
            reference, output = _whole(bench, drawn, bench.reference, unit.name)
            quantized, _ = _whole(bench, drawn, bench.student.denoiser, unit.name)
            assert _same(_tensors(data.reference), reference) and _same(list(data.outputs), [output]), unit.name
            assert _same(_tensors(data.quantized), quantized), unit.name
            for layer in unit.layers.values():  # as a reconstruction would: what comes after must see it
                layer.weight.data.mul_(0.9)
                layer.inputs.scale.mul_(1.1 if blocks else 1.0)  # layers of one block may share their inputs' scales
    assert not _same(quantized, reference)


def test_whoever_waits_for_a_pass_keeps_gradients_and_precision(
    calibration: tuple[Bench, Drawn], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, drawn = calibration
    monkeypatch.setattr("quant.engine.native.has_tiles", lambda: True)
    units = [unit.name for unit in _units(bench, drawn)]
    with Collector(bench, drawn.picked, units) as collector:
        for unit in units[:3]:
            collector.data(unit)
            assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
            with torch.no_grad():
                collector.data(units[units.index(unit) + 4])
                assert not torch.is_grad_enabled()
            break
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_a_unit_that_has_been_passed_is_not_reached_again(calibration: tuple[Bench, Drawn]) -> None:
    bench, drawn = calibration
    units = [unit.name for unit in _units(bench, drawn)]
    with Collector(bench, drawn.picked, units) as collector:
        collector.data(units[3])
        with pytest.raises(LookupError, match=units[1]):
            collector.data(units[1])


def test_what_goes_wrong_in_a_pass_is_raised_to_who_asked_and_hooks_go() -> None:
    denoiser = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 2), nn.Linear(2, 2))
    passes = Passes(denoiser, ["0", "2"], [Call(lambda: denoiser(torch.ones(1, 2)), lambda: None)], halted=1)
    assert torch.equal(passes.inputs("0").positional[0], torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        passes.inputs("2")
    passes.close()
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in denoiser)
