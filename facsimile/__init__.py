"""Quantized text-to-image pipelines that can always say how faithful they are.

    import facsimile
    from diffusers import DiffusionPipeline

    reference = DiffusionPipeline.from_pretrained("path/to/model")
    variant = facsimile.quantize(reference, recipe="minmax-w8a8", prompts=["a cat", "a red house"])
    facsimile.save(variant, "path/to/variant")
    variant = facsimile.load("path/to/variant")
    print(facsimile.compare(reference, variant, "a dog")["psnr"].mean)

Importing this package registers the format with diffusers: plain `DiffusionPipeline.from_pretrained` loads what `save`
wrote. torch and diffusers are imported when a verb is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import quant  # noqa: F401  registers the format
from contract.release import RELEASE as __version__

if TYPE_CHECKING:
    from facsimile.verbs.bench import bench
    from facsimile.verbs.compare import compare
    from facsimile.verbs.load import load
    from facsimile.verbs.quantize import quantize
    from facsimile.verbs.save import save

__all__ = ["__version__", "bench", "compare", "load", "quantize", "save"]

_VERBS = frozenset(__all__) - {"__version__"}


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    verb = getattr(import_module(f"{__name__}.verbs.{name}"), name)
    globals()[name] = verb
    return verb


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
