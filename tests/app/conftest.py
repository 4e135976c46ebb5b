from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, sync_playwright

from app.application import create_app
from app.settings import GatewaySettings
from contract.job_store import JobStore
from tests.support.gateway import connect, make_settings
from tests.support.serving import CHROMIUM_FLAGS
from tests.support.tools import tool
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module, not of the session: while playwright's loop runs, other tests could run none of their own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium", "chromium"), args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def store(valkey: Valkey) -> Iterator[JobStore]:
    with closing(connect(valkey)) as store:
        yield store


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return make_settings(tmp_path)


@pytest.fixture
def client(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> Iterator[TestClient]:
    with TestClient(create_app(settings, valkey.url), raise_server_exceptions=False) as client:
        yield client
