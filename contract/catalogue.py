"""What the workers can do: models, methods, families, metrics, presets. Workers announce it, the gateway repeats it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contract.errors import ContractError
from contract.faults import Place, faults
from contract.identifier import Identifier
from contract.recipe import Recipe
from contract.sampling import Guidance, Side
from contract.stages import Stages

SEEDS = "seeds"
"""The prompt set of models that draw without a prompt: their pictures are told apart by seeds alone."""


class CatalogueError(ContractError):
    code = "invalid-catalogue"


class ModelDescription(BaseModel):
    """One model: its family, where its weights are (a folder or a hub id), what it computes in (`auto`: bfloat16 where
    the device multiplies it, else float32), and the sampling it is meant for. Workers add what a picture is asked with
    (`asked`), which follows from the family."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    source: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    width: Side = 512
    height: Side = 512
    max_width: Side = 1024
    max_height: Side = 1024
    num_inference_steps: int = Field(default=25, ge=1, le=1000)
    guidance_scale: Guidance = 7.5
    asked: Literal["text", "nothing"] = Field(default="text", exclude_if=lambda asked: asked == "text")
    """Left out where it is `text`, which is all that 0.2.0 knows."""


class Catalogue(BaseModel):
    """All that a worker offers, by name; methods with what they do at every stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[Identifier, ModelDescription]
    methods: dict[str, Stages]
    families: tuple[str, ...]
    metrics: tuple[str, ...]
    schedulers: tuple[str, ...]
    presets: dict[str, Recipe]
    prompt_sets: tuple[str, ...]


def read_models(path: Path) -> dict[str, ModelDescription]:
    """The models of a models.toml, relative `source` folders resolved against the file's own folder.

    Raises CatalogueError, naming the file and the fault."""
    try:
        models = _MODELS.validate_python(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise CatalogueError(f"models file {path}: {faults(error, _place)}") from error
    if not models:
        raise CatalogueError(f"models file {path}: it names no model; give one table for each")
    return {name: _resolved(model, path.parent) for name, model in models.items()}


def _place(parts: Place) -> str:
    """`[model] field`; pydantic marks a faulty name by a further part."""
    model, *field = (str(part) for part in parts if part != "[key]")
    return " ".join((f"[{model}]", *field))


def _resolved(model: ModelDescription, folder: Path) -> ModelDescription:
    """A source that is no hub id (`owner/name`) is a folder, even while it is not there."""
    local = (folder / model.source).resolve()
    on_hub = model.source.count("/") == 1 and not model.source.startswith((".", "/")) and not local.exists()
    return model if on_hub else model.model_copy(update={"source": str(local)})


_MODELS = TypeAdapter(dict[Identifier, ModelDescription])
