"""How HTTP asks for a job: the headers of a POST, and the answer that shows the accepted job."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from app.acceptance import Asker, Idempotency
from app.answers import JobAnswer, job_answer, job_url
from app.api_keys import ApiKey, Holder
from app.offer import Offer
from app.services import Offered, services_of
from app.waiting import preferred_wait, wait_for
from contract.jobs import JobRecord
from contract.kinds import JobKind
from contract.payloads import Payload

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]
Prefer = Annotated[str | None, Header(description="`wait=N`: answer when the job has ended, at most N <= 60 seconds")]


@dataclass(frozen=True)
class Submitter:
    """Has a job accepted for one request, and writes the head of its answer."""

    _request: Request
    _response: Response
    _key: ApiKey
    _offer: Offer
    _idempotency_key: str | None

    async def accept(self, kind: JobKind, body: BaseModel, payload: Payload) -> JobAnswer:
        """The accepted job, after a wait if that is preferred. Raises what Acceptance.accept raises."""
        acceptance = services_of(self._request).acceptance(self._offer)
        asker = Asker(self._key, self._request.state.request_id)
        accepted = await acceptance.accept(kind, payload, asker, self._idempotency(body))
        seconds = preferred_wait(self._request)
        record = await self._waited(accepted.record, seconds)
        self._head(record, accepted.replayed, seconds)
        return job_answer(record)

    def _idempotency(self, body: BaseModel) -> Idempotency | None:
        if self._idempotency_key is None:
            return None
        return Idempotency(self._idempotency_key, hashlib.sha256(body.model_dump_json().encode()).hexdigest())

    async def _waited(self, record: JobRecord, seconds: int) -> JobRecord:
        """The record after the wait. One that would be too many for the gateway is left out."""
        services = services_of(self._request)
        if not seconds or services.followers.full(self._key.owner):
            return record
        with services.followers.one_more(self._key.owner):
            return await wait_for(services.store, self._request, record, seconds)

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
