"""Generation: a prompt to pictures, from the reference or from a variant, which may be scored against it."""

from __future__ import annotations

from contract.errors import RegistryError
from contract.jobs import JobRecord
from contract.payloads import REFERENCE, GenerationPayload
from contract.results import GenerationResult, Score
from quant.fidelity.comparison import compare
from quant.sampling.generation import Generation, generate
from worker.jobs.sampling import sampling_of, score_of, tokens_of
from worker.lease import JobLease
from worker.metrics import observe_score, observe_stages
from worker.pictures import Provenance, store_pictures
from worker.pipeline_cache import LoadedModel
from worker.runtime import Runtime


def run(runtime: Runtime, lease: JobLease, record: JobRecord) -> GenerationResult:
    """Generate, store the pictures, and score them if asked."""
    payload = record.payload
    if not isinstance(payload, GenerationPayload):
        raise TypeError(f"not a generation: {type(payload).__name__}")
    lease.progress("load", 0, 1)
    loaded = runtime.pipelines.get(payload.model, payload.variant)
    tokens = tokens_of(loaded.pipeline, payload)
    made, score = _generate(runtime, lease, payload, loaded)
    observe_stages(payload.model, payload.variant, made.seconds)
    provenance = Provenance(payload.model, payload.variant, loaded.digest, payload.seed)
    return GenerationResult(
        images=store_pictures(runtime.images, made.pictures, payload.output_format, provenance),
        seed=payload.seed,
        seconds=made.seconds,
        digest=loaded.digest,
        score=score,
        tokens=tokens,
    )


def _generate(
    runtime: Runtime, lease: JobLease, payload: GenerationPayload, loaded: LoadedModel
) -> tuple[Generation, Score | None]:
    sampling = sampling_of(payload)
    if not payload.score:
        return generate(loaded.pipeline, sampling, lease.steps("denoise")), None
    if loaded.card is None:
        raise RegistryError("the reference cannot be scored against itself")
    reference = runtime.pipelines.get(payload.model, REFERENCE)
    comparison = compare(reference.pipeline, loaded.pipeline, sampling, lease.steps("compare"))
    score = score_of(comparison, loaded.card)
    observe_score(loaded.card, score)
    return comparison.variant, score
