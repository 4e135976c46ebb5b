"""Models: what can be asked for by name."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.errors import NotFound
from app.openapi import problems
from app.services import Services, Shared
from contract.catalogue import ModelDescription
from contract.payloads import REFERENCE

router = APIRouter(prefix="/v1/models", tags=["models"], responses=problems(401, 503))


class ModelAnswer(BaseModel):
    """A model, the sampling it is meant for, its variants, and those that a live worker holds in memory. `asked`
    is what a picture is drawn from: a prompt, or nothing but a seed."""

    id: str
    family: str
    dtype: str
    width: int
    height: int
    max_width: int
    max_height: int
    num_inference_steps: int
    guidance_scale: float
    asked: Literal["text", "nothing"]
    variants: list[str]
    loaded: list[str]


class ModelList(BaseModel):
    """All models."""

    data: list[ModelAnswer]


@router.get("", summary="List models")
async def list_models(services: Shared) -> ModelList:
    """The models that workers offer."""
    models = (await services.catalogue()).models
    loaded = await _loaded(services)
    return ModelList(data=[_answer(services, name, model, loaded) for name, model in models.items()])


@router.get("/{model}", summary="Look at a model", responses=problems(404))
async def get_model(model: str, services: Shared) -> ModelAnswer:
    """A model, its native sampling and its variants."""
    models = (await services.catalogue()).models
    if model not in models:
        raise NotFound("there is no such model")
    return _answer(services, model, models[model], await _loaded(services))


async def _loaded(services: Services) -> set[tuple[str, str]]:
    live = [item.announcement for item in await services.heard() if item.live]
    return {(held.model, held.variant) for announcement in live for held in announcement.loaded}


def _answer(services: Services, name: str, model: ModelDescription, loaded: set[tuple[str, str]]) -> ModelAnswer:
    variants = [REFERENCE, *(published.card.variant for published in services.registry.variants(name))]
    return ModelAnswer(
        id=name,
        **model.model_dump(exclude={"source", "asked"}),
        asked=model.asked,
        variants=variants,
        loaded=[variant for variant in variants if (name, variant) in loaded],
    )
