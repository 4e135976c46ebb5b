"""The web page: gradio inside the gateway, talking to the service over its own HTTP API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Scope

from app.ui.api import Api
from app.ui.page import build_page
from app.ui.theme import make_theme

STYLE = Path(__file__).with_name("page.css")


class PageMount(Mount):
    """The page answers every path that no route has, except below /v1: there a client meets the API's own errors."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        super().__init__("/", app=app)
        self._others = tuple(routes)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the page answers this request. A route's path asked for with a wrong method is the route's matter."""
        below = f"{scope['path']}/".startswith(f"{scope.get('root_path', '')}/v1/")
        if below or any(route.matches(scope)[0] == Match.PARTIAL for route in self._others):
            return Match.NONE, {}
        return super().matches(scope)


def mount(app: FastAPI) -> FastAPI:
    """Put the page at "/". Every route that `app` has already wins over it; nothing is fetched from elsewhere."""
    page = build_page(Api(app))
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=1,
        theme=make_theme(),
        css_paths=STYLE,
    )
    gradio_mount = app.router.routes.pop()
    app.router.routes.append(PageMount(gradio_mount.app, app.router.routes))  # type: ignore[attr-defined]
    return app
