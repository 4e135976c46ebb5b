"""Comparison: the reference and a variant on the same noise, their difference, and what each of them costs."""

from __future__ import annotations

from contract.errors import RegistryError
from contract.jobs import JobRecord
from contract.payloads import REFERENCE, ComparisonPayload
from contract.results import Arm, ComparisonResult
from quant.fidelity.comparison import compare
from quant.sampling.generation import Generation
from worker.jobs.sampling import sampling_of, score_of, tokens_of
from worker.lease import JobLease
from worker.metrics import observe_score, observe_stages
from worker.pictures import Provenance, store_pictures
from worker.pipeline_cache import LoadedModel
from worker.runtime import Runtime


def run(runtime: Runtime, lease: JobLease, record: JobRecord) -> ComparisonResult:
    """Generate both arms, measure them, and store all pictures."""
    payload = record.payload
    if not isinstance(payload, ComparisonPayload):
        raise TypeError(f"not a comparison: {type(payload).__name__}")
    lease.progress("load", 0, 1)
    variant = runtime.pipelines.get(payload.model, payload.variant)
    if variant.card is None:
        raise RegistryError("the reference cannot be compared with itself")
    reference = runtime.pipelines.get(payload.model, REFERENCE)
    tokens = tokens_of(reference.pipeline, payload)
    made = compare(reference.pipeline, variant.pipeline, sampling_of(payload), lease.steps("compare"))
    score = score_of(made, variant.card)
    observe_score(variant.card, score)
    difference = Provenance(payload.model, f"{REFERENCE}-{payload.variant}", variant.digest, payload.seed)
    return ComparisonResult(
        seed=payload.seed,
        reference=_arm(runtime, payload, REFERENCE, reference, made.reference),
        variant=_arm(runtime, payload, payload.variant, variant, made.variant),
        differences=store_pictures(runtime.images, made.differences, "png", difference),
        score=score,
        tokens=tokens,
    )


def _arm(runtime: Runtime, payload: ComparisonPayload, name: str, loaded: LoadedModel, made: Generation) -> Arm:
    observe_stages(payload.model, name, made.seconds)
    provenance = Provenance(payload.model, name, loaded.digest, payload.seed)
    return Arm(
        images=store_pictures(runtime.images, made.pictures, "png", provenance),
        seconds=made.seconds,
        resident_bytes=loaded.resident_bytes,
        digest=loaded.digest,
    )
