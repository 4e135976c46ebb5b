"""From a complete payload to an accepted job, for whoever speaks to clients. Nothing here knows of HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from structlog.contextvars import bind_contextvars

from app.api_keys import ApiKey
from app.offer import Offer
from app.wake_up import TokenSender
from contract.job_store import AsyncJobStore
from contract.jobs import JobMessage, JobRecord
from contract.kinds import KINDS, JobKind
from contract.payloads import Payload
from contract.transitions import JobLimits, Submission, find, submit


@dataclass(frozen=True)
class Asker:
    """Who asks for a job, and the id of the request, which the logs of gateway and worker share."""

    key: ApiKey
    request_id: str


@dataclass(frozen=True)
class Idempotency:
    """What a repeated request is known by: a key that the client chose, and a digest of what it asked for."""

    key: str
    digest: str


@dataclass(frozen=True)
class AcceptedJob:
    """A job's record, and whether the job had been accepted before under the same idempotency key."""

    record: JobRecord
    replayed: bool


@dataclass(frozen=True)
class Acceptance:
    """Accepts jobs that the workers of one offer can do, each with its kind's limits, while fewer than `open_jobs` of
    its queue are open."""

    store: AsyncJobStore
    tokens: TokenSender
    offer: Offer
    limits: Callable[[JobKind], JobLimits]
    open_jobs: int

    async def accept(
        self, kind: JobKind, payload: Payload, asker: Asker, idempotency: Idempotency | None = None
    ) -> AcceptedJob:
        """The job that is accepted, or the one that was accepted before under the same idempotency key. A worker is
        woken for a new one.

        Raises Forbidden for a key without the kind's role, NoWorker where nobody serves its queue, AdmissionError where
        the store refuses the job, and StoreUnavailable."""
        asker.key.require(KINDS[kind].role)
        queue = KINDS[kind].line.queue(payload.model)
        self.offer.require(queue)
        submission = Submission(
            kind=kind,
            queue=queue,
            payload=payload,
            limits=self.limits(kind),
            owner=asker.key.owner,
            request_id=asker.request_id,
            idempotency=_scoped(asker.key.owner, kind, idempotency.key) if idempotency else "",
            body_hash=idempotency.digest if idempotency else "",
        )
        accepted = await self.store.run(submit(submission, open_jobs=self.open_jobs))
        bind_contextvars(job=accepted.id)
        if not accepted.replayed:
            self.tokens.send(JobMessage(job=accepted.id, queue=queue))
        return AcceptedJob(await self.store.run(find(accepted.id)), accepted.replayed)


def _scoped(owner: str, kind: JobKind, key: str) -> str:
    """A client's key as the store has it: of another owner or for another kind it is another one."""
    return hashlib.sha256(f"{owner}\n{kind}\n{key}".encode("utf-8", "surrogateescape")).hexdigest()
