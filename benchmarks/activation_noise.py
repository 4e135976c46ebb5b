"""What do quantized activations alone cost a picture, at which steps, and in which layers?

`python -m benchmarks.activation_noise --recipe s2p-v2-w4a8 --save`. Weights stay in floating point, so what is measured
here is left over however well they are rounded and trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

import quant.methods
from benchmarks.machine import machine, today
from benchmarks.result import AsJson, Keep, save, stderr, stdout
from benchmarks.shape import ROOT
from contract.recipe import Recipe, read_recipe
from contract.stages import Nearest, NoFineTuning, SameBits, Stages
from quant.calibration.bench import Bench, open_bench
from quant.calibration.input_sensitivity import input_sensitivities
from quant.calibration.run import Run
from quant.calibration.stage import stages as all_stages
from quant.calibration.stages import bits_over_time, inputs
from quant.calibration.trajectories import Drawn, final_latents
from quant.checkpoints.pipelines import load_reference
from quant.cli.options import MODELS, PROMPTS, describe
from quant.discovery import find
from quant.fidelity.statistics import summarize
from quant.quantizers.activation import FLOAT_BITS
from quant.sampling.prompts import load_prompts
from quant.sampling.request import Sampling
from quant.sampling.walk import State, Walk

MODEL, PROMPT_SET = "shapes-sd", "shapes-plain"
SEED = 7_000_000
"""Seed of the first picture, far from those of calibration, of cards and of evaluations."""

LAST = (1, 2, 5)
"""Numbers of last steps that are also run with floating-point activations."""

SHARES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
"""Shares of all inputs at steps that are also run in floating point, those that the picture notices most."""

PROBED = 4
"""Calibration prompts by which those are found."""

Json = dict[str, Any]


def measure(name: str, pictures: int, threads: int) -> Json:
    """The error of the final latents with the recipe's activation ranges, and each layer's share of the last step's."""
    torch.set_num_threads(threads)
    bench, drawn = _calibrated(read_recipe(ROOT / "recipes" / f"{name}.toml"))
    prompts = tuple(prompt.text for prompt in load_prompts(PROMPTS, PROMPT_SET, "validation", pictures))
    walks = Run(prompts, replace(bench.run.sampling, seed=SEED)).walks(bench.pipeline, pictures)
    truth = _final(bench, walks, student=False)
    steps = range(len(bench.timesteps))
    errors = {"nothing": _relative(_final(bench, walks, student=True), truth)}
    for last in LAST:
        with_bits = _relax(bench, steps[-last:])
        errors[f"last {last}"] = _relative(_final(bench, walks, student=True), truth)
        _restore(bench, with_bits)
    sensitivities = input_sensitivities(bench, drawn, PROBED)
    for share in SHARES:
        with_bits = _bits(bench)
        bits_over_time.raise_bits(bench, sensitivities, share, FLOAT_BITS)
        errors[f"{share:.1%} of inputs"] = _relative(_final(bench, walks, student=True), truth)
        _restore(bench, with_bits)
    return {
        "question": "activation_noise",
        "recipe": name,
        "pictures": pictures,
        "prompts": f"{PROMPT_SET}/validation",
        "seed": SEED,
        "date": today(),
        "machine": machine(threads),
        "torch": str(torch.__version__),
        "relaxed": {relaxed: _geometric(values) for relaxed, values in errors.items()},
        "layers_of_last_step": _layers(bench, walks),
    }


def _calibrated(recipe: Recipe) -> tuple[Bench, Drawn]:
    """Calibrated as the recipe says, but with the same bits at all steps, and its weights in floating point."""
    own = recipe.complete(find(quant.methods, recipe.method).STAGES)
    without = {"rounding": Nearest(), "fine_tuning": NoFineTuning(), "bits_over_time": SameBits()}
    stages = Stages.model_validate(own.model_dump() | without)
    described = describe(MODEL, MODELS)
    pipeline = load_reference(described)
    count = recipe.calibration.num_prompts
    prompts = tuple(prompt.text for prompt in load_prompts(PROMPTS, PROMPT_SET, "calibration", count))
    sampling = Sampling.of_calibration(recipe.calibration, (described.width, described.height))
    bench = open_bench(pipeline, recipe, stages, Run(prompts, sampling))
    drawn = inputs.draw(stages.inputs, bench)
    for stage in ("weight_scales", "ranges"):
        stderr.print(stage, style="dim")
        all_stages()[stage].apply(getattr(stages, stage), bench, drawn)
    bench.student.quantize_weights(False)
    return bench, drawn


