"""The gateway ends even where a cancellation of its background task gets lost."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from fastapi import FastAPI

from app import application


def test_a_lost_cancellation_does_not_keep_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    async def stubborn(_: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def close() -> None:
        closed.append(True)

    async def live() -> None:
        app = FastAPI()
        app.state.services = SimpleNamespace(close=close)
        async with application.lifespan(app):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    monkeypatch.setattr(application, "run_reaper", stubborn)
    asyncio.run(asyncio.wait_for(live(), timeout=20))
    assert closed == [True]
