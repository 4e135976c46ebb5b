"""From a complete payload to an accepted job, and the answer that says so."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from structlog.contextvars import bind_contextvars

from app.answers import JobAnswer, job_answer, job_url
from app.api_keys import Holder, Role
from app.services import Services, services_of
from app.waiting import preferred_wait, wait_for
from contract.broker import CALIBRATE, EVALUATE, generate_queue
from contract.jobs import JobKind, JobMessage, JobRecord
from contract.payloads import Payload
from contract.transitions import Submission, find, submit

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]
Prefer = Annotated[str | None, Header(description="`wait=N`: answer when the job has ended, at most N <= 60 seconds")]

_QUEUES = {JobKind.CALIBRATION: CALIBRATE, JobKind.EVALUATION: EVALUATE}
"""Of the kinds that do not wait among a model's pictures, and that ask for the role of a calibrator."""


class Submitter:
    """A dependency of the routes that accept jobs."""

    def __init__(
        self,
        request: Request,
        response: Response,
        key: Holder,
        idempotency_key: IdempotencyKey = None,
        prefer: Prefer = None,
    ) -> None:
        self._services: Services = services_of(request)
        self._request = request
        self._response = response
        self._key = key
        self._idempotency_key = idempotency_key

    async def accept(self, kind: JobKind, body: BaseModel, payload: Payload) -> JobAnswer:
        """Accept the job, or find the one that was accepted before with the same key; then wait if that is preferred.
        Raises Forbidden, AdmissionError, NoWorker and StoreUnavailable."""
        services = self._services
        self._key.require(Role.CALIBRATOR if kind in _QUEUES else Role.USER)
        submission = self._submission(kind, body, payload)
        await services.served(submission.queue)
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
            queue=_QUEUES.get(kind) or generate_queue(payload.model),
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


Accept = Annotated[Submitter, Depends()]


def _scoped(owner: str, kind: JobKind, key: str | None) -> str:
    if key is None:
        return ""
    return hashlib.sha256(f"{owner}\n{kind}\n{key}".encode("utf-8", "surrogateescape")).hexdigest()
