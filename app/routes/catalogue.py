"""The catalogue: what the workers' code offers, by name."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from app.openapi import problems
from app.services import Shared
from contract.recipe import Recipe
from contract.stages import ORDER, Stages, kinds

router = APIRouter(prefix="/v1/catalogue", tags=["catalogue"], responses=problems(401, 503))


class CatalogueAnswer(BaseModel):
    """Names to use in requests, the stages in the order in which they run with the kinds of option that each has,
    methods with what they do at every stage, and the presets in full."""

    models: list[str]
    stages: dict[str, tuple[str, ...]]
    methods: dict[str, Stages]
    families: list[str]
    metrics: list[str]
    schedulers: list[str]
    prompt_sets: list[str]
    presets: dict[str, Recipe]


@router.get("", summary="Look at the catalogue")
async def get_catalogue(services: Shared) -> CatalogueAnswer:
    """What can be asked for."""
    catalogue = await services.catalogue()
    own = {"models": list(catalogue.models), "stages": {stage: kinds(stage) for stage in ORDER}}
    return CatalogueAnswer.model_validate({**catalogue.model_dump(mode="json"), **own})
