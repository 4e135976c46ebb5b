"""Which arms to run, and running them one after the other, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks.methods.ablation import recipe_json
from benchmarks.methods.arms import Arm
from benchmarks.methods.process import ArmFailed
from benchmarks.methods.results import Standing, State
from benchmarks.methods.task import Places, Protocol, Task

Launch = Callable[[Task], None]
"""Measures an arm and returns when its result is written. Raises ArmFailed."""


@dataclass(frozen=True)
class Plan:
    """The arms to run, in order, and those asked for that are not, by name with the reason."""

    todo: tuple[Arm, ...]
    finished: tuple[str, ...]
    stale: Mapping[str, str]
    missing: Mapping[str, str]
    same: Mapping[str, str]


def plan(standing: Mapping[str, Standing], patterns: Sequence[str], *, renew: bool) -> Plan:
    """What is left to do of the arms that fit a pattern: without patterns all, presets first; else pattern after
    pattern. Stale results are made anew where `renew` says so."""
    chosen = _chosen(list(standing), patterns)
    run = list(dict.fromkeys(standing[name].same_as or name for name in chosen))
    due = {State.WAITING, State.STALE} if renew else {State.WAITING}
    return Plan(
        todo=tuple(standing[name].arm for name in run if standing[name].state in due),
        finished=tuple(name for name in run if standing[name].state is State.FINISHED),
        stale={} if renew else _reasons(standing, run, State.STALE),
        missing=_reasons(standing, run, State.MISSING),
        same={name: other for name in chosen if (other := standing[name].same_as)},
    )


def conduct(tasks: Sequence[Task], launch: Launch, on_arm: Callable[[int, Task], None]) -> dict[str, str]:
    """Measures arm after arm; returns why some gave no result. `on_arm` gets how many are done and the next."""
    failures: dict[str, str] = {}
    for done, task in enumerate(tasks):
        on_arm(done, task)
        try:
            launch(task)
        except ArmFailed as error:
            failures[task.arm] = str(error)
    return failures


def task_of(arm: Arm, protocol: Protocol, places: Places, *, drop: bool) -> Task:
    """What the process of an arm is told. The arm must have a recipe."""
    if arm.recipe is None or arm.stages is None:
        raise ValueError(f"{arm.name} cannot be run: {arm.fault}")
    return Task(
        arm=arm.name,
        preset=arm.preset,
        bits=arm.bits,
        group=arm.group,
        recipe=recipe_json(arm.recipe),
        stages=arm.stages.model_dump(mode="json"),
        protocol=protocol.of(arm.group),
        places=places,
        drop=drop,
    )


def _chosen(names: list[str], patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return names
    return list(dict.fromkeys(name for pattern in patterns for name in names if fnmatchcase(name, pattern)))


def _reasons(standing: Mapping[str, Standing], names: list[str], state: State) -> dict[str, str]:
    return {name: standing[name].reason for name in names if standing[name].state is state}
