"""What workers say about themselves every few seconds, and what the queues look like. The gateway knows no names by
itself."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.call import Call
from contract.catalogue import Catalogue
from contract.faults import faults
from contract.identifier import Identifier

Written = TypeVar("Written", bound=BaseModel)
_log = logging.getLogger(__name__)

LIVE_SECONDS = 15.0
"""A worker that was silent for longer is not counted on."""

FORGET_SECONDS = 60.0
"""Jobs for a silent worker are still accepted for this long: it may only be restarting."""


class LoadedPipeline(BaseModel):
    """A pipeline in a worker's memory. `digest` is None for a reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Identifier
    variant: Identifier
    digest: str | None
    resident_bytes: int


class Announcement(BaseModel):
    """A worker: its release, the queues it serves, what its code offers, what it holds in memory. The catalogue travels
    beside it, once for all workers that offer the same; those of 0.1.0 wrote it into the announcement."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    worker: str
    release: str = "0.1.0"
    queues: tuple[str, ...]
    device: str
    catalogue: Catalogue
    loaded: tuple[LoadedPipeline, ...]
    unusable: tuple[Identifier, ...] = ()
    """Models that could not be loaded the last time; the worker tries again."""


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
class Roll:
    """The workers heard of within FORGET_SECONDS, and what was offered last, which outlives them."""

    heard: tuple[Heard, ...] = ()
    last: Catalogue | None = None

    @property
    def live(self) -> tuple[Announcement, ...]:
        """The workers that can be counted on."""
        return tuple(item.announcement for item in self.heard if item.live)

    @property
    def catalogue(self) -> Catalogue | None:
        """All that live workers offer, or, while none is live, what was offered last. None: nothing ever was."""
        latest = [item.announcement.catalogue for item in sorted(self.heard, key=lambda item: item.age)]
        catalogues = [announcement.catalogue for announcement in self.live] or latest[:1]
        return _union(catalogues) if catalogues else self.last

    def serves(self, queue: str) -> bool:
        """Whether a worker that was heard of serves a queue."""
        return any(queue in item.announcement.queues for item in self.heard)


@dataclass(frozen=True)
class Queue:
    """Waiting jobs of one queue, and the age in seconds of the one that waits longest."""

    name: str
    depth: int
    oldest_age: float


@dataclass(frozen=True)
class Census:
    """Open jobs, totals since the data set began (such as `finished:generation:failed`), the queues, and the bytes that
    the broker uses and may use at most (0: no bound)."""

    open_jobs: int
    counts: dict[str, int]
    queues: tuple[Queue, ...]
    memory_bytes: int = 0
    most_memory_bytes: int = 0


def announce(announcement: Announcement) -> Call[str]:
    """A worker's heartbeat."""
    catalogue = announcement.catalogue.model_dump_json()
    arguments = {
        "worker": announcement.worker,
        "announcement": announcement.model_dump_json(exclude={"catalogue"}),
        "digest": hashlib.sha256(catalogue.encode()).hexdigest(),
        "catalogue": catalogue,
    }
    return Call("announce", arguments, str)


class RollCall:
    """Asks for what the workers announced, and reads every catalogue once. Each announcement is read for itself: one
    of a release that this one cannot read is logged and left out, and so are fields that this release does not know."""

    def __init__(self) -> None:
        self._catalogues: dict[str, Catalogue | None] = {}

    def call(self) -> Call[Roll]:
        """What every worker last announced."""
        arguments = {"forget_seconds": FORGET_SECONDS, "known": [digest for digest in self._catalogues if digest]}
        return Call("announcements", arguments, self._read)

    def _read(self, reply: tuple[list[list[str]], list[list[str]], str]) -> Roll:
        heard, catalogues, offered = reply
        for digest, text in catalogues:
            self._catalogues[digest] = _readable(Catalogue, text)
        used = {offered, *(digest for _, _, digest in heard)}
        self._catalogues = {digest: each for digest, each in self._catalogues.items() if digest in used}
        read = ((float(age), self._announcement(text, digest)) for age, text, digest in heard)
        return Roll(
            tuple(Heard(announcement, age) for age, announcement in read if announcement is not None),
            self._catalogues.get(offered),
        )

    def _announcement(self, text: str, digest: str) -> Announcement | None:
        if not digest:
            return _readable(Announcement, text)
        catalogue = self._catalogues.get(digest)
        said = _readable(_Said, text)
        if said is None or catalogue is None:
            return None
        return Announcement.model_construct(**dict(said), catalogue=catalogue)


class _Said(BaseModel):
    """An announcement as it is written: without the catalogue."""

    worker: str
    release: str
    queues: tuple[str, ...]
    device: str
    loaded: tuple[LoadedPipeline, ...]
    unusable: tuple[Identifier, ...] = ()


@lru_cache(maxsize=256)
def _readable(kind: type[Written], text: str) -> Written | None:
    try:
        return kind.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        _log.warning("announced by another release, and left out: %s", faults(error)[:300])
        return None


def census() -> Call[Census]:
    """Figures of the queue."""
    return Call("census", {}, _read_census)


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


def _read_census(reply: list[Any]) -> Census:
    open_jobs, counts, (used, most), *queues = reply
    totals = {name: int(total) for name, total in zip(counts[::2], counts[1::2], strict=True)}
    waiting = tuple(Queue(name, int(depth), float(age)) for name, depth, age in queues)
    return Census(open_jobs, totals, waiting, used, most)
