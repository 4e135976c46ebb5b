"""What one process of the study is told: the recipe to follow, how to measure, and where things are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmarks.result import RESULTS
from contract.places import ROOT, shipped
from quant.cli.options import CACHE, MODELS, PROMPTS
from quant.fidelity.backbone import BACKBONE_FOLDER
from quant.sampling.seeds import EVALUATION_SEED


class Protocol(BaseModel):
    """How every arm is made and measured. The first of `prompt_sets` is the primary one; `held_out` prompts are those
    of the card's own report, which the study does not use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "shapes-sd"
    calibrate_on: str = "shapes-plain"
    prompt_sets: tuple[str, ...] = ("shapes-plain", "shapes-ornate")
    limit: int = 512
    seed: int = EVALUATION_SEED
    held_out: int = 8

    def of(self, group: str | None) -> Protocol:
        """The protocol of a preset's arm (None), or of an ablation: that is drawn for the primary prompt set alone."""
        return self if group is None else self.model_copy(update={"prompt_sets": self.prompt_sets[:1]})


class Places(BaseModel):
    """Files and folders: what is read, where variants and journals are kept, and where results go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Path = MODELS
    prompts: Path = PROMPTS
    recipes: Path = shipped("recipes")
    backbones: Path = BACKBONE_FOLDER
    variants: Path = ROOT / "data" / "methods"
    cache: Path = CACHE
    results: Path = RESULTS / "methods"

    def result(self, arm: str) -> Path:
        """The file of a finished arm."""
        return self.results / f"{arm}.json"

    def log(self, arm: str) -> Path:
        """What the process of an arm writes."""
        return self.variants / "log" / f"{arm}.log"


class Task(BaseModel):
    """One arm, for the process that measures it. `recipe` is as `recipe_json` gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    preset: str
    bits: str
    group: str | None
    recipe: dict[str, Any]
    stages: dict[str, Any]
    protocol: Protocol
    places: Places
    drop: bool = False
