"""The web page in a real browser, against the real gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.settings import GatewaySettings
from contract.images import ImageStore
from tests.support.browsing import PATIENCE, opened, tab
from tests.support.cards import stage
from tests.support.gateway import ANNOUNCEMENT, connect, make_settings
from tests.support.pretend_worker import PICTURE, PretendWorker
from tests.support.serving import serving
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> GatewaySettings:
    return make_settings(tmp_path_factory.mktemp("page")).model_copy(update={"ui": True})


@pytest.fixture(scope="module")
def worker(settings: GatewaySettings, valkey: Valkey) -> Iterator[PretendWorker]:
    images = ImageStore(settings.data_dir / "images")
    with closing(connect(valkey)) as store, PretendWorker(store, images, ANNOUNCEMENT) as worker:
        yield worker


@pytest.fixture(scope="module")
def url(settings: GatewaySettings, valkey: Valkey, worker: PretendWorker) -> Iterator[str]:
    with serving(settings, valkey.url) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with opened(browser, url) as page:
        expect(page.get_by_label("Model").first).to_have_value("tiny")
        yield page


def test_the_page_shows_its_tabs(page: Page) -> None:
    expect(page).to_have_title("Facsimile")
    assert page.get_by_role("tab").all_inner_texts() == ["Generate", "Compare", "Variants", "Calibrate", "Evaluate"]


def test_nothing_is_fetched_from_elsewhere(browser: Browser, url: str) -> None:
    with browser.new_context() as context:
        asked: list[str] = []
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        expect(page.get_by_label("Model").first).to_have_value("tiny", timeout=PATIENCE)
        for name in ("Compare", "Variants", "Calibrate", "Evaluate"):
            tab(page, name)
    assert asked
    assert not [address for address in asked if not address.startswith((url, "data:", "blob:"))]


def test_a_prompt_becomes_a_picture_with_its_seed(page: Page, url: str) -> None:
    panel = tab(page, "Generate")
    panel.get_by_label("Seed").fill("77")
    panel.get_by_role("button", name="Generate").click()
    expect(panel.get_by_role("status")).to_contain_text("Done in")
    expect(panel.get_by_text(re.compile(r"Seed 77 · 0\.50 s"))).to_be_visible()
    source = panel.locator("#pictures img").first.get_attribute("src")
    assert source
    assert httpx.get(source).content == PICTURE


def test_an_error_of_the_service_is_a_sentence(page: Page) -> None:
    panel = tab(page, "Generate")
    panel.get_by_label("Prompt").fill("   ")
    panel.get_by_role("button", name="Generate").click()
    expect(panel.get_by_role("status")).to_have_text("Prompt: must not be blank.")
    expect(panel.get_by_role("button", name="Generate")).to_be_enabled()


def test_a_seed_in_words_is_refused_before_anything_is_sent(page: Page) -> None:
    panel = tab(page, "Generate")
    panel.get_by_label("Seed").fill("lucky")
    panel.get_by_role("button", name="Generate").click()
    expect(panel.get_by_role("status")).to_have_text("The seed must be a whole number, not 'lucky'.")


def test_a_running_job_can_be_stopped(page: Page, worker: PretendWorker) -> None:
    panel = tab(page, "Generate")
    worker.hold.set()
    try:
        panel.get_by_role("button", name="Generate").click()
        expect(panel.get_by_role("status")).to_contain_text("Denoise: 1 of 2")
        panel.get_by_role("button", name="Stop").click()
        expect(panel.get_by_role("status")).to_have_text("Stopped.")
    finally:
        worker.hold.clear()


def test_a_comparison_shows_figures_beside_the_noise_floor(page: Page) -> None:
    panel = tab(page, "Compare")
    expect(panel.get_by_label("Variant")).to_have_value("shipped-one")
    panel.get_by_role("button", name="Compare").click()
    expect(panel.get_by_role("status")).to_contain_text("Done in")
    for text in ("33.12", "61.25 [60.50, 62.00]", "∞ (identical)", "not measured"):
        expect(panel.get_by_text(text).locator("visible=true").first).to_be_visible()
    expect(panel.locator("img")).not_to_have_count(0)


def test_variants_are_listed_with_their_cards(page: Page) -> None:
    panel = tab(page, "Variants")
    row = panel.get_by_text("shipped-one").locator("visible=true").first
    expect(row).to_be_visible()
    row.click()
    expect(panel.get_by_text('"calibration_prompt_ids"')).to_be_visible()


def test_a_calibration_shows_the_new_card(page: Page) -> None:
    panel = tab(page, "Calibrate")
    panel.get_by_label("Name of the new variant").fill("made-here")
    panel.get_by_role("button", name="Calibrate").click()
    expect(panel.get_by_role("heading", name="tiny:made-here")).to_be_visible()


def test_an_evaluation_shows_figures_beside_the_floors_and_its_report(page: Page, url: str) -> None:
    panel = tab(page, "Evaluate")
    expect(panel.get_by_text("tiny-prompts")).to_be_visible()
    panel.get_by_label("Prompts of each set").fill("32")
    panel.get_by_role("button", name="Evaluate").click()
    expect(panel.get_by_role("status")).to_contain_text("Done in")
    expect(panel.get_by_role("heading", name="tiny-prompts")).to_be_visible()
    for text in ("33.12 [32.50, 34.00]", "floor: bfloat16", "61.25 [60.50, 62.00]"):
        expect(panel.get_by_text(text).locator("visible=true").first).to_be_visible()
    with page.expect_popup() as popup:
        panel.get_by_role("link", name="Read the whole report").click()
    expect(popup.value).to_have_title("32 prompts")
    assert popup.value.url.startswith(f"{url}/v1/reports/")
    with page.expect_download() as download:
        panel.get_by_text("Download the report").click()
    assert Path(download.value.path()).read_text() == "<title>32 prompts</title>"
    expect(tab(page, "Variants").get_by_role("link", name="Report").first).to_be_visible()


def test_one_of_several_variants_can_be_evaluated(page: Page, settings: GatewaySettings) -> None:
    stage(settings.variants / "tiny" / "shipped-two", variant="shipped-two")
    page.reload()
    expect(page.get_by_label("Model").first).to_have_value("tiny")
    panel = tab(page, "Evaluate")
    panel.get_by_label("Variants").click()
    page.get_by_role("option", name="shipped-two").click()
    expect(page.get_by_role("option", name="shipped-two", selected=True)).to_be_visible()
    panel.get_by_role("button", name="Evaluate").click()
    expect(panel.get_by_role("status")).to_contain_text("Done in")
    expect(panel.get_by_role("cell", name="shipped-two")).to_be_visible()
    expect(panel.get_by_role("cell", name="shipped-one")).to_have_count(0)


def test_no_prompts_to_evaluate_on_is_a_sentence(page: Page) -> None:
    panel = tab(page, "Evaluate")
    panel.get_by_label("Prompts of each set").fill("")
    panel.get_by_role("button", name="Evaluate").click()
    expect(panel.get_by_role("status")).to_have_text("Prompts of each set: must be at least 1.")


def test_a_service_with_keys_asks_for_one(
    browser: Browser, settings: GatewaySettings, valkey: Valkey, worker: PretendWorker, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("open-sesame-please\n")
    with serving(settings.model_copy(update={"api_keys_file": keys}), valkey.url) as url, opened(browser, url) as page:
        expect(page.get_by_text("This service asks for a valid API key.")).to_be_visible()
        page.get_by_label("API key").fill("open-sesame-please")
        page.get_by_label("API key").press("Enter")
        expect(page.get_by_label("Model").first).to_have_value("tiny")
        panel = tab(page, "Generate")
        panel.get_by_role("button", name="Generate").click()
        expect(panel.get_by_role("status")).to_contain_text("Done in")
        panel = tab(page, "Evaluate")
        panel.get_by_role("button", name="Evaluate").click()
        expect(panel.get_by_text("Download the report")).to_be_visible()
        assert panel.get_by_role("link", name="Read the whole report").count() == 0  # a browser has no key to send
