"""A job: its states, its record in the store, and the token that wakes a worker for it.

queued ──claim──> running ──finish──> succeeded | failed | canceled
  ^  └──cancel──> canceled   │
  └──────lease expired───────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import RecordUnreadable
from contract.kinds import KINDS, JobKind
from contract.payloads import Payload
from contract.results import Result

SCHEMA_VERSION = 1
"""Version of the record and of the token. A release refuses a record of another version, by name. What only adds fields
keeps the version: fields that a release does not know are ignored in what is stored (never in requests)."""


class JobState(StrEnum):
    """Where a job is. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        """Whether the job can never change again."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class JobError(BaseModel):
    """Why a job failed: a stable code, and a sentence for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    message: str


class JobProgress(BaseModel):
    """How far a running job is: `step` of `steps` within a stage, and what it is at (a unit, a loss)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    note: str = Field(default="", max_length=200)


class JobMessage(BaseModel):
    """The wake-up token: look into that queue. It carries no work, so losing or repeating one does no harm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    job: str
    queue: str


class JobRecord(BaseModel):
    """The truth about a job. Times are the store's, in seconds since 1970; `attempt` counts the claims, and fences
    every write of a worker; the limits were fixed when the job was accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    id: str
    sequence: int
    kind: JobKind
    queue: str
    owner: str
    request_id: str
    state: JobState
    attempt: int
    created: float
    payload: Payload
    lease_seconds: float
    retention_seconds: int
    started: float | None = None
    finished: float | None = None
    cancel_requested: float | None = None
    worker: str | None = None
    progress: JobProgress | None = None
    result: Result | None = None
    error: JobError | None = None

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Self:
        """The record in a store's hash, whose fields are all strings (those that do not apply are absent). Fields that
        this release does not know are ignored. Raises RecordUnreadable for a record of another version, and for one
        that this release cannot make sense of."""
        version = fields.get("schema_version")
        if version != str(SCHEMA_VERSION):
            raise _unreadable(fields, f"has a record of version {version}, and this release reads {SCHEMA_VERSION}")
        try:
            return cls.model_validate(_nested(fields))
        except (ValidationError, ValueError, KeyError) as error:
            raise _unreadable(fields, "has a record that this release cannot read") from error


def _nested(fields: Mapping[str, str]) -> dict[str, object]:
    kind = KINDS[JobKind(fields["kind"])]
    nested: dict[str, object] = {name: fields[name] for name in JobRecord.model_fields if name in fields}
    nested["payload"] = kind.payload.model_validate_json(fields["payload"], extra="ignore")
    if fields.get("result"):
        nested["result"] = kind.result.model_validate_json(fields["result"], extra="ignore")
    if "code" in fields:
        nested["error"] = JobError(code=fields["code"], message=fields["message"])
    if "stage" in fields:
        progress = {name: fields[name] for name in JobProgress.model_fields if name in fields}
        nested["progress"] = JobProgress.model_validate(progress)
    return nested


def _unreadable(fields: Mapping[str, str], reason: str) -> RecordUnreadable:
    attempt = fields.get("attempt", "0")
    return RecordUnreadable(fields.get("id", "?"), int(attempt) if attempt.isdecimal() else 0, reason)
