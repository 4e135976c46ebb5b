"""The worker's figures for Prometheus. Labels are models, variants, stages and metrics: all bounded."""

from __future__ import annotations

import structlog
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from contract.card import Card
from contract.results import Score

_log = structlog.get_logger(__name__)
disable_created_metrics()  # type: ignore[no-untyped-call]
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)

STAGE_SECONDS = Histogram(
    "facsimile_stage_seconds", "Seconds of a generation's stage", ("model", "variant", "stage"), buckets=_SECONDS
)
QUEUE_WAIT_SECONDS = Histogram(
    "facsimile_queue_wait_seconds", "Seconds from a job's acceptance to its claim", ("kind",), buckets=_SECONDS
)
JOB_SECONDS = Histogram(
    "facsimile_job_seconds", "Seconds from a job's claim to its end", ("kind", "outcome"), buckets=_SECONDS
)
MODEL_LOAD_SECONDS = Histogram(
    "facsimile_model_load_seconds", "Seconds to load a pipeline", ("model", "variant"), buckets=_SECONDS
)
RESIDENT_BYTES = Gauge("facsimile_model_resident_bytes", "Bytes of a loaded pipeline's weights", ("model", "variant"))
INVALID_IMAGES = Counter(
    "facsimile_invalid_images", "Jobs whose picture was not finite, or constant", ("model", "variant")
)
CANCEL_LATENCY_SECONDS = Histogram(
    "facsimile_cancel_latency_seconds", "Seconds from a cancellation to the end of the computation", buckets=_SECONDS
)
CONSISTENCY = Histogram(
    "facsimile_consistency",
    "A variant's picture against the reference's on the same noise",
    ("model", "variant", "metric"),
    buckets=(
        0,
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
        0.5,
        0.7,
        0.8,
        0.9,
        0.95,
        0.98,
        0.99,
        1,
        10,
        15,
        20,
        25,
        30,
        35,
        40,
        50,
        60,
    ),
)
NOISE_FLOOR = Gauge(
    "facsimile_consistency_noise_floor",
    "The same metric for the reference in bfloat16 against itself, from the card",
    ("model", "variant", "metric"),
)


def serve_metrics(host: str, port: int) -> None:
    """Answer scrapes on an address. One that is taken costs the figures, never the worker."""
    try:
        start_http_server(port, host)
    except OSError as error:
        _log.warning("no metrics exporter", port=port, error=str(error))


def observe_stages(model: str, variant: str, seconds: dict[str, float]) -> None:
    """Note the seconds of each stage of one generation."""
    for stage, value in seconds.items():
        STAGE_SECONDS.labels(model, variant, stage).observe(value)


def observe_score(card: Card, score: Score) -> None:
    """Note how near a variant came to its reference, and the noise floor it is read against."""
    for metric, values in score.metrics.items():
        histogram = CONSISTENCY.labels(card.model, card.variant, metric)
        for value in values:
            if value is not None:
                histogram.observe(value)
    for metric, statistic in score.noise_floor.items():
        if statistic.mean is not None:
            NOISE_FLOOR.labels(card.model, card.variant, metric).set(statistic.mean)
