"""A batch of pictures of the reference and of a variant from the same noise: what a metric looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quant.generation import Generation
from quant.judge import Judge


@dataclass(frozen=True)
class Pair:
    """Reference and variant pictures of the same prompts and seeds, the prompts' known attributes (empty where there
    are none), and the judge, loaded when a metric asks for it."""

    reference: Generation
    variant: Generation
    attributes: list[dict[str, str]]
    judge: Callable[[], Judge]
