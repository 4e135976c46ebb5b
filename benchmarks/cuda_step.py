"""How long does one step of a UNet take on a GPU, in bfloat16 and on integers?

`python -m benchmarks.cuda_step --output step.json`; weights are drawn at random from the UNets' configurations, so
nothing is downloaded. First the engine must agree with exact integer arithmetic on layers of real size."""

from __future__ import annotations

import importlib.metadata
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import UNet2DConditionModel
from rich.console import Console
from torch import Tensor, nn

from benchmarks.baselines.kept import KEPT
from benchmarks.machine import today
from benchmarks.shape import SHAPES, WEIGHT_SEED, Shape, inputs
from quant.checkpoints.conversion import Parameters, convert
from quant.checkpoints.layout import Layout, prepare
from quant.engine.engine import Engine, Operands, Window
from quant.engine.reference import ReferenceEngine
from quant.engine.selection import select
from quant.errors import KernelError
from quant.observers.minmax import MinMaxObserver
from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.quantizers.weight import quantize_weight

Step = Callable[[], Tensor]

MEASURED = (SHAPES["sd-v1-4"], SHAPES["sdxl"], replace(SHAPES["sdxl"], name="sdxl-128", side=128))
LAYOUTS = {
    "w8a8": Layout(weight_bits=8, keep_float=KEPT),
    "w4a8-packed": Layout(weight_bits=4, keep_float=KEPT, packed=True),
}
PRODUCTS = (
    ("linear, 8192 x 640 x 5120", (5120, 640), (2, 4096, 640), None),
    ("linear, 154 x 2048 x 1280", (1280, 2048), (2, 77, 2048), None),
    ("convolution 3 x 3, 64 x 64 x 320", (320, 320, 3, 3), (2, 320, 66, 66), Window(padding=(1, 1))),
    ("convolution 3 x 3, stride 2", (640, 640, 3, 3), (2, 640, 66, 66), Window((2, 2), (1, 1))),
    ("convolution 1 x 1, 32 x 32 x 1920", (640, 1920, 1, 1), (2, 1920, 32, 32), Window()),
)
"""Name, weight, codes, window."""
TOLERANCE = 1e-5
COMPILED = {"bf16-compiled": None, "bf16-compiled-graph": "reduce-overhead"}
"""Modes of torch's compiler by contender."""
WARM_UP = 3
SEED = 1

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Contender:
    """A step that is ready to be timed, and the bytes that its UNet takes on the device."""

    step: Step
    resident_bytes: int


def disagreement(engine: Engine, device: torch.device) -> dict[str, float]:
    """For each of PRODUCTS the largest difference from exact arithmetic, as a share of the largest value.

    Raises KernelError above TOLERANCE."""
    generator = torch.Generator(device).manual_seed(SEED)
    found = {}
    for name, shape, codes_shape, window in PRODUCTS:
        weight = torch.randint(-127, 128, shape, generator=generator, device=device, dtype=torch.int8)
        codes = torch.randint(0, 256, codes_shape, generator=generator, device=device, dtype=torch.uint8)
        scale = torch.rand(shape[0], generator=generator, device=device) + 0.1
        operands = Operands(weight, scale, scale - 0.5, ActivationTable((ActivationParameters(0.02, 117),)))
        got, exact = (
            (each.linear(operands) if window is None else each.conv2d(operands, window))(codes, 0, torch.float32)
            for each in (engine, ReferenceEngine())
        )
        found[name] = float((got - exact).abs().max() / exact.abs().max())
        if not found[name] < TOLERANCE:
            raise KernelError(f"{name}: engine {engine.name} is {found[name]:.2e} of the range from exact arithmetic")
    return found


def draw_unet(shape: Shape, device: torch.device) -> UNet2DConditionModel:
    """A UNet with random bfloat16 weights, channels-last, the same at every call."""
    torch.manual_seed(WEIGHT_SEED)
    with device:
        unet = UNet2DConditionModel(**shape.config)
    return unet.to(torch.bfloat16, memory_format=torch.channels_last).eval().requires_grad_(False)


def quantized_unet(shape: Shape, layout: Layout, device: torch.device) -> UNet2DConditionModel:
    """The same UNet on integers, its ranges those of one random input."""
    unet = draw_unet(shape, device)
    plan = prepare(unet, layout)
    ranges = {name: MinMaxObserver() for name in plan.bits}
    hooks = [unet.get_submodule(name).register_forward_pre_hook(partial(_watch, seen)) for name, seen in ranges.items()]
    unet(**arguments(shape, 1, SEED + 1, device))
    for hook in hooks:
        hook.remove()
    weights = {name: quantize_weight(unet.get_submodule(name).weight, bits) for name, bits in plan.bits.items()}  # type: ignore[arg-type]
    tables = {
        name: ActivationTable((ActivationParameters.from_range(seen.low, seen.high),)) for name, seen in ranges.items()
    }
    convert(unet, layout, Parameters(weights, tables))
    return unet.to(device)


