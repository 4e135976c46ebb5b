"""A card for tests that need a published variant and no checkpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from contract.card import Card, ConsistencyReport, SamplerSignature, Statistic
from contract.recipe import Recipe


def card(model: str = "tiny", variant: str = "w8a8-minmax") -> Card:
    return Card(
        model=model,
        variant=variant,
        recipe=Recipe(method="minmax"),
        digest="0" * 64,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        signature=SamplerSignature(
            scheduler="DDIMScheduler",
            prediction_type="epsilon",
            num_inference_steps=2,
            guidance_scale=3.0,
            width=64,
            height=64,
        ),
        calibration_prompt_ids=("a",),
        calibration_seconds=1.0,
        quantized_layers=1,
        float_layers=(),
        denoiser_bytes=1,
        reference_denoiser_bytes=4,
        report=ConsistencyReport(
            prompt_set="tiny-prompts",
            prompt_ids=("b",),
            seed=0,
            metrics={"psnr": Statistic(mean=40.0, count=1)},
            noise_floor={"psnr": Statistic(mean=60.0, count=1)},
        ),
        versions={},
    )


def stage(folder: Path, model: str = "tiny", variant: str = "w8a8-minmax") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(card(model, variant).model_dump_json())
    (folder / "unet").mkdir()
    (folder / "unet" / "weights").write_bytes(b"w" * 100)
    return folder
