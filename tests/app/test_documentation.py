"""The API's own page in a real browser without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from contract.places import ROOT
from tests.support.gateway import connect, make_settings
from tests.support.serving import CHROMIUM_FLAGS, serving
from tests.support.tools import tool
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[str]:
    settings = make_settings(tmp_path_factory.mktemp("docs"))
    with closing(connect(valkey)), serving(settings, valkey.url) as url:
        yield url


def test_the_page_renders_and_asks_nobody_else(url: str) -> None:
    chromium = tool("chromium", "chromium")
    with sync_playwright() as playwright:
        # no name resolves: whatever is not on this machine fails
        flags = [*CHROMIUM_FLAGS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{url}/docs")
        expect(page.get_by_role("heading", name="Facsimile")).to_be_visible(timeout=60_000)
        page.locator("#operations-generations-create_generation").click()
        expect(page.get_by_text("Ask for a generation")).to_be_visible()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("422")
        browser.close()
    assert len(asked) > 3
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    assert [fault for fault in faults if "422" not in fault] == []


def test_only_the_pages_own_files_are_served(url: str) -> None:
    script = httpx.get(f"{url}/docs/swagger-ui-bundle.js")
    assert script.status_code == 200
    assert "immutable" in script.headers["cache-control"]
    for name in ("redoc.standalone.js", "..%2f__init__.py", "none"):
        answer = httpx.get(f"{url}/docs/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_no_page_of_the_gateway_names_a_foreign_script() -> None:
    sources = [path for path in ROOT.joinpath("app").rglob("*") if path.is_file()]
    texts = [path.read_text("utf-8") for path in sources if path.suffix in (".py", ".css", ".html", ".js")]
    assert texts
    assert not [text for text in texts if "cdn." in text or "googleapis" in text]
