"""Options that the commands share, and how they find models, variants and prompts. Nothing heavy is
imported before a command works: `--help` and refusals are immediate."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from contract.catalogue import ModelDescription, read_models
from contract.places import cache_folder, data_folder, models_folder, shipped
from contract.sampling import MAX_GUIDANCE, MAX_STEPS
from quant.checkpoints.card_file import CARD
from quant.errors import CheckpointError, ModelError
from quant.sampling.prompts import OWN_SET
from quant.sampling.seeds import SEEDS

_PROMPTS = "a prompt set, the split of that name of all sets, or a prompt file"

Model = Annotated[
    str, typer.Argument(metavar="<model>", help="a model of the models file, or a folder that diffusers loads")
]
VariantName = typer.Option("--variant", help="a variant's name, or its folder")
Prompts = Annotated[str, typer.Option("--prompts", help=_PROMPTS)]
CalibrationPrompts = typer.Option(
    "--prompts", help=f"{_PROMPTS}, to calibrate on", show_default=f"{OWN_SET}; seeds for models that take no prompt"
)
SeveralPrompts = Annotated[list[str], typer.Option("--prompts", help=f"{_PROMPTS}; repeatable, the first is primary")]
Seed = Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="seed of the first picture")]
Steps = Annotated[
    int | None, typer.Option(min=1, max=MAX_STEPS, help="steps of the sampler", show_default="the model's")
]
Guidance = Annotated[
    float | None, typer.Option(min=0.0, max=MAX_GUIDANCE, help="above 1 there is guidance", show_default="the model's")
]
Models = Annotated[Path, typer.Option(help="the models file")]
VariantFolders = Annotated[
    list[Path],
    typer.Option("--variant-folder", help="holds <model>/<variant>; repeatable, the first that has it counts"),
]
PromptFolder = Annotated[Path, typer.Option("--prompt-folder", help="folder of prompt sets")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]

MODELS = models_folder() / "models.toml"
VARIANTS = [data_folder() / "variants", models_folder() / "variants"]
PROMPTS = shipped("prompts")
BACKBONES = models_folder() / "backbones"
JOURNALS = data_folder() / "calibrations"
CACHE = cache_folder() / "evaluation-cache"

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def describe(model: str, models: Path) -> ModelDescription:
    """The description of a model of the models file, or of the one in a folder. Raises ModelError, listing what there
    is."""
    if _is_folder(model):
        from quant.checkpoints.pipelines import describe_folder

        return describe_folder(model)
    if not models.is_file():
        raise ModelError(f"{model} is no folder, and there is no models file {models}: name one by --models")
    known = read_models(models)
    if model not in known:
        raise ModelError(f"model {model!r} is not in {models}; there are {', '.join(known)}; or give a folder")
    return known[model]


def model_name(model: str) -> str:
    """What a model is called in the names of folders: its id, or its folder's name as an identifier."""
    if not _is_folder(model):
        return model
    return re.sub(r"[^a-z0-9]+", "-", Path(model).resolve().name.lower()).strip("-")[:64] or "model"


def variant_folder(model: str, variant: str, roots: list[Path]) -> Path:
    """The folder of a variant. Raises CheckpointError, listing what there is."""
    for root in roots:
        if (root / model_name(model) / variant).is_dir():
            return root / model_name(model) / variant
    if _is_folder(variant):
        return Path(variant)
    known = ", ".join(variant_names(model, roots)) or "none"
    raise CheckpointError(f"variant {variant!r} of {model} is not there; there are {known}")


def variant_names(model: str, roots: list[Path]) -> list[str]:
    """The variants that a model has in any of the folders, sorted."""
    return sorted({path.parent.name for root in roots for path in (root / model_name(model)).glob(f"[!.]*/{CARD}")})


def _is_folder(name: str) -> bool:
    return (Path(name) / "model_index.json").is_file()


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
