"""Evaluations: variants over whole prompt sets, to a report."""

from __future__ import annotations

from app import admission
from app.answers import JobAnswer
from app.request_bodies import EvaluationBody
from app.routes.jobs import accepting, job_routes
from app.services import Offered, Shared
from app.submission import Accept
from contract.kinds import JobKind

router = job_routes(JobKind.EVALUATION)


@router.post("", **accepting(JobKind.EVALUATION))
async def create(body: EvaluationBody, services: Shared, offer: Offered, submitter: Accept) -> JobAnswer:
    """Measure variants against the reference over whole prompt sets, with intervals, floors and a report."""
    payload = admission.evaluation(body, offer.catalogue, services.registry)
    return await submitter.accept(JobKind.EVALUATION, body, payload)