def _relax(bench: Bench, steps: Iterable[int], names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Puts the inputs of layers to floating point at steps; returns the bits as they were."""
    before = _bits(bench)
    for name in names or before:
        bench.student.quantizers[name].bits[list(steps)] = FLOAT_BITS
    return before


def _bits(bench: Bench) -> dict[str, Tensor]:
    return {name: quantizer.bits.clone() for name, quantizer in bench.student.quantizers.items()}


def _restore(bench: Bench, bits: dict[str, Tensor]) -> None:
    for name, own in bits.items():
        bench.student.quantizers[name].bits.copy_(own)


def _final(bench: Bench, walks: list[Walk], *, student: bool) -> Tensor:
    denoiser = bench.student.denoiser if student else bench.reference
    return final_latents([walk.again() for walk in walks], bench.denoise(denoiser))


def _relative(found: Tensor, truth: Tensor) -> list[float]:
    """Squared distance over squared length, of every picture."""
    squared = (found - truth).flatten(1).square().sum(dim=1) / truth.flatten(1).square().sum(dim=1)
    return [float(value) for value in squared]


def _geometric(values: list[float]) -> Json:
    """Geometric mean and its 95 % interval: a picture that takes another branch does not decide it."""
    logs = summarize([math.log(value) for value in values])
    interval = None if logs.ci95 is None else [math.exp(end) for end in logs.ci95]
    return {"mean": None if logs.mean is None else math.exp(logs.mean), "ci95": interval, "count": logs.count}


@torch.no_grad()
def _layers(bench: Bench, walks: list[Walk]) -> list[Json]:
    """By how much of itself the squared error of the guided output at the last step falls when a layer's input is not
    quantized there, largest first, on the reference's states; and the same for the first ones of this list together."""
    states = [_last_state(bench, walk.again()) for walk in walks]
    last = [len(bench.timesteps) - 1]
    whole = _output_error(bench, walks, states)

    def saved(names: list[str]) -> float:
        before = _relax(bench, last, names)
        error = _output_error(bench, walks, states)
        _restore(bench, before)
        return (whole - error) / whole

    ranked = sorted(((saved([name]), name) for name in bench.student.quantizers), reverse=True)
    names = [name for _, name in ranked]
    return [
        {"layer": name, "alone": share, "with_those_before": saved(names[: place + 1])}
        for place, (share, name) in enumerate(ranked[:12])
    ]


def _last_state(bench: Bench, walk: Walk) -> tuple[State, Tensor]:
    """What the reference sees at its last step, and its guided output."""
    denoise = bench.denoise(bench.reference)
    while True:
        state = walk.state
        output = denoise(*state.rows)
        if walk.step == len(walk.timesteps) - 1:
            return state, walk.guided(output)
        walk.advance(output)


def _output_error(bench: Bench, walks: list[Walk], states: list[tuple[State, Tensor]]) -> float:
    student = bench.denoise(bench.student.denoiser)
    return sum(
        float((walk.guided(student(*state.rows)) - wanted).square().sum())
        for walk, (state, wanted) in zip(walks, states, strict=True)
    )


def main(
    recipe: Annotated[str, typer.Option(help="a preset with ranges for every step, a file of recipes/")],
    pictures: Annotated[int, typer.Option(min=2, help="validation prompts")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure the error that activations leave when weights are perfect."""
    result = measure(recipe, pictures, threads)
    if keep:
        save(result, f"activation-noise-{recipe}")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    steps = Table("in floating point", "relative squared error", "95 %", title=recipe)
    for relaxed, found in result["relaxed"].items():
        low, high = found["ci95"]
        steps.add_row(relaxed, f"{found['mean']:.3g}", f"{low:.3g} to {high:.3g}")
    layers = Table("input of", "error of the last step that it makes", "with those above")
    for row in result["layers_of_last_step"]:
        layers.add_row(row["layer"], f"{row['alone']:.1%}", f"{row['with_those_before']:.1%}")
    stdout.print(steps, layers)


if __name__ == "__main__":
    typer.run(main)
