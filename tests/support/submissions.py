"""A generation as the gateway submits it, and a result of it."""

from __future__ import annotations

from contract.kinds import JobKind
from contract.payloads import GenerationPayload
from contract.results import GenerationResult
from contract.transitions import JobLimits, Submission

PAYLOAD = GenerationPayload(
    prompt="a red cube",
    negative_prompt="",
    model="tiny",
    variant="reference",
    seed=1,
    num_inference_steps=2,
    guidance_scale=4.0,
    width=64,
    height=64,
    num_images=1,
    scheduler=None,
    output_format="png",
    score=False,
)
RESULT = GenerationResult(images=(), seed=1, seconds={}, digest=None, score=None)
QUEUE = "generate.tiny"
LIMITS = JobLimits(lease_seconds=15, max_attempts=2, time_limit_seconds=100, retention_seconds=1000)


def submission(**changes: str) -> Submission:
    """The payload above, with other fields of the submission where they are given."""
    return Submission(kind=JobKind.GENERATION, queue=QUEUE, payload=PAYLOAD, limits=LIMITS, **changes)
