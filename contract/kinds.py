"""The kinds of job, in one table: what all processes have to know of a kind is said here only.

The files of a kind bear its name: its routes are in app/routes/<kind>s.py, its work in worker/jobs/<kind>.py."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from contract.broker import Line
from contract.payloads import CalibrationPayload, ComparisonPayload, EvaluationPayload, GenerationPayload, Payload
from contract.results import CalibrationResult, ComparisonResult, EvaluationResult, GenerationResult, Result
from contract.role import Role


class JobKind(StrEnum):
    """What a job does."""

    GENERATION = "generation"
    COMPARISON = "comparison"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class Kind:
    """One kind of job: the models that its payload and its result are read with, the line that its jobs wait in, and
    the role of the keys that may ask for one. A line's jobs also have a process and a time limit in common."""

    name: JobKind
    payload: type[Payload]
    result: type[Result]
    line: Line
    role: Role


KINDS: dict[JobKind, Kind] = {
    kind.name: kind
    for kind in (
        Kind(JobKind.GENERATION, GenerationPayload, GenerationResult, Line.GENERATE, Role.USER),
        Kind(JobKind.COMPARISON, ComparisonPayload, ComparisonResult, Line.GENERATE, Role.USER),
        Kind(JobKind.CALIBRATION, CalibrationPayload, CalibrationResult, Line.CALIBRATE, Role.CALIBRATOR),
        Kind(JobKind.EVALUATION, EvaluationPayload, EvaluationResult, Line.EVALUATE, Role.CALIBRATOR),
    )
}
