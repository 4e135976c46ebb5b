"""TIAR on the toy model: what residual blocks receive from the timestep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from contract.stages import EveryStep, Keep, Stages, Tiar, WeightScales
from quant.calibration.bench import Bench
from quant.calibration.trajectories import Drawn
from quant.discovery import anatomy_of
from tests.support.toy_bench import calibrated

STEPS = 8


def _calibrated(option: Any, seed: int = 0) -> tuple[Bench, Drawn]:
    stages = Stages(time_path=option, inputs=EveryStep(prompts=2), weight_scales=WeightScales(kind="mse"))
    return calibrated(
        stages, "time_path", prompts=2, steps=STEPS, seed=seed, keep_float=("conv_in", "conv_out"), weight_bits=4
    )


def _bench(option: Any) -> Bench:
    return _calibrated(option)[0]


@torch.no_grad()
def _features(bench: Bench) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    timesteps, path = torch.tensor(bench.timesteps), anatomy_of(bench.reference).time_path(bench.reference)
    return path.rows(bench.student.denoiser, timesteps, {}), path.rows(bench.reference, timesteps, {})


def _error(bench: Bench) -> float:
    """The mean over blocks of the relative squared error of their temporal features."""
    own, wanted = _features(bench)
    return float(torch.stack([(own[n] - t).pow(2).sum() / t.pow(2).sum() for n, t in wanted.items()]).mean())


def test_temporal_features_are_what_the_blocks_receive() -> None:
    bench, drawn = _calibrated(Keep())
    _, features = _features(bench)
    seen: dict[str, list[Tensor]] = {}
    for name, module in bench.reference.named_modules():
        if name.endswith("time_emb_proj"):
            module.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, []).append(out[0]))
    with torch.no_grad():
        for step in range(STEPS):
            bench.call(bench.reference, drawn.trajectories.pick(((0, step),)))
    assert features.keys() == seen.keys() and len(features) == 8
    assert all(torch.allclose(features[name], torch.stack(seen[name]), atol=1e-5) for name in features)


def test_features_are_nearer_than_with_nearest_rounding() -> None:
    before, after = _bench(Keep()), _bench(Tiar(iterations=300))
    assert _error(after) < 0.95 * _error(before)
    changed = {
        name
        for name, layer in after.student.layers.items()
        if not torch.equal(layer.quantized_weight(), before.student.layers[name].quantized_weight())
    }
    path = anatomy_of(after.reference).time_path(after.reference)
    assert changed and all(path.has(name) for name in changed)


def test_a_feature_is_most_like_that_of_its_own_timestep() -> None:
    own, wanted = _features(_bench(Tiar(iterations=300)))
    for name, features in wanted.items():
        likeness = functional.normalize(own[name], dim=1) @ functional.normalize(features, dim=1).t()
        assert likeness.argmax(dim=1).tolist() == list(range(STEPS)), name
