"""How a picture may be drawn: the same bounds for requests, records, models and recipes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MAX_PROMPT_CHARACTERS = 2_000
MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_PICTURES = 8
SEED_RANGE = 2**32
"""Seeds are 0 to this, exclusive."""

Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
"""A prompt, or a negative one."""

Seed = Annotated[int, Field(ge=0, lt=SEED_RANGE)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
"""Of one picture. Recipes and descriptions of models may have more."""

Guidance = Annotated[float, Field(ge=0.0, le=MAX_GUIDANCE, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=8, multiple_of=8)]
"""Width or height in pixels."""

Pictures = Annotated[int, Field(ge=1, le=MAX_PICTURES)]
"""How many one request makes."""
