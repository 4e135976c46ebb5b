"""A resumable training loop: AdamW, warm-up and cosine decay, averaged weights, a curve on disk."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. `ema_decay` 0 keeps no average."""

    iterations: int
    learning_rate: float
    warmup: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.0
    save_every: int = 250
    seed: int = 0

    def rate(self, iteration: int) -> float:
        """The learning rate at `iteration`: linear warm-up, then a half cosine down to 1 % of the peak."""
        if iteration < self.warmup:
            return self.learning_rate * (iteration + 1) / self.warmup
        done = (iteration - self.warmup) / max(1, self.iterations - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))


def train(model: Model, loss: Callable[[torch.Generator], Tensor], schedule: Schedule, folder: Path) -> Model:
    """Minimises `loss(generator)` over the parameters of `model` and returns the averaged model (or `model` itself).

    Every iteration gets a generator seeded by (seed, iteration), so a run that was killed and started again goes on
    as if nothing had happened. `folder` keeps the state and `curve.jsonl` (iteration, loss, rate, seconds)."""
    folder.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(model) if schedule.ema_decay else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.99), fused=True
    )
    state_file = folder / "state.pt"
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["iteration"]

    def save(iteration: int) -> None:
        weights = {"model": model.state_dict(), "average": average.state_dict()}
        unfinished = state_file.with_suffix(".partial")
        torch.save(weights | {"iteration": iteration, "optimizer": optimizer.state_dict()}, unfinished)
        unfinished.replace(state_file)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, (folder / "curve.jsonl").open("a") as curve:
        bar = progress.add_task(folder.name, total=schedule.iterations, completed=start)
        recent, since = [], time.monotonic()
        for iteration in range(start, schedule.iterations):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(iteration)
            generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + iteration)
            value = loss(generator)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if schedule.ema_decay:
                _average(average, model, min(schedule.ema_decay, (1 + iteration) / (10 + iteration)))
            recent.append(value.item())
            progress.update(bar, advance=1, description=f"{folder.name} loss {recent[-1]:.4f}")
            if (iteration + 1) % 50 == 0:
                seconds = (time.monotonic() - since) / len(recent)
                row = {"iteration": iteration + 1, "loss": sum(recent) / len(recent), "rate": schedule.rate(iteration)}
                curve.write(json.dumps(row | {"seconds_per_iteration": round(seconds, 4)}) + "\n")
                curve.flush()
                recent, since = [], time.monotonic()
            if (iteration + 1) % schedule.save_every == 0 or iteration + 1 == schedule.iterations:
                save(iteration + 1)
    return average


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1.0 - decay)
    for buffer, newest in zip(average.buffers(), model.buffers(), strict=True):
        buffer.copy_(newest)
