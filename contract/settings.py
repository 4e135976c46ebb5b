"""Settings that gateway and worker share, from environment variables named FACSIMILE_*. Each process extends them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.faults import faults

ROOT = Path(__file__).resolve().parent.parent
"""Where the shipped models, recipes and prompts are, beside the code."""

REDIS_URL = r"^(redis|rediss|unix)://."


class SharedSettings(BaseSettings):
    """`redis_url`: the broker. `data_dir`: pictures and variants made here. `variants`: those shipped with the code."""

    model_config = SettingsConfigDict(env_prefix="FACSIMILE_", extra="ignore", frozen=True, env_ignore_empty=True)

    redis_url: str | None = Field(default=None, pattern=REDIS_URL)
    data_dir: Path = Path("data")
    variants: Path = ROOT / "models" / "variants"


def explain(error: ValidationError) -> str:
    """What is wrong with the settings, in one line, by the variables' names and without their values."""
    return faults(error, lambda place: f"FACSIMILE_{'_'.join(map(str, place)).upper()}")
