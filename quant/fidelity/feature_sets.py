"""Two sets of features that are compared as distributions."""

from __future__ import annotations

from torch import Tensor

from quant.errors import EvaluationError


def comparable(reference: Tensor, variant: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64, [N, D] and [M, D]. Raises EvaluationError for fewer than two pictures in either, for
    features of different models, and for features that are not finite."""
    if min(len(reference), len(variant)) < 2:
        raise EvaluationError(
            f"sets of {len(reference)} and {len(variant)} pictures have no spread: compare at least 2, better thousands"
        )
    if reference.shape[1] != variant.shape[1]:
        raise EvaluationError(f"features of {reference.shape[1]} and {variant.shape[1]} values are of different models")
    for side, features in (("reference", reference), ("variant", variant)):
        broken = len(features) - int(features.isfinite().all(dim=1).sum())
        if broken:
            raise EvaluationError(
                f"{broken} of {len(features)} pictures of the {side} have features that are not finite: leave the "
                "failed pictures out of both sets"
            )
    return reference.double(), variant.double()
