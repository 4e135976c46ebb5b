"""Options that the commands share, and how they find models, variants and prompts. Nothing heavy is
imported before a command works: `--help` and refusals are immediate."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from contract.catalogue import ModelDescription, read_models
from quant.errors import CheckpointError, ModelError

ROOT = Path(__file__).parents[2]

Model = Annotated[str, typer.Option(help="model id, as in the models file")]
Models = Annotated[Path, typer.Option(help="the models file")]
Variants = Annotated[list[Path], typer.Option(help="folders that hold <model>/<variant>; the first that has it counts")]
Prompts = Annotated[Path, typer.Option(help="folder of prompt sets")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]

MODELS = ROOT / "models" / "models.toml"
VARIANTS = [ROOT / "data" / "variants", ROOT / "models" / "variants"]
PROMPTS = ROOT / "prompts"
BACKBONES = ROOT / "models" / "backbones"
RECIPES = ROOT / "recipes"
OWN_SET = "shapes-plain"
"""The prompt set of the embedded model."""

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def describe(model: str, models: Path) -> ModelDescription:
    """The description of a model. Raises ModelError, listing what there is."""
    known = read_models(models)
    if model not in known:
        raise ModelError(f"model {model!r} is not in {models}; there are {', '.join(known)}")
    return known[model]


def variant_folder(model: str, variant: str, roots: list[Path]) -> Path:
    """The folder of a variant. Raises CheckpointError, listing what there is."""
    for root in roots:
        if (root / model / variant).is_dir():
            return root / model / variant
    known = sorted(path.name for root in roots for path in (root / model).glob("*") if path.is_dir())
    raise CheckpointError(f"variant {variant!r} of {model} is not there; there are {', '.join(known) or 'none'}")


def variant_names(model: str, roots: list[Path]) -> list[str]:
    """The variants that a model has in any of the folders, sorted."""
    from quant.checkpoints.checkpoint import CARD

    return sorted({path.parent.name for root in roots for path in (root / model).glob(f"*/{CARD}")})


def print_json(result: dict[str, Any]) -> None:
    """One JSON document on standard output, NaN-free."""
    stdout.print_json(json.dumps(result, allow_nan=False))


def machine() -> dict[str, Any]:
    """What a number depends on besides the code."""
    import torch

    from quant.engine.selection import default_engine

    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cpu": capability,
        "engine": f"{default_engine().name}, {default_engine().passes.name} passes",
    }
