"""Calibrations: a recipe to a served variant."""

from __future__ import annotations

from app import admission
from app.answers import JobAnswer
from app.openapi import problems
from app.request_bodies import CalibrationBody
from app.routes.jobs import accepting, job_routes
from app.services import Offered, Shared
from app.submission import Accept
from contract.kinds import JobKind

router = job_routes(JobKind.CALIBRATION, max_body_size=None)


@router.post("", **accepting(JobKind.CALIBRATION, problems(409)))
async def create(body: CalibrationBody, services: Shared, offer: Offered, submitter: Accept) -> JobAnswer:
    """Make a new variant of a model, measured and ready to be served."""
    payload = admission.calibration(body, offer.catalogue, services.registry)
    return await submitter.accept(JobKind.CALIBRATION, body, payload)
