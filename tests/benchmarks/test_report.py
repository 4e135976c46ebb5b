"""The page of performance without results, and operators sorted into the right classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.operators import by_class, class_of
from benchmarks.report import page


def test_a_question_without_results_says_so(tmp_path: Path) -> None:
    text = "<!-- begin memory -->\nold\n<!-- end memory -->"
    assert page(text, tmp_path) == "<!-- begin memory -->\n\n_Not measured yet._\n\n<!-- end memory -->"


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("onednn::qconv2d_pointwise", "convolution"),
        ("aten::mkldnn_convolution", "convolution"),
        ("onednn::qlinear_pointwise", "linear"),
        ("aten::addmm", "linear"),
        ("facsimile::unpack_weight", "linear"),
        ("facsimile::integer_attention", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("facsimile::group_norm_quantize", "normalization"),
        ("aten::native_group_norm", "normalization"),
        ("facsimile::quantize_rows", "quantize"),
        ("facsimile::geglu_quantize", "quantize"),
        ("aten::cat", "rest"),
    ],
)
def test_operators_have_a_class(operator: str, kind: str) -> None:
    assert class_of(operator) == kind


def test_classes_add_up() -> None:
    seconds = by_class({"aten::addmm": 2e6, "aten::mm": 1e6, "aten::cat": 5e5})
    assert seconds["linear"] == 3.0
    assert sum(seconds.values()) == 3.5
