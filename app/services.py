"""What the routes share: settings, stores, keys, and the sender of tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from app.acceptance import Acceptance
from app.api_keys import ApiKeys, Owner
from app.errors import NoWorker, TooManyStreams
from app.followers import IN_ALL, OF_ONE_KEY, Followers
from app.offer import Offer
from app.settings import GatewaySettings
from app.wake_up import TokenSender
from contract.announcements import Heard, Roll, RollCall
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
    redis_url: str
    store: AsyncJobStore
    images: ImageStore
    registry: Registry
    reports: ReportStore
    keys: ApiKeys
    tokens: TokenSender
    workers: RollCall = field(default_factory=RollCall)
    followers: Followers = field(default_factory=Followers)

    async def roll(self) -> Roll:
        """What the workers announced."""
        return await self.store.run(self.workers.call())

    async def heard(self) -> tuple[Heard, ...]:
        """The workers that were heard of lately."""
        return (await self.roll()).heard

    async def catalogue(self) -> Catalogue:
        """What the workers offer. Raises NoWorker before the first one was heard."""
        catalogue = (await self.roll()).catalogue
        if catalogue is None:
            raise NoWorker("no worker has started yet; try again in a moment")
        return catalogue

    def acceptance(self, offer: Offer) -> Acceptance:
        """What accepts jobs for a request that was made this offer."""
        return Acceptance(self.store, self.tokens, offer, self.settings.limits, self.settings.open_jobs)

    async def close(self) -> None:
        """Close all connections."""
        self.tokens.close()
        await self.store.aclose()


def start_services(settings: GatewaySettings, redis_url: str) -> Services:
    """The services of one gateway process. Raises ContractError for an unreadable file of keys."""
    return Services(
        settings=settings,
        redis_url=redis_url,
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


async def offer(services: Shared) -> Offer:
    """A dependency, asked for once in a request. Raises NoWorker before the first worker was heard."""
    roll = await services.roll()
    if roll.catalogue is None:
        raise NoWorker("no worker has started yet; try again in a moment")
    return Offer(roll.catalogue, roll)


Offered = Annotated[Offer, Depends(offer)]


async def follower(services: Shared, owner: Owner) -> AsyncIterator[None]:
    """A dependency of streams, until their end. Raises TooManyStreams."""
    if services.followers.full(owner):
        raise TooManyStreams(f"a key may follow {OF_ONE_KEY} jobs at once, and all keys {IN_ALL}; close some streams")
    with services.followers.one_more(owner):
        yield
