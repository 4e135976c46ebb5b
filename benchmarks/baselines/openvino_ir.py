"""OpenVINO: the UNet converted directly, in bfloat16, or in int8 by NNCF's post-training quantization.

The int8 model is made with each of NNCF's model types, and the faster of the two is the contender."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor, nn

from benchmarks.contender import Loaded, Task
from benchmarks.shape import CACHE, inputs, load_unet

PACKAGES = ("openvino", "nncf")
CALIBRATION_SEEDS = (101, 102, 103, 104)
MODEL_TYPES = ("transformer", "default")
FLOAT, TRIAL = "float.xml", "int8.json"
TRIAL_STEPS = 5


class _Positional(nn.Module):
    """The UNet with plain tensors for arguments."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        text: Tensor,
        pooled: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> Tensor:
        """The predicted noise."""
        added = None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids}
        return self.unet(sample, timestep, text, added_cond_kwargs=added, return_dict=False)[0]


def prepare(task: Task) -> None:
    """Converts, and for int8 quantizes with both model types and times them. Option: `rebuild`, to do it all anew."""
    folder, rebuild = _folder(task), task.options.get("rebuild", False)
    if rebuild or not (folder / FLOAT).exists():
        _convert(task, folder / FLOAT)
    if task.options["precision"] == "bf16":
        return
    paths = {kind: folder / f"int8-{kind}.xml" for kind in MODEL_TYPES}
    for kind, path in paths.items():
        if rebuild or not path.exists():
            _quantize(task, folder / FLOAT, path, kind)
    if rebuild or not (folder / TRIAL).exists():
        seconds = {kind: _trial(path, task) for kind, path in paths.items()}
        (folder / TRIAL).write_text(json.dumps(seconds), encoding="utf-8")


def load(task: Task) -> Loaded:
    """Options: `precision`, "bf16" or "int8". Layers that NNCF leaves in floating point run in bfloat16."""
    folder = _folder(task)
    if task.options["precision"] == "bf16":
        return Loaded(_compile(folder / FLOAT, task), None, {"format": "float16 file, bfloat16 products"})
    seconds = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    fastest = min(seconds, key=seconds.get)
    notes = {"model_type": fastest, "trial_s": seconds}
    return Loaded(_compile(folder / f"int8-{fastest}.xml", task), None, notes)


def _folder(task: Task) -> Path:
    return CACHE / task.shape.name / f"openvino-b{task.batch}"


def _arguments(task: Task, seed: int) -> tuple[Tensor, ...]:
    named = inputs(task.shape, task.batch, seed)
    added = named.pop("added_cond_kwargs", {})
    return (named["sample"], named["timestep"], named["encoder_hidden_states"], *added.values())


def _convert(task: Task, path: Path) -> None:
    example = _arguments(task, task.seed)
    module = _Positional(load_unet(task.shape, torch.float32)).eval()
    shapes = [openvino.PartialShape(list(tensor.shape)) for tensor in example]
    model = openvino.convert_model(module, example_input=example, input=shapes)
    openvino.save_model(model, path, compress_to_fp16=True)


def _quantize(task: Task, plain: Path, path: Path, kind: str) -> None:
    os.environ["CI"] = "true"  # NNCF then sends no usage statistics
    import nncf

    def samples() -> Iterator[list[Any]]:
        for seed in CALIBRATION_SEEDS:
            yield [tensor.numpy() for tensor in _arguments(task, seed)]

    model = openvino.Core().read_model(plain)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(samples())),
        subset_size=len(CALIBRATION_SEEDS),
        model_type=nncf.ModelType.TRANSFORMER if kind == "transformer" else None,
    )
    openvino.save_model(quantized, path, compress_to_fp16=True)


def _compile(path: Path, task: Task) -> Callable[[], Tensor]:
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": task.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    arrays = [tensor.contiguous().numpy() for tensor in _arguments(task, task.seed)]

    def step() -> Tensor:
        results = request.infer(arrays, share_inputs=True, share_outputs=True)
        return torch.from_numpy(results[0])

    return step


def _trial(path: Path, task: Task) -> float:
    """Seconds of the fastest of a few steps."""
    step = _compile(path, task)
    return min(_timed(step) for _ in range(TRIAL_STEPS))


def _timed(step: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
