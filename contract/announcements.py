"""What workers say about themselves every few seconds, and what the queues look like. The gateway knows no names by
itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from contract.call import Call
from contract.card import Identifier
from contract.catalogue import Catalogue

LIVE_SECONDS = 15.0
"""A worker that was silent for longer is not counted on."""

FORGET_SECONDS = 86_400.0
"""What a silent worker offered is still accepted as a job for this long: it may only be restarting."""


class LoadedPipeline(BaseModel):
    """A pipeline in a worker's memory. `digest` is None for a reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Identifier
    variant: Identifier
    digest: str | None
    resident_bytes: int


class Announcement(BaseModel):
    """A worker: the queues it serves, what its code offers, what it holds in memory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: str
    queues: tuple[str, ...]
    device: str
    catalogue: Catalogue
    loaded: tuple[LoadedPipeline, ...]


@dataclass(frozen=True)
class Heard:
    """An announcement and the seconds since."""

    announcement: Announcement
    age: float

    @property
    def live(self) -> bool:
        """Whether the worker can be counted on."""
        return self.age < LIVE_SECONDS


@dataclass(frozen=True)
class Queue:
    """Waiting jobs of one queue, and the age in seconds of the one that waits longest."""

    name: str
    depth: int
    oldest_age: float


@dataclass(frozen=True)
class Census:
    """Open jobs, totals since the data set began (such as `finished:generation:failed`), and the queues."""

    open_jobs: int
    counts: dict[str, int]
    queues: tuple[Queue, ...]


def announce(announcement: Announcement) -> Call[str]:
    """A worker's heartbeat."""
    return Call("announce", {"worker": announcement.worker, "announcement": announcement.model_dump_json()}, str)


def announcements() -> Call[list[Heard]]:
    """What every worker last announced."""
    return Call("announcements", {"forget_seconds": FORGET_SECONDS}, _read_announcements)


def census() -> Call[Census]:
    """Figures of the queue."""
    return Call("census", {}, _read_census)


def offered(heard: Sequence[Heard]) -> Catalogue | None:
    """All that live workers offer, or, while none is live, what was offered last. None: no worker was ever heard."""
    latest = [item.announcement.catalogue for item in sorted(heard, key=lambda item: item.age)]
    catalogues = [item.announcement.catalogue for item in heard if item.live] or latest[:1]
    return _union(catalogues) if catalogues else None


def _union(catalogues: list[Catalogue]) -> Catalogue:
    first, *others = catalogues
    for other in others:
        if other != first:
            names = {
                name: tuple(dict.fromkeys((*getattr(first, name), *getattr(other, name))))
                for name in ("families", "metrics", "schedulers", "prompt_sets")
            }
            tables = {
                name: {**getattr(first, name), **getattr(other, name)} for name in ("models", "methods", "presets")
            }
            first = Catalogue.model_validate({**names, **tables})
    return first


def _read_announcements(reply: list[list[str]]) -> list[Heard]:
    return [Heard(Announcement.model_validate_json(text), float(age)) for age, text in reply]


def _read_census(reply: list[Any]) -> Census:
    open_jobs, counts, *queues = reply
    totals = {name: int(total) for name, total in zip(counts[::2], counts[1::2], strict=True)}
    return Census(open_jobs, totals, tuple(Queue(name, int(depth), float(age)) for name, depth, age in queues))
