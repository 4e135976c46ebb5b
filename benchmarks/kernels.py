"""How near to the machine's peak do the integer products run, at the layer sizes of SD v1-4?

`python -m benchmarks.kernels --save`"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from benchmarks.contest import spread, undisturbed
from benchmarks.frequency import frequency
from benchmarks.machine import machine, today, turn
from benchmarks.result import AsJson, Keep, Lock, save, stdout
from quant.engine.engine import Operands, Window
from quant.engine.selection import default_engine
from quant.quantizers.activation import ActivationParameters, ActivationTable

LARGE = (1024, 2048, 4096)
"""Rows, inner size and columns of the products that show, with the layers, what is attainable."""

OPERATIONS_PER_CYCLE = {"amx_int8": 2048, "avx512_vnni": 256}
"""Int8 multiplications and additions of one core: a tile instruction multiplies 16 x 64 by 64 x 16 codes in 16 cycles;
a 512-bit VNNI instruction multiplies 64 pairs, and two are issued in a cycle."""


@dataclass(frozen=True)
class Layer:
    """A layer at batch 2: `side` 0 is linear with `rows` tokens, else a convolution of side x side pictures."""

    inputs: int
    outputs: int
    side: int = 0
    rows: int = 0
    kernel: int = 1

    @property
    def name(self) -> str:
        """As in tables."""
        if self.side:
            return f"conv {self.kernel}x{self.kernel} {self.inputs}-{self.outputs} at {self.side}x{self.side}"
        return f"linear {self.inputs}-{self.outputs}, {self.rows} tokens"

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        rows = 2 * self.side**2 if self.side else self.rows
        return 2 * rows * self.kernel**2 * self.inputs * self.outputs

    def moved(self, code_bytes: int, output_bytes: int = 2) -> int:
        """Bytes that must be moved at least: input, weight and output, each once."""
        rows = 2 * self.side**2 if self.side else self.rows
        weight = self.kernel**2 * self.inputs * self.outputs
        return code_bytes * (rows * self.inputs + weight) + output_bytes * rows * self.outputs


LAYERS = (
    Layer(320, 320, side=64, kernel=3),
    Layer(960, 320, side=64, kernel=3),
    Layer(640, 640, side=32, kernel=3),
    Layer(1280, 640, side=32, kernel=3),
    Layer(1280, 1280, side=16, kernel=3),
    Layer(2560, 1280, side=16, kernel=3),
    Layer(1280, 1280, side=8, kernel=3),
    Layer(320, 320, side=64),
    Layer(320, 320, rows=8192),
    Layer(320, 2560, rows=8192),
    Layer(1280, 320, rows=8192),
    Layer(640, 5120, rows=2048),
    Layer(2560, 640, rows=2048),
    Layer(1280, 10240, rows=512),
    Layer(5120, 1280, rows=512),
    Layer(768, 320, rows=154),
)


def measure(rounds: int, threads: int, lock: Path | None) -> dict[str, Any]:
    """All layers, the peaks and the bandwidth; the result as in the JSON file."""
    torch.set_num_threads(threads)
    facts = machine(threads)
    with turn(lock):
        clock, bandwidth = frequency(), _bandwidth(rounds)
    times: dict[Layer, dict[str, list[float]]] = {}
    others: dict[str, float] = {}
    for layer in (*LAYERS, *(Layer(size, size, rows=size) for size in LARGE)):
        with turn(lock):
            times[layer], others[layer.name] = undisturbed(os.getpid(), partial(_compare, layer, rounds))
    peak = {
        kind: max(layer.operations / min(seconds[kind]) for layer, seconds in times.items())
        for kind in ("int8", "bf16")
    }
    per_cycle = next((n for flag, n in OPERATIONS_PER_CYCLE.items() if flag in facts["flags"]), None)
    return {
        "question": "kernels",
        "rounds": rounds,
        "date": today(),
        "machine": facts,
        "versions": {"torch": str(torch.__version__)},
        "disturbance": max(others.values()),
        "clock_hz": clock,
        "bandwidth_bytes_per_s": bandwidth,
        "attainable_operations_per_s": peak,
        "theoretical_int8_operations_per_s": None if per_cycle is None else per_cycle * clock * threads,
        "layers": {layer.name: _row(layer, seconds, peak) for layer, seconds in times.items()},
    }


def _row(layer: Layer, seconds: dict[str, list[float]], peak: dict[str, float]) -> dict[str, Any]:
    found = {kind: spread(values) for kind, values in seconds.items()}
    speed = {kind: layer.operations / value["median"] for kind, value in found.items()}
    return {
        "operations": layer.operations,
        "bytes": {"int8": layer.moved(1), "bf16": layer.moved(2)},
        "seconds": found,
        "operations_per_s": speed,
        "of_attainable": {kind: value / peak[kind] for kind, value in speed.items()},
    }


def _compare(layer: Layer, rounds: int) -> dict[str, list[float]]:
    """Seconds of the int8 kernel and of torch's bfloat16 layer, in shuffled rounds."""
    calls = {"int8": _integer(layer), "bf16": _bfloat16(layer)}
    order = random.Random(0)
    seconds: dict[str, list[float]] = {kind: [] for kind in calls}
    with torch.no_grad():
        for call in calls.values():
            call(), call()
        for _ in range(rounds):
            for kind in order.sample(list(calls), len(calls)):
                seconds[kind].append(_timed(calls[kind]))
    return seconds


