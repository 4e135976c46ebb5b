"""From a complete payload to an accepted job, and the answer that says so."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars

from app.answers import JobAnswer, job_answer, job_url
from app.api_keys import ApiKey, Holder
from app.services import Offer, Offered, Services, services_of
from app.waiting import preferred_wait, wait_for
from contract.jobs import JobMessage, JobRecord
from contract.kinds import KINDS, JobKind
from contract.payloads import Payload
from contract.transitions import Submission, find, submit

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]
Prefer = Annotated[str | None, Header(description="`wait=N`: answer when the job has ended, at most N <= 60 seconds")]


@dataclass(frozen=True)
class Submitter:
    """Accepts a job for one request."""

    _request: Request
    _response: Response
    _key: ApiKey
    _offer: Offer
    _idempotency_key: str | None

    @property
    def _services(self) -> Services:
        return services_of(self._request)

    async def accept(self, kind: JobKind, body: BaseModel, payload: Payload) -> JobAnswer:
        """Accept the job, or find the one that was accepted before with the same key; then wait if that is preferred.
        Raises Forbidden, AdmissionError, NoWorker and StoreUnavailable."""
        services = self._services
        self._key.require(KINDS[kind].role)
        submission = self._submission(kind, body, payload)
        self._offer.require(submission.queue)
        accepted = await services.store.run(submit(submission, open_jobs=services.settings.open_jobs))
        bind_contextvars(job=accepted.id)
        if not accepted.replayed:
            services.tokens.send(JobMessage(job=accepted.id, queue=submission.queue))
        record = await services.store.run(find(accepted.id))
        seconds = preferred_wait(self._request)
        if seconds and not services.followers.full(self._key.owner):
            with services.followers.one_more(self._key.owner):
                record = await wait_for(services.store, self._request, record, seconds)
        self._head(record, accepted.replayed, seconds)
        return job_answer(record)

    def _submission(self, kind: JobKind, body: BaseModel, payload: Payload) -> Submission:
        return Submission(
            kind=kind,
            queue=KINDS[kind].line.queue(payload.model),
            payload=payload,
            limits=self._services.settings.limits(kind),
            owner=self._key.owner,
            request_id=self._request.state.request_id,
            idempotency=_scoped(self._key.owner, kind, self._idempotency_key),
            body_hash=hashlib.sha256(body.model_dump_json().encode()).hexdigest(),
        )

    def _head(self, record: JobRecord, replayed: bool, seconds: int) -> None:
        headers = self._response.headers
        headers["Location"] = job_url(record.kind, record.id)
        if replayed:
            headers["Idempotency-Replayed"] = "true"
        if seconds:
            headers["Preference-Applied"] = f"wait={seconds}"
        if record.state.terminal:
            self._response.status_code = 200
        else:
            headers["Retry-After"] = "1"


async def submitter(
    request: Request,
    response: Response,
    key: Holder,
    offer: Offered,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Submitter:
    """A dependency of the routes that accept jobs."""
    return Submitter(request, response, key, offer, idempotency_key)


Accept = Annotated[Submitter, Depends(submitter)]


def _scoped(owner: str, kind: JobKind, key: str | None) -> str:
    if key is None:
        return ""
    return hashlib.sha256(f"{owner}\n{kind}\n{key}".encode("utf-8", "surrogateescape")).hexdigest()
