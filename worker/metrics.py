"""The worker's figures for Prometheus. Labels are models, variants, stages and metrics: all bounded."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from contract.card import Card
from contract.kinds import JobKind
from contract.results import Score

_log = structlog.get_logger(__name__)
disable_created_metrics()  # type: ignore[no-untyped-call]
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_JOB_SECONDS = (
    0.1,
    0.2,
    0.3,
    0.5,
    0.75,
    1,
    1.5,
    2,
    3,
    4,
    5,
    6,
    8,
    10,
    15,
    20,
    30,
    45,
    60,
    120,
    300,
    600,
    1800,
    3600,
    10800,
)
"""A picture takes seconds, a calibration minutes to hours: close together where most jobs end."""

_OUTCOMES = ("succeeded", "failed", "canceled", "queued", "fenced", "unsettled")
_PIPELINE = ("model", "variant")

STAGE_SECONDS = Histogram(
    "facsimile_stage_seconds", "Seconds of a generation's stage", (*_PIPELINE, "stage"), buckets=_SECONDS
)
QUEUE_WAIT_SECONDS = Histogram(
    "facsimile_queue_wait_seconds", "Seconds from a job's acceptance to its claim", ("kind",), buckets=_SECONDS
)
JOB_SECONDS = Histogram(
    "facsimile_job_seconds", "Seconds from a job's claim to its end", ("kind", "outcome"), buckets=_JOB_SECONDS
)
MODEL_LOAD_SECONDS = Histogram(
    "facsimile_model_load_seconds", "Seconds to load a pipeline", _PIPELINE, buckets=_SECONDS
)
RESIDENT_BYTES = Gauge("facsimile_model_resident_bytes", "Bytes of a loaded pipeline's weights", _PIPELINE)
INVALID_IMAGES = Counter("facsimile_invalid_images", "Jobs whose picture was not finite, or constant", _PIPELINE)
CANCEL_LATENCY_SECONDS = Histogram(
    "facsimile_cancel_latency_seconds", "Seconds from a cancellation to the end of the computation", buckets=_SECONDS
)
PSNR = Histogram(
    "facsimile_consistency_psnr_db",
    "PSNR of a variant's picture against the reference's on the same noise; higher is nearer",
    _PIPELINE,
    buckets=(5, 10, 15, 20, 25, 27.5, 30, 32.5, 35, 37.5, 40, 42.5, 45, 47.5, 50, 55, 60, 70, 80, 100),
)
SSIM_DISTANCE = Histogram(
    "facsimile_consistency_ssim_distance",
    "1 - SSIM of a variant's picture against the reference's on the same noise; lower is nearer",
    _PIPELINE,
    buckets=(1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1),
)
LATENT_MSE = Histogram(
    "facsimile_consistency_latent_mse",
    "Mean squared error of a variant's last latent against the reference's on the same noise; lower is nearer",
    _PIPELINE,
    buckets=(1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 3),
)
FLOOR = Gauge(
    "facsimile_consistency_noise_floor",
    "The metric, as the card has it, for the reference in bfloat16 against itself",
    (*_PIPELINE, "metric"),
)

_CONSISTENCY: dict[str, tuple[Histogram, Callable[[float], float]]] = {
    "psnr": (PSNR, lambda value: value),
    "ssim": (SSIM_DISTANCE, lambda value: 1.0 - value),
    "latent_mse": (LATENT_MSE, lambda value: value),
}
"""A histogram per metric, in the unit in which its values spread."""

for _kind in JobKind:  # a series that is born at its first event never shows that event as an increase
    QUEUE_WAIT_SECONDS.labels(_kind)
    for _outcome in _OUTCOMES:
        JOB_SECONDS.labels(_kind, _outcome)


def expect_pipeline(model: str, variant: str, card: Card | None) -> None:
    """Begin the series of a pipeline at zero, and show the floor of a variant's card."""
    MODEL_LOAD_SECONDS.labels(model, variant)
    INVALID_IMAGES.labels(model, variant)
    if card is None:
        return
    for histogram, _ in _CONSISTENCY.values():
        histogram.labels(model, variant)
    for metric, statistic in card.report.noise_floor.items():
        if statistic.mean is not None:
            FLOOR.labels(model, variant, metric).set(statistic.mean)


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
    """Note how near a variant came to its reference."""
    for metric, values in score.metrics.items():
        if metric not in _CONSISTENCY:
            continue
        histogram, scaled = _CONSISTENCY[metric]
        for value in values:
            if value is not None:
                histogram.labels(card.model, card.variant).observe(scaled(value))
