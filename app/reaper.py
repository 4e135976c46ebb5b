"""The reaper: repairs in the background what crashes of workers, brokers and gateways leave behind."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import structlog

from app.services import Services
from contract.broker import GATEWAY_TIMEOUTS
from contract.errors import StoreUnavailable
from contract.job_store import AsyncJobStore
from contract.transitions import reap

_SWEEP_INTERVAL = 600.0
_FILE_AGE = 3_600.0
"""Seconds after which a temporary picture or report belongs to nobody: writing one takes far less."""

_log = structlog.get_logger(__name__)


async def run_reaper(services: Services) -> None:
    """Reap and sweep for ever; an error costs one round. The store's connection is the reaper's own, so that no load of
    requests keeps it from work."""
    async with aclosing(AsyncJobStore(services.redis_url, GATEWAY_TIMEOUTS, connections=1)) as store:
        await _rounds(services, store)


async def _rounds(services: Services, store: AsyncJobStore) -> None:
    swept = 0.0
    while True:
        try:
            for token in await store.run(reap(resend_seconds=services.settings.resend_seconds)):
                services.tokens.send(token)
            if time.monotonic() - swept > _SWEEP_INTERVAL or not swept:
                swept = time.monotonic()
                await asyncio.to_thread(_sweep, services)
        except StoreUnavailable as error:
            _log.warning("nothing reaped", error=str(error))
        except Exception:
            _log.exception("reaper failed")
        await asyncio.sleep(services.settings.reap_seconds)


def _sweep(services: Services) -> None:
    pictures = services.images.sweep(_FILE_AGE)
    reports = services.reports.sweep(_FILE_AGE)
    staged = services.registry.sweep(services.settings.calibration_time_limit_seconds + _FILE_AGE)
    if pictures or reports or staged:
        _log.info("swept", pictures=pictures, reports=reports, staged=staged)
