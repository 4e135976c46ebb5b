"""Floors of the study: they do not depend on the arm, so the first one draws them and the others take them over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.methods.results import read_result
from benchmarks.methods.task import Protocol

Json = dict[str, Any]


@dataclass(frozen=True)
class Floors:
    """Figures by floor and prompt set, curves likewise, and the arm that drew them with."""

    figures: Json
    curves: Json
    drawn_with: str


def known_floors(folder: Path, protocol: Protocol) -> Floors | None:
    """The floors of a result in `folder` that was measured on the same pictures, those of its prompt sets; None where
    there is none."""
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        if result is None or not result.get("floors") or not _same_pictures(result.get("protocol", {}), protocol):
            continue
        return Floors(
            _of_sets(result["floors"], protocol),
            _of_sets(result["floor_curves"], protocol),
            result.get("floors_drawn_with", result["arm"]),
        )
    return None


def _same_pictures(drawn: Json, protocol: Protocol) -> bool:
    same = all(drawn.get(key) == getattr(protocol, key) for key in ("model", "limit", "seed"))
    return same and set(protocol.prompt_sets) <= set(drawn.get("prompt_sets", ()))


def _of_sets(by_floor: Json, protocol: Protocol) -> Json:
    return {
        name: {each: by_set[each] for each in protocol.prompt_sets if each in by_set}
        for name, by_set in by_floor.items()
    }
