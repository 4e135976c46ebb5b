"""A fake-quantized denoiser and the integer one that is served in its place: the same numbers, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from contract.stages import (
    EveryStep,
    ObservedRanges,
    Precalculate,
    ProgressiveRanges,
    Ptqd,
    RelaxedInputs,
    RelaxedWindow,
    Stages,
)
from quant.calibration.bench import Bench
from quant.calibration.export import export
from quant.calibration.trajectories import Drawn
from quant.checkpoints.checkpoint import save_checkpoint
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import denoiser_of, load_unsigned
from quant.engine.engine import Engine
from quant.engine.reference import ReferenceEngine
from quant.engine.selection import default_engine
from quant.layers.fusion import unfuse
from quant.layers.layer import QuantizedLayer
from quant.layers.output_correction import correction_of
from quant.layers.time_path.precalculated import projections
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.quantizers.activation import FLOAT_BITS
from tests.support.toy_bench import calibrated

STEPS = 5
MIXED = {"down_blocks.0.*": 2, "*.attn1.*": 3, "*.attn2.*": 5, "*.ff.*": 6, "mid_block.*": 7, "*.conv_shortcut*": 8}
CASES: dict[str, tuple[Stages, dict[str, Any]]] = {
    "one table row, mixed bits": (Stages(inputs=EveryStep(prompts=4)), {"layer_bits": MIXED, "keep_float": ()}),
    "all of it": (
        Stages(
            time_path=Precalculate(),
            inputs=EveryStep(prompts=4),
            ranges=ProgressiveRanges(prompts=4),
            bits_over_time=RelaxedWindow(start=0.8, end=1.0),
            output_correction=Ptqd(prompts=4),
            split_shortcuts=True,
            per_step=True,
        ),
        {"layer_bits": MIXED, "keep_float": ("conv_out",), "activation_bits": 5},
    ),
    "some inputs relaxed": (
        Stages(
            inputs=EveryStep(prompts=4),
            ranges=ProgressiveRanges(prompts=4),
            bits_over_time=RelaxedInputs(share=0.3, prompts=2),
            per_step=True,
        ),
        {},
    ),
    "a row for every step, packed": (
        Stages(inputs=EveryStep(prompts=4), ranges=ObservedRanges(kind="mse"), split_shortcuts=True, per_step=True),
        {"weight_bits": 3, "packed": True, "activation_bits": 8},
    ),
}


@pytest.fixture(autouse=True, scope="module")
def two_threads() -> Iterator[None]:
    """Which codes a calibration gives, and which flip, depends on the order of sums, and so on the number of threads;
    the bounds here are for two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(CASES))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Drawn, nn.Module]:
    """A bench after its export, and the denoiser as loaded from the checkpoint, unfused."""
    stages, options = CASES[request.param]
    bench, drawn = calibrated(stages, prompts=4, steps=STEPS, **options)
    layout = export(bench, drawn)
    folder = tmp_path_factory.mktemp("exported")
    save_checkpoint(bench.pipeline, denoiser_of(bench.pipeline), layout, folder)
    denoiser = denoiser_of(load_unsigned(folder))
    unfuse(denoiser)
    return bench, drawn, denoiser


def _engines() -> list[Engine]:
    return [ReferenceEngine(), default_engine("cpu")]


