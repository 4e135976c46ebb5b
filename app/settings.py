"""The gateway's settings, from environment variables named FACSIMILE_*."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from contract.kinds import KINDS, JobKind
from contract.settings import SharedSettings
from contract.transitions import JobLimits


class GatewaySettings(SharedSettings):
    """Times are in seconds. docs/operations.md says what each one is for."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    api_keys_file: Path | None = None
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    metrics_port: int = Field(default=9101, ge=0, le=65_000)
    ui: bool = True
    open_jobs: int = Field(default=200, ge=1)
    lease_seconds: float = Field(default=15.0, gt=0)
    max_attempts: int = Field(default=2, ge=1)
    retention_seconds: int = Field(default=86_400, ge=1)
    time_limit_seconds: float = Field(default=3_600.0, gt=0)
    calibration_time_limit_seconds: float = Field(default=86_400.0, gt=0)
    reap_seconds: float = Field(default=2.0, gt=0)
    resend_seconds: float = Field(default=10.0, gt=0)

    def limits(self, kind: JobKind) -> JobLimits:
        """The bounds that a job of this kind is accepted with."""
        long = KINDS[kind].line.background
        return JobLimits(
            lease_seconds=self.lease_seconds,
            max_attempts=self.max_attempts,
            time_limit_seconds=self.calibration_time_limit_seconds if long else self.time_limit_seconds,
            retention_seconds=self.retention_seconds,
        )

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _separated_by_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/\s]+|\*", origin):
                raise ValueError("must hold origins such as https://example.com, without a path, separated by commas")
        return origins

    @model_validator(mode="after")
    def _any_origin_only_with_keys(self) -> Self:
        if self.api_keys_file is None and "*" in self.cors_origins:
            raise ValueError("without FACSIMILE_API_KEYS_FILE no * in FACSIMILE_CORS_ORIGINS: any page could use it")
        return self

    @model_validator(mode="after")
    def _open_only_with_keys(self) -> Self:
        if self.api_keys_file is None and not _loopback(self.host):
            raise ValueError(
                "without FACSIMILE_API_KEYS_FILE only a loopback FACSIMILE_HOST is served, such as 127.0.0.1: "
                "anyone who reaches another address could use the service"
            )
        return self


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
