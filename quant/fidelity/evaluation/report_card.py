"""What must be known of a variant before its figures are compared with anybody's: bits, what stayed in floating point,
what attention does, what the tables hold, what calibration took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from contract.card import Card
from quant.checkpoints.layout import Layout, bits_of
from quant.errors import CheckpointError
from quant.fidelity.document import AttentionProducts, CalibrationCost, ReportCard, Tables
from quant.quantizers.activation import FLOAT_BITS

_STORED_FLOAT_BITS = 16
_TABLE = ("input_scale", "input_zero_point", "input_bits")


def report_card(card: Card, folder: Path) -> ReportCard:
    """The report card of the checkpoint in `folder`. Averages of weight bits go by weights, those of activation bits by
    layers and rows of their tables. Raises CheckpointError."""
    denoiser, layout = _denoiser(folder)
    try:
        shapes, bits = _tensors(denoiser)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder}: {error}") from error
    quantized = {name.removesuffix(".weight_scale"): 0 for name in shapes if name.endswith(".weight_scale")}
    weights = {name: _count(shapes[f"{name}.weight"]) for name in (*quantized, *card.float_layers)}
    weight_bits = {name: bits_of(layout, name) if name in quantized else _STORED_FLOAT_BITS for name in weights}
    return ReportCard(
        digest=card.digest,
        recipe=card.recipe.model_dump(mode="json"),
        average_weight_bits=_average(weight_bits, {name: weights[name] for name in quantized}),
        average_weight_bits_with_float_layers=_average(weight_bits, weights),
        average_activation_bits=float(np.mean(bits)) if bits else float(card.recipe.activation_bits),
        quantized_layers=card.quantized_layers,
        float_layers=card.float_layers,
        float_weight_share=1.0 - sum(weights[name] for name in quantized) / sum(weights.values()),
        attention_products=_attention(layout),
        shortcuts=f"{len(layout.splits)} split into two ranges" if layout.splits else "one range, not split",
        dynamic_activations=layout.dynamic_activations,
        tables=Tables(
            timestep_groups=max(len(layout.timesteps), 1),
            rows=len(bits),
            bytes=sum(_bytes(shape) for name, shape in shapes.items() if name.rpartition(".")[2] in _TABLE),
        ),
        denoiser_bytes=card.denoiser_bytes,
        reference_denoiser_bytes=card.reference_denoiser_bytes,
        calibration=CalibrationCost(
            prompts=len(card.calibration_prompt_ids),
            seconds=card.calibration_seconds,
            peak_resident_bytes=card.calibration_peak_bytes,
        ),
        sampler=card.signature,
    )


def _denoiser(folder: Path) -> tuple[Path, Layout]:
    for path in sorted(folder.glob("*/config.json")):
        found = json.loads(path.read_text(encoding="utf-8")).get("quantization_config")
        if found:
            return path.parent, Layout(**{each.name: found[each.name] for each in fields(Layout) if each.name in found})
    raise CheckpointError(f"checkpoint {folder} has no component with a quantization_config")


def _tensors(denoiser: Path) -> tuple[dict[str, tuple[str, list[int]]], list[int]]:
    """Dtype and shape of every tensor, and the bits of all rows of all tables."""
    shapes: dict[str, tuple[str, list[int]]] = {}
    bits: list[int] = []
    for path in sorted(denoiser.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118 (an open file is no dictionary)
                part = file.get_slice(name)
                shapes[name] = (part.get_dtype(), part.get_shape())
                bits += _rows(name, file)
    return shapes, bits


def _rows(name: str, file: Any) -> Iterator[int]:
    yield from file.get_tensor(name).tolist() if name.endswith(".input_bits") else ()


def _count(tensor: tuple[str, list[int]]) -> int:
    dtype, shape = tensor
    return int(np.prod(shape)) * (2 if dtype == "U8" else 1)


def _bytes(tensor: tuple[str, list[int]]) -> int:
    dtype, shape = tensor
    return int(np.prod(shape)) * (1 if dtype == "U8" else 4)


def _average(bits: dict[str, int], weights: dict[str, int]) -> float:
    return sum(bits[name] * count for name, count in weights.items()) / sum(weights.values())


def _attention(layout: Layout) -> AttentionProducts:
    quantized = layout.attention_bits is not None
    return AttentionProducts(
        quantized=quantized,
        bits=FLOAT_BITS if layout.attention_bits is None else layout.attention_bits,
        softmax_bits=layout.softmax_bits if quantized else FLOAT_BITS,
    )
