"""The card beside a checkpoint's files. Light: reading one imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from contract.card import Card
from quant.errors import CheckpointError

CARD = "card.json"


def read_card(folder: Path) -> Card:
    """The card of a checkpoint. Raises CheckpointError when it is missing or malformed."""
    try:
        return Card.model_validate_json((folder / CARD).read_bytes(), extra="ignore")
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"card of {folder}: {error}") from error
