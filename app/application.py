"""The gateway as an ASGI application: a table of contents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from app.api_keys import authorized
from app.errors import add_error_handlers
from app.middleware.answer_headers import AnswerHeaders
from app.middleware.cors import cors
from app.middleware.crowd import Crowd
from app.middleware.head import HeadAsGet
from app.middleware.hosts import Hosts
from app.middleware.plain_errors import PlainErrors
from app.openapi import DESCRIPTION, TITLE, describe
from app.reaper import run_reaper
from app.request_log import RequestLog
from app.routes import catalogue, documentation, health, images, metrics, models, reports, routes_of, variants
from app.services import start_services
from app.settings import GatewaySettings
from contract.kinds import JobKind
from contract.release import RELEASE

LARGE = 1024 * 1024
"""Bytes of a body: for calibrations, which may bring a thousand prompts, and for the web page. Other jobs have less."""

_NOUNS = (models, variants, catalogue, images, reports)
"""Whose routes ask for a key, as those of jobs do."""


def create_app(settings: GatewaySettings, redis_url: str) -> FastAPI:
    """The application. Raises ContractError for an unreadable file of keys."""
    app = FastAPI(
        title=TITLE,
        version=RELEASE,
        description=DESCRIPTION,
        docs_url=None,  # app.routes.documentation has it, without foreign scripts
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,  # one class per model in generated clients
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.stopping = asyncio.Event()
    app.state.services = start_services(settings, redis_url)
    for layer in _layers(settings):
        app.add_middleware(layer.cls, *layer.args, **layer.kwargs)
    add_error_handlers(app)
    for router in (*map(routes_of, JobKind), *(noun.router for noun in _NOUNS)):
        app.include_router(router, dependencies=[Depends(authorized)])
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(documentation.router)
    describe(app)
    if settings.ui:
        from app.ui import mount

        return mount(app)
    return app


def _layers(settings: GatewaySettings) -> list[Middleware]:
    """What a request passes on its way in, the innermost first."""
    layers = [Middleware(RequestBodyLimitMiddleware, LARGE), Middleware(Hosts, settings), Middleware(Crowd)]
    if settings.cors_origins:
        layers.append(cors(settings.cors_origins))
    return [*layers, Middleware(PlainErrors), Middleware(HeadAsGet), Middleware(AnswerHeaders), Middleware(RequestLog)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    reaper = asyncio.create_task(run_reaper(app.state.services))
    try:
        yield
    finally:
        while not reaper.done():  # a cancellation can get lost in asyncio.wait_for (Python 3.11), which redis uses
            reaper.cancel()
            await asyncio.wait({reaper}, timeout=1.0)
        await app.state.services.close()
