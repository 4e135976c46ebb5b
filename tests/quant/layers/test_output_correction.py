"""The output correction: against numpy's least squares, and around a whole denoiser."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quant.checkpoints.backend import FacsimileConfig
from quant.checkpoints.checkpoint import round_as_stored, save_checkpoint
from quant.checkpoints.conversion import dequantize, quantize_dynamically
from quant.checkpoints.layout import Layout
from quant.errors import CheckpointError, RecipeMismatch, TimestepError
from quant.layers.output_correction import OutputCorrection, attach, correction_of, detach, fit_correction
from tests.support.tiny_model import build_tiny_pipeline
from tests.support.tiny_world import KEPT

TIMESTEPS = (900.0, 500.0, 100.0)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def _outputs(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([1.0, 0.5, 2.0, 0.1])[:, None, None]
    return torch.randn(6, 4, 8, 8, generator=generator) * spread + torch.tensor([3.0, -1.0, 0.0, 8.0])[:, None, None]


def _correction(channels: int = 4) -> OutputCorrection:
    generator = torch.Generator().manual_seed(7)
    fits = {t: (0.1 * i, torch.randn(channels, generator=generator)) for i, t in enumerate(TIMESTEPS)}
    return OutputCorrection.of(fits)


def _run(denoiser: nn.Module, timestep: Any, **more: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    x, context = torch.randn(2, 4, 32, 32, generator=generator), torch.randn(2, 16, 32, generator=generator)
    with torch.no_grad():
        return denoiser(x, timestep, context, **more)


def test_slope_and_bias_are_numpys_least_squares() -> None:
    reference = _outputs()
    noise = 0.3 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))
    shift = torch.tensor([0.2, -0.4, 0.0, 1.0])[:, None, None]
    slope, bias = fit_correction(reference, reference * 1.07 + shift + noise)
    channel = np.broadcast_to(np.arange(4)[None, :, None, None], reference.shape).ravel()
    unknowns = np.column_stack([reference.numpy().astype(np.float64).ravel(), np.eye(4)[channel]])
    error = (reference * 1.07 + shift + noise).double().numpy().ravel() - reference.double().numpy().ravel()
    wanted = np.linalg.lstsq(unknowns, error, rcond=None)[0]
    assert slope == pytest.approx(wanted[0], rel=1e-9)
    assert bias.dtype == torch.float32 and bias.tolist() == pytest.approx(wanted[1:].tolist(), rel=1e-5)


def test_an_error_of_its_kind_is_undone() -> None:
    reference = _outputs()
    bias = torch.tensor([0.2, -0.4, 0.0, 1.0])
    quantized = reference * 1.25 + bias[:, None, None]
    found = fit_correction(reference, quantized)
    assert found[0] == pytest.approx(0.25, rel=1e-6)
    torch.testing.assert_close(found[1], bias, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(OutputCorrection.of({5.0: found})(quantized, 5), reference, rtol=1e-5, atol=1e-5)


def test_a_falling_slope_is_none_and_the_bias_is_the_mean() -> None:
    reference = _outputs()
    slope, bias = fit_correction(reference, reference * 0.8 + 1.0)
    assert slope == 0.0
    torch.testing.assert_close(bias, 1.0 - 0.2 * reference.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    slope, bias = fit_correction(torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), 1.5))
    assert slope == 0.0 and bias.tolist() == [0.5, 0.5, 0.5]
    assert fit_correction(reference, reference)[1].abs().max() == 0.0


def test_it_lowers_the_error_of_what_it_was_not_fitted_on() -> None:
    def quantized(seed: int) -> tuple[Tensor, Tensor]:
        noise = 0.05 * torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(seed + 50))
        return _outputs(seed), 1.1 * _outputs(seed) + 0.3 + noise

    correction = OutputCorrection.of({5.0: fit_correction(*quantized(0))})
    reference, output = quantized(1)
    assert (correction(output, 5) - reference).square().mean() < 0.05 * (output - reference).square().mean()


def test_outputs_of_different_shapes_are_refused() -> None:
    for other in (torch.zeros(6, 4, 8, 7), torch.zeros(4, 8)):
        with pytest.raises(ValueError, match="cannot be compared"):
            fit_correction(torch.zeros(6, 4, 8, 8) if other.dim() == 4 else other, other)


@pytest.mark.parametrize(("timestep", "row"), [(900, 0), (999.0, 0), (torch.tensor(501), 1), (torch.tensor([3, 3]), 2)])
def test_the_row_is_that_of_the_nearest_timestep(timestep: Any, row: int) -> None:
    correction, eps = _correction(), torch.randn(2, 4, 8, 8)
    wanted = (eps - correction.bias[row][:, None, None]) / (1 + correction.slope[row])
    torch.testing.assert_close(correction(eps, timestep), wanted)
    low = correction(eps.bfloat16(), timestep)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), wanted, rtol=0.02, atol=0.02)


def test_timesteps_may_differ_and_must_be_numbers() -> None:
    correction, eps = _correction(), torch.randn(3, 4, 8, 8)
    mixed = torch.tensor([90, 880, 490])
    alone = [correction(eps[i : i + 1], t) for i, t in enumerate(mixed)]
    assert torch.equal(correction(eps, mixed), torch.cat(alone))
    with pytest.raises(TimestepError, match="not a number"):
        correction(eps, float("nan"))


def test_a_denoiser_gives_the_corrected_output_in_every_form() -> None:
    unet = build_tiny_pipeline().unet.eval()
    before = {t: _run(unet, t).sample for t in (900, 480)}
    correction = _correction()
    attach(unet, correction)
    for timestep, plain in before.items():
        wanted = correction(plain, timestep)
        assert not torch.equal(wanted, plain)
        out = _run(unet, timestep)
        assert (
            torch.equal(out.sample, wanted) and torch.equal(out[0], wanted) and type(out).__name__.startswith("UNet2D")
        )
        assert torch.equal(_run(unet, timestep, return_dict=False)[0], wanted)
        keyword = _run(lambda x, t, c: unet(sample=x, timestep=t, encoder_hidden_states=c), timestep)  # type: ignore[arg-type]
        assert torch.equal(keyword.sample, wanted)
    assert {"output_correction.slope", "output_correction.bias"} <= unet.state_dict().keys()


def test_it_is_attached_once_and_can_be_taken_off() -> None:
    unet = build_tiny_pipeline().unet.eval()
    plain = _run(unet, 480).sample
    first, second = _correction(), OutputCorrection(TIMESTEPS, 4)
    attach(unet, first)
    first.follow(unet)
    assert torch.equal(_run(unet, 480).sample, first(plain, 480))
    attach(unet, second)  # which corrects nothing
    assert torch.equal(_run(unet, 480).sample, plain)
    detach(unet)
    detach(unet)
    assert correction_of(unet) is None and torch.equal(_run(unet, 480).sample, plain)


def test_a_copy_is_corrected_by_its_own() -> None:
    unet = build_tiny_pipeline().unet.eval()
    plain = _run(unet, 480).sample
    attach(unet, _correction())
    wanted = _run(unet, 480).sample
    twin = copy.deepcopy(unet)
    assert torch.equal(_run(twin, 480).sample, wanted)
    twin.output_correction.bias.zero_()
    assert torch.equal(_run(unet, 480).sample, wanted)
    detach(twin)
    assert torch.equal(_run(twin, 480).sample, plain) and torch.equal(_run(unet, 480).sample, wanted)


def test_another_dtype_leaves_it_in_float32() -> None:
    correction = _correction()
    slope, bias = correction.slope.clone(), correction.bias.clone()
    correction.to(torch.bfloat16)
    assert torch.equal(correction.slope, slope) and torch.equal(correction.bias, bias)


def _saved(folder: Path) -> UNet2DConditionModel:
    pipeline = build_tiny_pipeline()
    unet = pipeline.unet.eval()
    layout = quantize_dynamically(unet, Layout(keep_float=KEPT, schedule=TIMESTEPS, output_correction=True))
    attach(unet, _correction())
    save_checkpoint(pipeline, unet, layout, folder)
    round_as_stored(pipeline, unet)
    return unet  # type: ignore[no-any-return]


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    saved = _saved(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet").eval()
    for timestep in (900, 480):
        assert torch.equal(_run(loaded, timestep).sample, _run(saved, timestep).sample)
    stored = load_file(tmp_path / WEIGHTS)
    assert torch.equal(stored["output_correction.bias"], _correction().bias)
    assert torch.equal(loaded.output_correction.slope, _correction().slope)
    assert correction_of(dequantize(loaded)) is None
    low = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet", torch_dtype=torch.bfloat16)
    assert torch.equal(low.output_correction.bias, _correction().bias)


@pytest.mark.parametrize(
    "fields",
    [{"time_path": "offline"}, {"time_path": None}, {"time_path": "precalculate"}, {"output_correction": True}],
)
def test_a_layout_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RecipeMismatch, match="time_path"):
        Layout(**fields)


def test_older_checkpoints_say_nothing_of_it() -> None:
    config = FacsimileConfig(format_version=2, weight_bits=4, timesteps=[5.0])
    assert config.layout == Layout(weight_bits=4, timesteps=(5.0,))
    layout = Layout(keep_float=KEPT, time_path="precalculate", schedule=TIMESTEPS, output_correction=True)
    again = FacsimileConfig(**json.loads(json.dumps(FacsimileConfig(**vars(layout)).to_dict())))
    assert again.layout == layout and again.format_version == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slope": torch.zeros(2)}, "has shape"),
        ({"slope": torch.zeros(1)}, "has shape"),
        ({"slope": torch.tensor([0.0, -0.1, 0.0])}, "not negative"),
        ({"slope": torch.tensor([0.0, float("nan"), 0.0])}, "finite"),
        ({"bias": torch.zeros(3, 3)}, "has shape"),
        ({"bias": torch.full((3, 4), torch.inf)}, "bias must be finite"),
        ({"bias": torch.zeros(3, 4).half()}, "wanted torch.float32"),
    ],
)
def test_damage_is_named(change: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    _saved(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS) | {f"output_correction.{name}": value for name, value in change.items()}
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as raised:
        UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    assert "output_correction" in str(raised.value)
