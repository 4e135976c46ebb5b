"""The process of one contender: answers JSON lines on standard input with JSON lines on standard output.

`prepare` makes its files, `load` builds it, `step` times forward passes, `output` writes the predicted noise, `profile`
says which operators took how long, `resident` gives the memory now, `quit` ends. Whatever libraries print goes to
standard error."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.contender import CONTENDERS, Loaded, Task
from benchmarks.shape import SHAPES

PACKAGES = ("torch", "diffusers", "openvino", "nncf", "torchao", "sdnq", "optimum-quanto")
SETTLE_SECONDS = 0.02
"""Rest after a step before answering, so that threads which spin for more work have gone to sleep."""


class Runner:
    """Answers one command after the other; every answer is a JSON object."""

    def __init__(self) -> None:
        self._loaded: Loaded | None = None

    def prepare(self, **request: Any) -> dict[str, Any]:
        """Lets a contender make its files; takes what `load` takes."""
        module, task = _module_and_task(**request)
        started = time.perf_counter()
        with torch.no_grad():
            module.prepare(task)
        return {"prepare_s": time.perf_counter() - started}

    def load(self, **request: Any) -> dict[str, Any]:
        """Builds a contender, from the keys contender, shape, batch, seed, threads and options of its own; answers with
        seconds, resident bytes before and after, versions and notes."""
        module, task = _module_and_task(**request)
        before, started = resident_bytes(), time.perf_counter()
        with torch.no_grad():
            self._loaded = module.load(task)
        return {
            "load_s": time.perf_counter() - started,
            "resident_before": before,
            "resident_bytes": resident_bytes(),
            "versions": _versions(module),
            "notes": dict(self._loaded.notes),
        }

    def step(self, repeat: int = 1) -> dict[str, Any]:
        """Seconds of `repeat` forward passes, one by one."""
        seconds = []
        for _ in range(repeat):
            started = time.perf_counter()
            self._forward()
            seconds.append(time.perf_counter() - started)
        time.sleep(SETTLE_SECONDS)
        return {"seconds": seconds}

    def output(self, path: str) -> dict[str, Any]:
        """Writes the predicted noise, float32, to a safetensors file."""
        save_file({"noise": self._forward().float().contiguous()}, path)
        return {"path": path}

    def profile(self, repeat: int = 3) -> dict[str, Any]:
        """Microseconds of each operator itself (without those it calls) per forward pass, of torch's operators only."""
        self._forward()
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(repeat):
                self._forward()
        return {"operators": {e.key: e.self_cpu_time_total / repeat for e in recorded.key_averages()}}

    def resident(self) -> dict[str, Any]:
        """Resident bytes now and at most so far, and bytes of the tensors that the contender's module holds."""
        module = self._loaded.module if self._loaded else None
        return {
            "resident_bytes": resident_bytes(),
            "peak_bytes": resident_bytes("VmHWM"),
            "tensor_bytes": None if module is None else tensor_bytes(module),
        }

    def _forward(self) -> Tensor:
        if self._loaded is None:
            raise RuntimeError("nothing is loaded: send `load` first")
        with torch.no_grad():
            return self._loaded.step()


def _module_and_task(
    contender: str, shape: str, batch: int, seed: int, threads: int, **options: Any
) -> tuple[Any, Task]:
    torch.set_num_threads(threads)
    entry = CONTENDERS[contender]
    task = Task(SHAPES[shape], batch, seed, threads, {**entry.options, **options})
    return importlib.import_module(entry.module), task


def resident_bytes(field: str = "VmRSS") -> int:
    """Memory of this process that is in RAM, in bytes; the field `VmHWM` is its maximum."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def tensor_bytes(module: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers, and of the weights that kernels keep instead of them."""
    held = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in _plain(module)}
    return sum(held.values()) + sum(getattr(part, "kernel_bytes", 0) for part in module.modules())


def _plain(module: torch.nn.Module) -> list[Tensor]:
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if not tensor.is_mkldnn]


def _versions(module: Any) -> dict[str, str]:
    names = (*PACKAGES[:2], *getattr(module, "PACKAGES", ()))
    return {name: importlib.metadata.version(name) for name in names}


def main() -> None:
    """Serves until `quit` or the end of standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    diffusers_logging.disable_progress_bar()
    runner = Runner()
    for line in sys.stdin:
        request = json.loads(line)
        command = request.pop("command")
        if command == "quit":
            return
        try:
            answer = getattr(runner, command)(**request)
        except Exception as error:  # whatever a rival raises is an answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
