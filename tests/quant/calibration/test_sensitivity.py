"""Bits of weights by sensitivity, measured on the toy model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contract.stages import EveryStep, SensitiveBits, Stages, UniformBits, WeightScales
from quant.calibration.bench import Bench
from quant.calibration.bit_allocation import sqnr
from quant.calibration.trajectories import Drawn
from quant.calibration.weight_sensitivity import weight_sensitivities
from tests.support.toy_bench import calibrated, final_latents


def _allocated(option: Any, until: str = "weight_scales") -> tuple[Bench, Drawn]:
    stages = Stages(bits=option, inputs=EveryStep(prompts=4), weight_scales=WeightScales(kind="mse"))
    return calibrated(stages, until, prompts=4, steps=5)


@torch.no_grad()
def _output_sqnr(bench: Bench) -> float:
    """Of outputs on states of held-out pictures."""
    found = {one: final_latents(bench, student=one == "student", count=32) for one in ("student", "reference")}
    return sqnr(found["reference"], found["student"])


def _average(bits: dict[str, int], parameters: dict[str, int]) -> float:
    """Bits of a weight, by how many weights a layer has."""
    return sum(bits[name] * count for name, count in parameters.items()) / sum(parameters.values())


@pytest.mark.parametrize("kind", ["greedy", "integer_programme"])
def test_sensitive_layers_get_bits_within_the_budget_and_the_output_gains(kind: Any) -> None:
    bench, _ = _allocated(SensitiveBits(kind=kind, lifted_bits=8, extra_bits=0.5, prompts=2, steps=3))
    bits = {name: layer.weight_bits for name, layer in bench.student.layers.items()}
    parameters = {name: layer.weight.numel() for name, layer in bench.student.layers.items()}
    assert set(bits.values()) == {4, 8} and 4.0 < _average(bits, parameters) <= 4.5
    assert all(not layer.inputs.enabled and layer.weight_quantized for layer in bench.student.layers.values())
    assert _output_sqnr(bench) >= _output_sqnr(_allocated(UniformBits())[0]) + 0.5


def test_a_layer_that_loses_nothing_is_not_sensitive() -> None:
    bench, drawn = _allocated(SensitiveBits(kind="greedy"), until="inputs")
    name, layer = next(iter(bench.student.layers.items()))
    layer.weight.data = 0.25 * torch.randint(-7, 8, layer.weight.shape).float()
    layer.weight.data.flatten(1)[:, 0] = 7 * 0.25
    options = SensitiveBits(kind="greedy", prompts=2, steps=2)
    measured = {(one.layer, one.bits): one for one in weight_sensitivities(bench, drawn, (4, 8), options)}
    assert measured[name, 4].sqnr == float("inf") and measured[name, 4].noise == 0.0
    others = [one for key, one in measured.items() if key[0] != name]
    assert all(0.0 < one.sqnr < 200.0 for one in others)


def test_a_measurement_is_of_the_layers_bits_and_not_of_other_rounding() -> None:
    """Four more bits are 24 dB. In float32, layers of the toy model gain 20 dB on average."""
    bench, drawn = _allocated(SensitiveBits(kind="greedy"), until="inputs")
    options = SensitiveBits(kind="greedy", prompts=2, steps=2)
    measured = {(one.layer, one.bits): one.sqnr for one in weight_sensitivities(bench, drawn, (4, 8), options)}
    gains = [measured[name, 8] - measured[name, 4] for name in bench.student.layers]
    assert sum(gains) / len(gains) > 15.0
