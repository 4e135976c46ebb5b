"""Classes of torch's operators: the one table that says which kind of work a name in a profile stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from fnmatch import fnmatchcase

CLASSES = {
    "convolution": (
        "onednn::qconv*",
        "facsimile::*conv*",
        "aten::*conv*",
        "mkldnn::*conv*",
    ),
    "attention": (
        "facsimile::*attention*",
        "aten::*scaled_dot_product*",
        "aten::*flash_attention*",
        "aten::bmm",
        "aten::baddbmm",
        "aten::*softmax*",
    ),
    "linear": (
        "onednn::qlinear*",
        "facsimile::*linear*",
        "facsimile::unpack_weight",
        "aten::*linear",
        "aten::addmm",
        "aten::mm",
        "aten::matmul",
        "mkldnn::*linear*",
    ),
    "normalization": (
        "facsimile::*norm*",
        "aten::*group_norm*",
        "aten::*layer_norm*",
        "aten::*batch_norm*",
        "aten::silu*",
    ),
    "quantize": (
        "facsimile::*quantize*",
        "facsimile::geglu*",
        "aten::*quantize*",
        "aten::round*",
        "aten::clamp*",
        "aten::nan_to_num*",
    ),
}
"""fnmatch patterns, the first class that matches counts. A norm that is fused with the quantization behind it is
normalization; what matches nothing (additions, copies, concatenations, activations) is `rest`."""

REST = "rest"
ORDER = (*CLASSES, REST)


def class_of(operator: str) -> str:
    """The class of an operator's name."""
    found = (kind for kind, patterns in CLASSES.items() if any(fnmatchcase(operator, p) for p in patterns))
    return next(found, REST)


def by_class(microseconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each class, in the order of the classes, from microseconds of each operator."""
    seconds: dict[str, float] = defaultdict(float)
    for operator, time in microseconds.items():
        seconds[class_of(operator)] += time / 1e6
    return {kind: seconds[kind] for kind in ORDER}
