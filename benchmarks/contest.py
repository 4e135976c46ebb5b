"""Alternating rounds: every contender in a process of its own, all measured in turn, so that noise hits all alike.

Contenders that do not fit into memory together run in groups; the first contender, the anchor, is in every group, and
contenders of different groups are compared through it."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.contender import CONTENDERS, Contender
from benchmarks.disturbance import disturbance, now
from benchmarks.machine import turn
from benchmarks.process import ContenderError, Process, interpreter

T = TypeVar("T")

ROUND_SECONDS = 0.5
MAX_REPEAT = 20
WARM_UP_STEPS = 2
ATTEMPTS = 4
TOLERATED = 0.05
"""Share of the machine that others may take while a step is timed."""


@dataclass(frozen=True)
class Contest:
    """What to run: the shape's name, latents in a batch, rounds, threads, the seed of inputs and order, memory in
    bytes that contenders may fill together, a lock file for turns on a shared machine, and options for `load` by
    `<pattern>.<name>`."""

    shape: str
    batch: int
    rounds: int
    threads: int
    seed: int
    memory: float
    parameters: int
    lock: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Record:
    """What was seen of one contender: seconds per step, one figure a round, by group; the share of the machine
    that others took in each round; answers of its process."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    disturbance: list[float] = field(default_factory=list)
    ready: dict[str, Any] = field(default_factory=dict)
    resident: dict[str, Any] = field(default_factory=dict)

    @property
    def every_round(self) -> list[float]:
        """Seconds of all rounds of all groups."""
        return [value for values in self.seconds.values() for value in values]


@dataclass
class Records:
    """All contenders that ran, in the order given, and the others with the reason."""

    ran: dict[str, Record] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)


def run(contest: Contest, contenders: Sequence[str], output: Path, on_event: Callable[[str], None]) -> Records:
    """Runs all groups; the output of each contender is written to `output` / <name>.safetensors."""
    records = Records()
    present = []
    for name in contenders:
        try:
            interpreter(name)
            present.append(name)
        except ContenderError as error:
            records.missing[name] = str(error)
    for number, names in enumerate(groups(present, contest.parameters, contest.memory)):
        records.groups.append(names)
        _run_group(contest, number, names, output, records, on_event)
    records.ran = {name: records.ran[name] for name in contenders if name in records.ran}
    return records


def prepare(contender: Contender, task: Mapping[str, Any], lock: Path | None = None) -> None:
    """Lets a contender make its files, in a process that then ends, so that its memory is not that of the making."""
    if contender.prepares:
        with Process(contender.name, task["threads"]) as process, turn(lock):
            process.ask("prepare", **task)


def options_of(contender: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `<pattern>.<name>: value` whose fnmatch pattern fits the contender, by name."""
    split = {key.rpartition("."): value for key, value in options.items()}
    return {name: value for (pattern, _, name), value in split.items() if fnmatchcase(contender, pattern)}


def groups(contenders: Sequence[str], parameters: int, memory: float) -> list[list[str]]:
    """Splits the contenders, in their order, so that each group is expected to fit into `memory` bytes; the first
    contender is in every group, and a group has at least one other."""
    if not contenders:
        return []

    def size(name: str) -> float:
        return CONTENDERS[name].bytes_per_parameter * parameters

    anchor, found = contenders[0], [[contenders[0]]]
    for name in contenders[1:]:
        taken = sum(map(size, found[-1]))
        if len(found[-1]) > 1 and taken + size(name) > memory:
            found.append([anchor])
        found[-1].append(name)
    return found


def ratio(records: Records, a: str, b: str) -> dict[str, float]:
    """Seconds of `a` by seconds of `b`: the median over rounds and the quartiles.

    Contenders that never were in one group are compared through the anchor, with the widest quartiles possible."""
    first, second = records.ran[a].seconds, records.ran[b].seconds
    both = sorted(first.keys() & second.keys())
    if both:
        return spread([x / y for group in both for x, y in zip(first[group], second[group], strict=True)])
    anchor = records.groups[0][0]
    above, below = ratio(records, a, anchor), ratio(records, b, anchor)
    return {
        "median": above["median"] / below["median"],
        "q25": above["q25"] / below["q75"],
        "q75": above["q75"] / below["q25"],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return {"median": values[0], "q25": values[0], "q75": values[0]}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q25": low, "q75": high}


def _run_group(
    contest: Contest, number: int, names: list[str], output: Path, records: Records, on_event: Callable[[str], None]
) -> None:
    with ExitStack() as stack:
        alive: dict[str, Process] = {}
        repeats: dict[str, int] = {}
        for name in names:
            process = stack.enter_context(Process(name, contest.threads))
            try:
                prepare(CONTENDERS[name], _task(contest, name), contest.lock)
                with turn(contest.lock):
                    repeats[name] = _start(contest, name, process, output, records)
                alive[name] = process
                on_event(f"{name}: ready in {records.ran[name].ready['load_s']:.1f} s")
            except ContenderError as error:
                records.missing[name] = str(error)
                process.close()
                on_event(str(error))
        order = random.Random(contest.seed + number)
        for done in range(contest.rounds):
            shuffled = order.sample(list(alive), len(alive))
            with turn(contest.lock):
                for name in shuffled:
                    step = partial(alive[name].ask, "step", repeat=repeats[name])
                    answer, others = undisturbed(alive[name].pid, step)
                    records.ran[name].seconds.setdefault(number, []).append(statistics.median(answer["seconds"]))
                    records.ran[name].disturbance.append(others)
            on_event(f"round {done + 1} of {contest.rounds}, group {number + 1}")
        for name, process in alive.items():
            records.ran[name].resident |= process.ask("resident")


def _task(contest: Contest, name: str) -> dict[str, Any]:
    return {
        "contender": name,
        "shape": contest.shape,
        "batch": contest.batch,
        "seed": contest.seed,
        "threads": contest.threads,
        **options_of(name, contest.options),
    }


def undisturbed(pid: int, measure: Callable[[], T]) -> tuple[T, float]:
    """What `measure` returns, and the share of the machine that others than the process `pid` took meanwhile. While
    they take too much, it is measured again, a few times; the least disturbed counts."""
    trials = []
    for _ in range(ATTEMPTS):
        before = now(pid)
        found = measure()
        trials.append((found, disturbance(before, now(pid))))
        if trials[-1][1] <= TOLERATED:
            break
    return min(trials, key=lambda trial: trial[1])


def _start(contest: Contest, name: str, process: Process, output: Path, records: Records) -> int:
    """Loads, writes the output, warms up; returns how many steps make one round."""
    ready = process.ask("load", **_task(contest, name))
    process.ask("output", path=str(output / f"{name}.safetensors"))
    first = process.ask("resident")
    seconds = process.ask("step", repeat=WARM_UP_STEPS)["seconds"]
    record = records.ran.setdefault(name, Record())
    record.ready, record.resident = ready, {"after_first_step_bytes": first["resident_bytes"]}
    return max(1, min(MAX_REPEAT, round(ROUND_SECONDS / min(seconds))))
