"""Generations: a prompt to pictures."""

from __future__ import annotations

from app import admission
from app.answers import JobAnswer
from app.request_bodies import GenerationBody
from app.routes.jobs import accepting, job_routes
from app.services import Offered, Shared
from app.submission import Accept
from contract.kinds import JobKind

router = job_routes(JobKind.GENERATION)


@router.post("", **accepting(JobKind.GENERATION))
async def create(body: GenerationBody, services: Shared, offer: Offered, submitter: Accept) -> JobAnswer:
    """Make pictures from a prompt, with the reference or with a variant."""
    payload = admission.generation(body, offer.catalogue, services.registry)
    return await submitter.accept(JobKind.GENERATION, body, payload)