def _integer(layer: Layer) -> Callable[[], Tensor]:
    """The default engine's kernel on codes, padded as the engine wants them, to bfloat16."""
    generator = torch.Generator().manual_seed(0)
    shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel) if layer.side else (layer.outputs, layer.inputs)
    codes = torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
    table = ActivationTable((ActivationParameters(0.02, 117),))
    operands = Operands(codes, torch.full((layer.outputs,), 0.01), torch.zeros(layer.outputs), table)
    if not layer.side:
        tokens = torch.randint(0, 256, (layer.rows, layer.inputs), generator=generator).to(torch.uint8)
        linear = default_engine().linear(operands)
        return lambda: linear(tokens, 0, torch.bfloat16)
    frame = layer.kernel // 2
    side = layer.side + 2 * frame
    picture = torch.randint(0, 256, (2, layer.inputs, side, side), generator=generator).to(torch.uint8)
    picture = picture.contiguous(memory_format=torch.channels_last)
    conv = default_engine().conv2d(operands, Window(padding=(frame, frame)))
    return lambda: conv(picture, 0, torch.bfloat16)


def _bfloat16(layer: Layer) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    bias = torch.zeros(layer.outputs, dtype=torch.bfloat16)
    if not layer.side:
        tokens = torch.randn(layer.rows, layer.inputs, generator=generator).bfloat16()
        matrix = torch.randn(layer.outputs, layer.inputs, generator=generator).bfloat16()
        return lambda: functional.linear(tokens, matrix, bias)
    shape = (2, layer.inputs, layer.side, layer.side)
    picture = torch.randn(shape, generator=generator).bfloat16().contiguous(memory_format=torch.channels_last)
    window = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
    weight = torch.randn(window, generator=generator).bfloat16().contiguous(memory_format=torch.channels_last)
    return lambda: functional.conv2d(picture, weight, bias, padding=layer.kernel // 2)


def _bandwidth(rounds: int) -> float:
    """Bytes read per second by a sum over more memory than the caches hold."""
    numbers = torch.ones(2**28)
    numbers.sum()
    return numbers.numel() * numbers.element_size() / min(_timed(numbers.sum) for _ in range(rounds))


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main(
    rounds: Annotated[int, typer.Option(min=1, help="times that every layer is measured")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    lock: Lock = None,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure single layers against the machine's peak."""
    result = measure(rounds, threads, lock)
    if keep:
        save(result, "kernels")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    peak = result["attainable_operations_per_s"]
    table = Table("layer", "int8 ms", "int8 Top/s", "of attainable", "bf16 ms", "bf16 / int8")
    table.title = f"attainable: int8 {peak['int8'] / 1e12:.2f} Top/s, bf16 {peak['bf16'] / 1e12:.2f} Top/s"
    for name, row in result["layers"].items():
        integer, bfloat = row["seconds"]["int8"]["median"], row["seconds"]["bf16"]["median"]
        speed, share = row["operations_per_s"]["int8"] / 1e12, row["of_attainable"]["int8"]
        table.add_row(
            name,
            f"{1e3 * integer:.2f}",
            f"{speed:.2f}",
            f"{share:.0%}",
            f"{1e3 * bfloat:.2f}",
            f"{bfloat / integer:.2f}",
        )
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
