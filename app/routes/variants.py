"""Variants: quantized copies that are served, each with its card."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.errors import NotFound
from app.openapi import problems
from app.services import Services, Shared
from contract.card import Card
from contract.identifier import Identifier
from contract.reports import report_url

router = APIRouter(prefix="/v1/variants", tags=["variants"], responses=problems(401))


class VariantList(BaseModel):
    """The cards of all variants."""

    data: list[Card]


@router.get("", summary="List variants", responses=problems(422))
def list_variants(services: Shared, model: Annotated[Identifier | None, Query()] = None) -> VariantList:
    """The cards of the published variants, of all models or of one."""
    return VariantList(data=[_linked(published.card, services) for published in services.registry.variants(model)])


@router.get("/{model}/{variant}", summary="Look at a variant", responses=problems(404, 500))
def get_variant(model: str, variant: str, services: Shared) -> Card:
    """A variant's card: how it was made, how faithful it is, and where its latest evaluation report is."""
    published = services.registry.get(model, variant)
    if published is None:
        raise NotFound("there is no such variant")
    return _linked(published.card, services)


def _linked(card: Card, services: Services) -> Card:
    report = services.reports.of_variant(card.digest)
    return card.model_copy(update={"evaluation": report_url(report, "html") if report else None})
