"""How long does one step of the denoiser take, ours and the rivals'?

`python -m benchmarks.unet_step --shape sd-v1-4 --rounds 7 --save`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from safetensors.torch import load_file

from benchmarks import contest
from benchmarks.contender import CONTENDERS, REFERENCE
from benchmarks.contest import Contest, Records
from benchmarks.machine import available_bytes, machine, today
from benchmarks.result import AsJson, Keep, Lock, save, stderr, stdout
from benchmarks.shape import CACHE, SHAPES, ensure_weights, parameters

PIVOTS = ("ours-w8a8", "ours-w4a8", "ours-w4a8-packed", "diffusers-bf16")
"""Ratios are given to each of these."""


def measure(settings: Contest, contenders: list[str]) -> dict[str, Any]:
    """Runs the contest; the result as in the JSON file."""
    output = CACHE / settings.shape / f"output-b{settings.batch}-s{settings.seed}"
    output.mkdir(parents=True, exist_ok=True)
    records = contest.run(settings, contenders, output, lambda event: stderr.print(event, style="dim"))
    return _result(settings, records, output)


def _result(settings: Contest, records: Records, output: Path) -> dict[str, Any]:
    ran = records.ran
    times = {name: contest.spread(record.every_round) for name, record in ran.items()}
    ratios = {f"{a}/{b}": contest.ratio(records, a, b) for a in ran for b in PIVOTS if b in ran and a != b}
    return {
        "question": "unet_step",
        "shape": settings.shape,
        "batch": settings.batch,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "date": today(),
        "machine": machine(settings.threads),
        "parameters": settings.parameters,
        "groups": records.groups,
        "median_s": {name: spread["median"] for name, spread in times.items()},
        "spread_s": {name: {"q25": spread["q25"], "q75": spread["q75"]} for name, spread in times.items()},
        "rounds_s": {name: record.every_round for name, record in ran.items()},
        "disturbance": {name: max(record.disturbance) for name, record in ran.items()},
        "ratio": {name: spread["median"] for name, spread in ratios.items()},
        "ratio_spread": {name: {"q25": spread["q25"], "q75": spread["q75"]} for name, spread in ratios.items()},
        "relative_rms_error": errors(output, list(ran)),
        "load_s": {name: record.ready["load_s"] for name, record in ran.items()},
        "resident_bytes": {name: record.resident["resident_bytes"] for name, record in ran.items()},
        "versions": {name: record.ready["versions"] for name, record in ran.items()},
        "notes": {name: record.ready["notes"] for name, record in ran.items() if record.ready["notes"]},
        "missing": records.missing,
    }


def errors(output: Path, contenders: list[str]) -> dict[str, float | None]:
    """Root mean square of the difference from the float32 output, by that of the float32 output."""
    reference = output / f"{REFERENCE}.safetensors"
    if not reference.exists():
        return dict.fromkeys(contenders)
    exact = load_file(reference)["noise"].double()
    found = {}
    for name in contenders:
        difference = load_file(output / f"{name}.safetensors")["noise"].double() - exact
        found[name] = float(difference.square().mean().sqrt() / exact.square().mean().sqrt())
    return found


def table(result: dict[str, Any]) -> Table:
    """The result for the eye."""
    shown = Table("contender", "seconds", "quartiles", "/ ours-w8a8", "relative error", "resident GB")
    shown.title = f"{result['shape']}, batch {result['batch']}, {result['rounds']} rounds"
    for name, seconds in sorted(result["median_s"].items(), key=lambda item: item[1]):
        spread, error = result["spread_s"][name], result["relative_rms_error"][name]
        to_ours = result["ratio"].get(f"{name}/ours-w8a8")
        shown.add_row(
            name,
            f"{seconds:.4f}",
            f"{spread['q25']:.4f} to {spread['q75']:.4f}",
            "" if to_ours is None else f"{to_ours:.2f}",
            "" if error is None else f"{error:.4f}",
            f"{result['resident_bytes'][name] / 1e9:.2f}",
        )
    return shown


def main(
    shape: Annotated[str, typer.Option(help=f"one of {', '.join(SHAPES)}")] = "sd-v1-4",
    batch: Annotated[int, typer.Option(min=1, help="latents in the step; 2 is one picture with guidance")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="times that every contender is measured")] = 7,
    contenders: Annotated[str, typer.Option(help="comma-separated; the first is in every group")] = ",".join(
        CONTENDERS
    ),
    threads: Annotated[int, typer.Option(min=1, help="threads of every contender")] = 2,
    seed: Annotated[int, typer.Option(help="of the inputs and of the order")] = 0,
    memory: Annotated[float, typer.Option(help="GB that contenders may fill together; 0: what is free")] = 0.0,
    option: Annotated[list[str] | None, typer.Option(help="for `load`, as in 'ours-*.dtype=\"float32\"'")] = None,
    lock: Lock = None,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure one step of a denoiser, every contender in its own process, in alternating rounds."""
    ensure_weights(SHAPES[shape])
    settings = Contest(
        shape=shape,
        batch=batch,
        rounds=rounds,
        threads=threads,
        seed=seed,
        memory=memory * 1e9 or 0.85 * available_bytes(),
        parameters=parameters(SHAPES[shape]),
        lock=lock,
        options={name: json.loads(value) for name, _, value in (each.partition("=") for each in option or [])},
    )
    result = measure(settings, contenders.split(","))
    if keep:
        save(result, f"unet_step-{shape}-b{batch}")
    if as_json:
        stdout.print_json(json.dumps(result))
    else:
        stdout.print(table(result))
        for reason in result["missing"].values():
            stdout.print(f"missing: {reason}", style="yellow")


if __name__ == "__main__":
    typer.run(main)
