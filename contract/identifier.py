"""Names of models and variants."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

IDENTIFIER_RULE = "1 to 64 lower-case letters, digits and hyphens, and no hyphen first"
IDENTIFIER_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"

Identifier = Annotated[str, Field(pattern=IDENTIFIER_PATTERN)]
"""A model's or a variant's name: see IDENTIFIER_RULE."""


def is_identifier(name: str) -> bool:
    """Whether a model or a variant may have this name."""
    return re.fullmatch(IDENTIFIER_PATTERN, name) is not None
