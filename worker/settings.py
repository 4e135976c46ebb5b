"""The worker's settings, from environment variables named FACSIMILE_*."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from contract.patterns import REDIS_URL
from contract.places import shipped
from contract.settings import SharedSettings


class WorkerSettings(SharedSettings):
    """Times are in seconds. docs/operations.md says what each one is for."""

    redis_url: str = Field(pattern=REDIS_URL)
    prompts: Path = shipped("prompts")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pipelines: int = Field(default=4, ge=2, description="pipelines kept in memory; a comparison needs two")
    poll_seconds: float = Field(default=5.0, gt=0)
    heartbeat_seconds: float = Field(default=3.0, gt=0)
    unheard_seconds: float = Field(default=300.0, gt=0)
    stall_seconds: float = Field(default=600.0, gt=0)
    drain_seconds: float = Field(default=5.0, ge=0)
