"""A small document of an evaluation, made by hand: one variant that was measured and one that was not."""

from __future__ import annotations

from typing import Any

from quant.fidelity.document import Document

SAMPLING = {
    "negative_prompt": "",
    "num_inference_steps": 25,
    "guidance_scale": 4.0,
    "width": 128,
    "height": 128,
    "scheduler": None,
}
SPREAD = {"mean": 33.0, "ci95": [32.0, 34.0], "count": 2, "reason": None, "median": 33.0, "p5": 32.0, "p95": 34.0}
DISTANCE = {"mean": None, "ci95": None, "count": 2, "reason": "the distance is not finite"}


def report_card(digest: str) -> dict[str, Any]:
    """A report card, as JSON values."""
    return {
        "digest": digest,
        "recipe": {"method": "minmax", "weight_bits": 4},
        "average_weight_bits": 4.0,
        "average_weight_bits_with_float_layers": 4.5,
        "average_activation_bits": 8.0,
        "quantized_layers": 2,
        "float_layers": ["conv_in"],
        "float_weight_share": 0.25,
        "attention_products": {"quantized": False, "bits": 16, "softmax_bits": 16},
        "shortcuts": "one range, not split",
        "dynamic_activations": False,
        "tables": {"timestep_groups": 1, "rows": 2, "bytes": 18},
        "denoiser_bytes": 1000,
        "reference_denoiser_bytes": 4000,
        "calibration": {"prompts": 2, "seconds": 1.5, "peak_resident_bytes": None},
        "sampler": {"scheduler": "DDIMScheduler", "prediction_type": "epsilon"}
        | {key: SAMPLING[key] for key in ("num_inference_steps", "guidance_scale", "width", "height")},
    }


def small_json(digests: dict[str, str], seed: int = 5) -> dict[str, Any]:
    """The document as JSON values: the first of two variants is measured on `plain` and `ornate`, the second failed.
    `digests` are theirs by name."""
    first, second = digests
    figures = {"psnr": SPREAD, "frechet": DISTANCE, "first_diverging_step": SPREAD | {"reason": "1 of 3 never diverge"}}
    sets = ("plain", "ornate")
    return {
        "format_version": 1,
        "model": "tiny",
        "protocol": {
            "seed": seed,
            "pairing": "prompt i of a set has seed + i",
            "other_seeds_offset": 2147483648,
            "sampling": SAMPLING,
            "batch": 8,
            "prompt_sets": {
                name: {"count": 2, "left_out": {"repeated": 1}, "first": "a", "last": "b", "digest": name}
                for name in sets
            },
            "metrics": {
                "psnr": _traits(better="higher", unit="dB"),
                "frechet": _traits(identical=0.0, backbone="judge", of_sets=True),
            },
            "not_measured": {"lpips": "no weights"},
            "diverged_at": 0.05,
            "intervals": "95 %",
            "tests": "two-sided",
        },
        "reference": {
            "identity": {"weights": "w", "dtype": "float32", "code": "c", "machine": {"cpu": "AVX512"}},
            **{name: {"prompt_accuracy": SPREAD} for name in sets},
        },
        "floors": {
            "bfloat16": {
                **figures,
                "prompt_sets": dict.fromkeys(sets, figures),
                "curves": {name: [0.25, 0.5] for name in sets},
            },
            "finite_sample": {"frechet": DISTANCE, "prompt_sets": {name: {"frechet": DISTANCE} for name in sets}},
        },
        "variants": {
            first: {
                "card": report_card(digests[first]),
                **dict.fromkeys(sets, figures),
                "generalization": {"calibrated_on": "plain", "ornate": {"psnr": DISTANCE}},
                "curves": {name: [0.25, None] for name in sets},
                "invalid_pictures": {"plain": [], "ornate": ["ornate-1"]},
                "worst": [{"prompt_set": "plain", "id": "plain-1", "prompt": None, "ssim": 0.5}],
            },
            second: {"card": report_card(digests[second]), "error": "its files are damaged"},
        },
        "comparisons": [
            {
                "a": first,
                "b": "reference",
                "prompt_set": "plain",
                "metric": "psnr",
                "difference": {"mean": 1.0, "ci95": [0.5, 1.5], "count": 2},
                "p": None,
                "sentence": "they are not told apart",
            }
        ],
        "times": {"started": "2026-11-21T18:20:12+00:00", "seconds": 1.5, "peak_resident_bytes": 1000},
    }


def small_document(digests: dict[str, str], seed: int = 5) -> Document:
    """`small_json` as a model."""
    return Document.model_validate(small_json(digests, seed))


def _traits(**said: Any) -> dict[str, Any]:
    named = {"better": "lower", "identical": None, "unit": "", "symmetric": True, "backbone": None, "of_sets": False}
    return named | said
