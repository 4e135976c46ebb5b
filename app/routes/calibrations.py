"""Calibrations: a recipe to a served variant."""

from __future__ import annotations

from app import admission
from app.answers import JobAnswer
from app.request_bodies import CalibrationBody
from app.routes.jobs import job_routes
from app.services import Shared
from app.submission import Accept
from contract.jobs import JobKind

router = job_routes(JobKind.CALIBRATION)


@router.post("", status_code=202, responses={200: {"model": JobAnswer, "description": "It has ended within the wait"}})
async def create(body: CalibrationBody, services: Shared, submitter: Accept) -> JobAnswer:
    """Make a new variant of a model, measured and ready to be served."""
    payload = admission.calibration(body, await services.catalogue(), services.registry)
    return await submitter.accept(JobKind.CALIBRATION, body, payload)
