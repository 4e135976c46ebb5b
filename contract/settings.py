"""Settings that gateway and worker share, from environment variables named FACSIMILE_*. Each process extends them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import ContractError
from contract.faults import faults
from contract.patterns import REDIS_URL
from contract.places import models_folder, shipped

PREFIX = "FACSIMILE_"
NAMES = frozenset(
    {
        "ALLOWED_HOSTS",
        "API_KEYS_FILE",
        "CALIBRATION_TIME_LIMIT_SECONDS",
        "CORS_ORIGINS",
        "DATA_DIR",
        "DEVICE",
        "DRAIN_SECONDS",
        "HEARTBEAT_SECONDS",
        "HOST",
        "LEASE_SECONDS",
        "MAX_ATTEMPTS",
        "MAX_CPU_ISA",
        "METRICS_PORT",
        "MODELS",
        "OPEN_JOBS",
        "PIPELINES",
        "POLL_SECONDS",
        "PORT",
        "PROMPTS",
        "REAP_SECONDS",
        "RECIPES",
        "REDIS_URL",
        "RESEND_SECONDS",
        "RETENTION_SECONDS",
        "STALL_SECONDS",
        "TIME_LIMIT_SECONDS",
        "UI",
        "UNHEARD_SECONDS",
        "VARIANTS",
    }
)
"""The settings of all processes, which share one environment; a test holds this list against the classes."""


class SettingsError(ContractError):
    """A setting that does not exist."""

    code = "invalid-settings"


class SharedSettings(BaseSettings):
    """`redis_url`: the broker. `data_dir`: pictures and variants made here. `variants`: those shipped with the code.
    `models` and `recipes` are the workers'; who starts workers looks whether they can be read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    redis_url: str | None = Field(default=None, pattern=REDIS_URL)
    data_dir: Path = Path("data")
    variants: Path = models_folder() / "variants"
    models: Path = models_folder() / "models.toml"
    recipes: Path = shipped("recipes")


def check_names(environment: Mapping[str, str]) -> None:
    """Raises SettingsError for a variable that looks like a setting and is none: a typo must not be a default."""
    for name in sorted(environment):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in NAMES:
            near = difflib.get_close_matches(name, [PREFIX + known for known in NAMES], n=1)
            hint = f"; did you mean {near[0]}?" if near else "; docs/operations.md lists those that there are"
            raise SettingsError(f"{name}: there is no such setting{hint}")


def explain(error: ValidationError) -> str:
    """What is wrong with the settings, in one line, by the variables' names and without their values."""
    return faults(error, lambda place: f"{PREFIX}{'_'.join(map(str, place)).upper()}")
