"""Our own contenders: the UNet calibrated on random inputs, saved once as a checkpoint, loaded as it is served."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from benchmarks.baselines.kept import KEPT
from benchmarks.contender import Loaded, Task
from benchmarks.shape import CACHE, Shape, inputs, load_unet
from quant.checkpoints.backend import FORMAT_VERSION, FacsimileConfig
from quant.checkpoints.conversion import Parameters, convert
from quant.checkpoints.layout import Layout
from quant.checkpoints.layout import prepare as split_and_plan
from quant.engine.selection import select
from quant.observers.minmax import MinMaxObserver
from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.quantizers.weight import quantize_weight

PACKAGES = ("numpy",)
LAYOUTS = {
    "w8a8": Layout(weight_bits=8, keep_float=KEPT),
    "w4a8": Layout(weight_bits=4, keep_float=KEPT),
    "w4a8-packed": Layout(weight_bits=4, keep_float=KEPT, packed=True),
}
CALIBRATION_SEEDS = (101, 102)
TIMESTEPS = (900, 500, 100)


def load(task: Task) -> Loaded:
    """Options: `scheme`, a key of LAYOUTS; `dtype` of what stays in floating point, bfloat16 unless another is given;
    `rebuild`, of `prepare`, to calibrate anew."""
    folder = checkpoint(task.shape, task.options["scheme"])
    dtype = getattr(torch, task.options.get("dtype", "bfloat16"))
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    unet.eval().requires_grad_(False)
    arguments = inputs(task.shape, task.batch, task.seed, dtype)
    notes = {
        "dtype": str(dtype),
        "checkpoint": folder.relative_to(CACHE).as_posix(),
        "engine": list(select().reasons),
    }
    return Loaded(lambda: unet(**arguments, return_dict=False)[0], unet, notes)


def prepare(task: Task) -> None:
    """Makes the checkpoint when it is not there yet."""
    folder = checkpoint(task.shape, task.options["scheme"])
    if task.options.get("rebuild") or not (folder / "config.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        quantized_unet(task.shape, task.options["scheme"]).save_pretrained(folder)


def checkpoint(shape: Shape, scheme: str) -> Path:
    """The folder of the quantized UNet."""
    return CACHE / shape.name / f"ours-{scheme}-v{FORMAT_VERSION}"


def quantized_unet(shape: Shape, scheme: str) -> UNet2DConditionModel:
    """Min-max ranges over a few random inputs and timesteps, then every layer but KEPT replaced."""
    layout = LAYOUTS[scheme]
    unet = load_unet(shape, torch.bfloat16)
    plan = split_and_plan(unet, layout)
    ranges = _observe(unet, shape, list(plan.bits))
    layers: dict[str, Any] = {name: unet.get_submodule(name) for name in plan.bits}
    convert(
        unet,
        layout,
        Parameters(
            weights={name: quantize_weight(layers[name].weight, bits) for name, bits in plan.bits.items()},
            inputs={
                name: ActivationTable((ActivationParameters.from_range(seen.low, seen.high),))
                for name, seen in ranges.items()
            },
        ),
    )
    unet.register_to_config(quantization_config=FacsimileConfig(**vars(layout)))
    return unet


def _observe(unet: nn.Module, shape: Shape, names: list[str]) -> dict[str, MinMaxObserver]:
    ranges = {name: MinMaxObserver() for name in names}

    def watch(seen: MinMaxObserver, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.observe(arguments[0])

    hooks = [unet.get_submodule(n).register_forward_pre_hook(partial(watch, seen)) for n, seen in ranges.items()]
    with torch.no_grad():
        for seed in CALIBRATION_SEEDS:
            for timestep in TIMESTEPS:
                arguments = inputs(shape, 1, seed, torch.bfloat16)
                unet(**(arguments | {"timestep": torch.tensor(timestep)}))
    for hook in hooks:
        hook.remove()
    return ranges
