"""What the routes share: settings, stores, keys, and the sender of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from app.api_keys import ApiKeys
from app.errors import NoWorker
from app.settings import GatewaySettings
from app.wake_up import TokenSender
from contract.announcements import Heard, announcements, offered
from contract.broker import GATEWAY_TIMEOUTS
from contract.catalogue import Catalogue
from contract.images import ImageStore
from contract.job_store import AsyncJobStore
from contract.registry import Registry
from contract.reports import ReportStore


@dataclass(frozen=True)
class Services:
    """Made once, when the process starts."""

    settings: GatewaySettings
    store: AsyncJobStore
    images: ImageStore
    registry: Registry
    reports: ReportStore
    keys: ApiKeys
    tokens: TokenSender

    async def heard(self) -> Sequence[Heard]:
        """What the workers announced."""
        return await self.store.run(announcements())

    async def catalogue(self) -> Catalogue:
        """What the workers offer. Raises NoWorker before the first one was heard."""
        catalogue = offered(await self.heard())
        if catalogue is None:
            raise NoWorker("no worker has started yet; try again in a moment")
        return catalogue

    async def close(self) -> None:
        """Close all connections."""
        self.tokens.close()
        await self.store.close()


def start_services(settings: GatewaySettings, redis_url: str) -> Services:
    """The services of one gateway process. Raises ContractError for an unreadable file of keys."""
    return Services(
        settings=settings,
        store=AsyncJobStore(redis_url, GATEWAY_TIMEOUTS),
        images=ImageStore(settings.data_dir / "images"),
        registry=Registry(settings.variants, settings.data_dir),
        reports=ReportStore(settings.data_dir / "reports"),
        keys=ApiKeys.read(settings.api_keys_file),
        tokens=TokenSender(redis_url),
    )


def services_of(request: Request) -> Services:
    """The services of the application that a request came to."""
    return cast(Services, request.app.state.services)


async def _shared(request: Request) -> Services:  # FastAPI would call a plain function in a thread
    return services_of(request)


Shared = Annotated[Services, Depends(_shared)]
