"""The worker's figures: there before anything happens, and in buckets that tell values apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Histogram

from contract.kinds import JobKind
from contract.registry import Registry
from contract.results import Score
from tests.support.cards import card, stage
from worker.metrics import LATENT_MSE, PSNR, SSIM_DISTANCE, observe_score
from worker.pipeline_cache import PipelineCache


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@pytest.mark.parametrize("kind", list(JobKind))
@pytest.mark.parametrize("outcome", ["succeeded", "failed", "canceled"])
def test_outcomes_begin_at_zero(kind: str, outcome: str) -> None:
    assert _value("facsimile_job_seconds_count", kind=kind, outcome=outcome) is not None
    assert _value("facsimile_queue_wait_seconds_count", kind=kind) is not None


def test_published_variants_begin_at_zero_with_their_noise_floor(tmp_path: Path) -> None:
    for name in ("born-one", "born-two"):
        stage(tmp_path / "shipped" / "tiny" / name, variant=name)
    PipelineCache({}, Registry(tmp_path / "shipped", tmp_path / "data"), device="cpu", capacity=2)
    for name in ("born-one", "born-two"):
        labels = {"model": "tiny", "variant": name}
        assert _value("facsimile_invalid_images_total", **labels) == 0
        assert _value("facsimile_model_load_seconds_count", **labels) == 0
        assert _value("facsimile_consistency_ssim_distance_count", **labels) == 0
        for metric, floor in card().report.noise_floor.items():
            if floor.mean is not None:
                assert _value("facsimile_consistency_noise_floor", **labels, metric=metric) == floor.mean


@pytest.mark.parametrize(
    ("histogram", "metric", "near", "far"),
    [
        (PSNR, "psnr", 46.9, 37.1),
        (SSIM_DISTANCE, "ssim", 0.9987, 0.9880),
        (SSIM_DISTANCE, "ssim", 0.99996, 0.9987),
        (LATENT_MSE, "latent_mse", 0.0007, 0.005),
        (LATENT_MSE, "latent_mse", 0.000026, 0.0007),
    ],
)
def test_values_of_good_and_worse_variants_fall_into_different_buckets(
    histogram: Histogram, metric: str, near: float, far: float
) -> None:
    buckets = []
    for name, value in (("near", near), ("far", far)):
        variant = f"{name}-{abs(hash((metric, value)))}"
        observe_score(card(variant=variant), Score(metrics={metric: (value, None)}, noise_floor={}))
        counts = [
            (float(sample.labels["le"]), sample.value)
            for family in histogram.collect()
            for sample in family.samples
            if sample.name.endswith("_bucket") and sample.labels["variant"] == variant
        ]
        buckets.append(next(edge for edge, count in counts if count))
    assert len(set(buckets)) == 2


def test_unknown_metrics_are_left_out() -> None:
    observe_score(card(variant="odd"), Score(metrics={"other": (1.0,)}, noise_floor={}))
    assert _value("facsimile_consistency_psnr_db_count", model="tiny", variant="odd") is None