def arguments(shape: Shape, batch: int, seed: int, device: torch.device) -> dict[str, Any]:
    """What a step is called with, on `device`; latents and text in bfloat16."""
    given = inputs(shape, batch, seed, torch.bfloat16)
    added = {name: tensor.to(device) for name, tensor in given.pop("added_cond_kwargs", {}).items()}
    moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in given.items()}
    return moved | ({"added_cond_kwargs": added} if added else {})


def contenders(shape: Shape, batch: int, device: torch.device, compiled: bool) -> dict[str, Contender]:
    """Every way to make a step: eager, compiled if asked for, and as a CUDA graph, which leaves out the time of
    launching."""
    given = arguments(shape, batch, SEED, device)
    before = torch.cuda.memory_allocated(device)
    unet = draw_unet(shape, device)
    size = torch.cuda.memory_allocated(device) - before
    step = partial(_call, unet, given)
    _warm_up(step)
    found = {"bf16": Contender(step, size), "bf16-graph": Contender(_graph(step), size)}
    for name, mode in COMPILED.items() if compiled else ():
        found[name] = Contender(partial(_call, torch.compile(unet, mode=mode, dynamic=False), given), size)
    for scheme, layout in LAYOUTS.items():
        before = torch.cuda.memory_allocated(device)
        quantized = quantized_unet(shape, layout, device)
        # Not `quantized(...)`: its hook reads the timestep from the GPU, which a graph cannot; there is one group here.
        step = partial(_call, quantized.forward, given)
        _warm_up(step)
        size = torch.cuda.memory_allocated(device) - before
        found[scheme] = Contender(partial(_call, quantized, given), size)
        found[f"{scheme}-graph"] = Contender(_graph(step), size)
    return found


def measure(shape: Shape, batch: int, rounds: int, device: torch.device, compiled: bool) -> dict[str, Any]:
    """Milliseconds per step by contender: the median of rounds in which each has one turn; and how far its output is
    from bfloat16's, as a share of the norm."""
    steps = contenders(shape, batch, device, compiled)
    for contender in steps.values():
        _warm_up(contender.step)
    exact = steps["bf16"].step().double()
    errors = {name: float((each.step().double() - exact).norm() / exact.norm()) for name, each in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, each in steps.items():
            times[name].append(_milliseconds(each.step))
    return {
        name: {
            "median_ms": statistics.median(times[name]),
            "quartiles_ms": statistics.quantiles(times[name], n=4)[::2] if rounds > 1 else [],
            "relative_difference_from_bf16": errors[name],
            "resident_bytes": each.resident_bytes,
        }
        for name, each in steps.items()
    }


def gpu(device: torch.device) -> dict[str, Any]:
    """The device, and the versions that its figures depend on."""
    properties = torch.cuda.get_device_properties(device)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "triton", "diffusers")}
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "versions": versions,
    }


def _watch(seen: MinMaxObserver, _: nn.Module, given: tuple[Any, ...]) -> None:
    seen.observe(given[0])


def _call(denoiser: Callable[..., Any], given: dict[str, Any]) -> Tensor:
    out: Tensor = denoiser(**given, return_dict=False)[0]
    return out.clone()  # a compiled graph gives the same memory again at its next call


def _warm_up(step: Step) -> None:
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()


def _graph(step: Step) -> Step:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def _milliseconds(step: Step) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


@torch.no_grad()
def main(
    output: Annotated[Path | None, typer.Option(help="JSON file to write")] = None,
    shape: Annotated[list[str] | None, typer.Option(help="shapes to measure; all unless given")] = None,
    batch: Annotated[int, typer.Option(min=1, help="latents in the step; 2 is one picture with guidance")] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 20,
    compiled: Annotated[bool, typer.Option(help="bfloat16 also by torch's compiler, which takes minutes")] = True,
) -> None:
    """Check the CUDA engine, then time a step of every shape."""
    selection = select("cuda")
    if selection.engine.name != "triton":
        stderr.print(f"This benchmark needs the CUDA engine ({selection.reasons[0]}).", soft_wrap=True)
        raise typer.Exit(1)
    device = torch.device("cuda", torch.cuda.current_device())
    result: dict[str, Any] = {"question": "cuda_step", "date": today(), "device": gpu(device), "batch": batch}
    result |= {"rounds": rounds, "disagreement": disagreement(selection.engine, device), "shapes": {}}
    for each in MEASURED:
        if not shape or each.name in shape:
            result["shapes"][each.name] = measure(each, batch, rounds, device, compiled)
            if output is not None:
                output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            stdout.print_json(json.dumps({each.name: result["shapes"][each.name]}))
            torch.compiler.reset()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    typer.run(main)
