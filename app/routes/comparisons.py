"""Comparisons: the reference against a variant."""

from __future__ import annotations

from app import admission
from app.answers import JobAnswer
from app.request_bodies import ComparisonBody
from app.routes.jobs import accepting, job_routes
from app.services import Offered, Shared
from app.submission import Accept
from contract.kinds import JobKind

router = job_routes(JobKind.COMPARISON)


@router.post("", **accepting(JobKind.COMPARISON))
async def create(body: ComparisonBody, services: Shared, offer: Offered, submitter: Accept) -> JobAnswer:
    """Make the same pictures with the reference and with a variant, from the same noise, and measure the difference."""
    payload = admission.comparison(body, offer.catalogue, services.registry)
    return await submitter.accept(JobKind.COMPARISON, body, payload)
