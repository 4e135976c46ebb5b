"""The routes, one noun per file; those of a kind of job are in the file that is named like it, in the plural."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from fastapi import APIRouter

from contract.kinds import JobKind


def routes_of(kind: JobKind) -> APIRouter:
    """The routes of a kind of job."""
    return cast(APIRouter, import_module(f"app.routes.{kind}s").router)