@torch.no_grad()
def _inputs_of_layers(bench: Bench, drawn: Drawn, step: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Input and output of every layer of the student at the state of a step."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Any:
        return lambda _, args, output: found.__setitem__(name, (args[0].clone(), output.clone()))

    handles = [layer.register_forward_hook(note(name)) for name, layer in bench.student.layers.items()]
    bench.call(bench.student.denoiser, drawn.trajectories.pick(tuple((i, step) for i in range(4))))
    for handle in handles:
        handle.remove()
    return found


def _codes_without_frame(layer: QuantizedLayer[Any], x: Tensor) -> Tensor:
    codes, window = layer.quantize(x), getattr(layer, "window", None)
    if window is None:
        return codes
    down, right = window.padding
    return codes[:, :, down : codes.shape[2] - down, right : codes.shape[3] - right]


@pytest.mark.parametrize("step", [0, STEPS - 1])
def test_every_integer_layer_computes_what_the_fake_quantized_one_does(
    served: tuple[Bench, Drawn, nn.Module], step: int
) -> None:
    bench, drawn, denoiser = served
    layers, found = quantized_layers(denoiser), _inputs_of_layers(bench, drawn, step)
    assert layers.keys() == bench.student.layers.keys() == found.keys()
    for engine in _engines():
        for name, layer in layers.items():
            layer.release()
            layer.engine = engine
            layer.timesteps.select(bench.timesteps[step])
            _check_layer(name, layer, bench.student.layers[name], *found[name])


def _check_layer(name: str, layer: QuantizedLayer[Any], fake: FakeQuantizedLayer, x: Tensor, wanted: Tensor) -> None:
    with torch.no_grad():
        got, quantized_input = layer(x), fake.inputs(x)
    row = layer.activation
    if row.is_float:
        assert int(fake.inputs.bits[fake.inputs.groups.current]) == FLOAT_BITS and torch.equal(quantized_input, x)
    else:
        values = row.dequantize(_codes_without_frame(layer, x))
        assert torch.equal(values, quantized_input), f"{name}: other codes"
    assert (got - wanted).abs().max() <= 2e-6 * wanted.abs().max().clamp_min(1e-3) + 1e-6, name


def test_weights_are_the_same_codes_and_scales(served: tuple[Bench, Drawn, nn.Module]) -> None:
    bench, _, denoiser = served
    for name, layer in quantized_layers(denoiser).items():
        fake, stored = bench.student.layers[name], layer.quantized_weight
        assert torch.equal(stored.codes, fake.export().codes) and torch.equal(stored.scale, fake.weight_scale), name
        assert torch.equal(stored.dequantize(), fake.quantized_weight()), name
        assert layer.weight_bits == fake.weight_bits and int(stored.codes.abs().max()) <= fake.top, name
        assert layer.inputs == fake.inputs.table, name
        bias = fake.bias
        assert (layer.bias is None) == (bias is None) and (bias is None or torch.equal(layer.bias, bias)), name


def test_projections_of_one_tensor_share_a_table(served: tuple[Bench, Drawn, nn.Module]) -> None:
    layers = quantized_layers(served[2])
    for name in (n.removesuffix(".to_k") for n in layers if n.endswith(".to_k")):
        assert layers[f"{name}.to_k"].inputs == layers[f"{name}.to_v"].inputs
        if ".attn1" in name:
            assert layers[f"{name}.to_q"].inputs == layers[f"{name}.to_k"].inputs


def test_tables_and_correction_come_back(served: tuple[Bench, Drawn, nn.Module]) -> None:
    bench, _, denoiser = served
    if bench.layout.time_path == "keep":
        assert not projections(denoiser) and correction_of(denoiser) is None
        return
    student, own = projections(bench.student.denoiser), projections(denoiser)
    assert student.keys() == own.keys() and all(torch.equal(own[n].table, student[n].table) for n in own)
    kept, correction = correction_of(bench.reference), correction_of(denoiser)
    assert correction is not None and kept is not None
    assert torch.equal(correction.slope, kept.slope) and torch.equal(correction.bias, kept.bias)
    assert correction.bias.abs().max() > 0.0 and correction.timesteps.timesteps == tuple(bench.timesteps)


@torch.no_grad()
def test_the_whole_denoiser_is_as_near_as_single_flipped_codes_allow(served: tuple[Bench, Drawn, nn.Module]) -> None:
    """Layers that stay in floating point are float16 in the checkpoint, so a few codes are others."""
    bench, drawn, denoiser = served
    assert isinstance(denoiser, UNet2DConditionModel)
    correction = correction_of(denoiser)
    for step in (0, STEPS - 1):
        samples = drawn.trajectories.pick(tuple((i, step) for i in range(4)))
        wanted = bench.call(bench.student.denoiser, samples)
        if correction is not None:
            wanted = correction(wanted, samples.timesteps)
        got = bench.call(denoiser, samples)
        assert (got - wanted).norm() <= 0.03 * wanted.norm()
