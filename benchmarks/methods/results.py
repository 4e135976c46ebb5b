"""The results that exist, held against the arms as they are now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.methods.arms import Arm, sames
from benchmarks.methods.task import Protocol

Json = dict[str, Any]


class State(StrEnum):
    """Where an arm stands: measured; measured, but as it was before; not measured; or without a recipe."""

    FINISHED = "finished"
    STALE = "stale"
    WAITING = "waiting"
    MISSING = "missing"


@dataclass(frozen=True)
class Standing:
    """An arm, its state and why, its result where there is one, and the arm that is run in its place."""

    arm: Arm
    state: State
    reason: str = ""
    result: Json | None = None
    same_as: str | None = None


def standings(arms: Iterable[Arm], folder: Path, protocol: Protocol) -> dict[str, Standing]:
    """Every arm by name, in order."""
    every = list(arms)
    same = sames(every)
    return {arm.name: _standing(arm, same.get(arm.name), folder, protocol) for arm in every}


def current(standing: Mapping[str, Standing]) -> dict[str, Json]:
    """The results that are of the arms as they are now."""
    return {name: s.result for name, s in standing.items() if s.state is State.FINISHED and s.result is not None}


def read_result(path: Path) -> Json | None:
    """A result, None where there is none that can be read."""
    try:
        result: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result


def _standing(arm: Arm, same: str | None, folder: Path, protocol: Protocol) -> Standing:
    result = read_result(folder / f"{same or arm.name}.json")
    if arm.fault is not None:
        return Standing(arm, State.MISSING, arm.fault, result)
    if result is None:
        return Standing(arm, State.WAITING, same_as=same)
    protocol = protocol.of(result.get("group"))
    if same is not None:
        result |= {"arm": arm.name, "preset": arm.preset, "bits": arm.bits, "group": arm.group}
    reason = _changed(arm, result, protocol)
    return Standing(arm, State.STALE if reason else State.FINISHED, reason, result, same)


def _changed(arm: Arm, result: Json, protocol: Protocol) -> str:
    """What is not as it was when the result was made."""
    if result.get("identity") != arm.identity:
        return f"the recipe has changed: {', '.join(_differences(arm, result)) or 'something of it'}"
    now, then = protocol.model_dump(mode="json"), result.get("protocol", {})
    return ", ".join(f"{key} was {then.get(key)}, is {now[key]}" for key in now if now[key] != then.get(key))


def _differences(arm: Arm, result: Json) -> list[str]:
    if arm.recipe is None or arm.stages is None:
        return []
    recipe = arm.recipe.model_dump(mode="json", exclude={"stages"})
    stages = arm.stages.model_dump(mode="json")
    before, before_stages = result.get("recipe", {}), result.get("stages", {})
    return [key for key in recipe if recipe[key] != before.get(key)] + [
        f"stages.{key}" for key in stages if stages[key] != before_stages.get(key)
    ]
