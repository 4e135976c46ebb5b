"""What stands in the forms: sensible defaults first, then the reader's choice, whatever fills the lists again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.settings import GatewaySettings
from app.ui.sampling import sampling_body
from contract.announcements import Announcement, announce
from contract.broker import WORKER_TIMEOUTS
from contract.card import Statistic
from contract.images import ImageStore
from contract.job_store import JobStore
from contract.recipe import Recipe
from tests.support.browsing import choose, enter, opened, tab
from tests.support.cards import card
from tests.support.gateway import CATALOGUE, make_settings
from tests.support.pretend_worker import PretendWorker
from tests.support.serving import serving
from tests.support.valkey import Valkey

TINY = CATALOGUE.models["tiny"]
OFFERED = CATALOGUE.model_copy(
    update={
        "models": {
            "first": TINY,
            "tiny": TINY.model_copy(update={"num_inference_steps": 7}),
            "seeds-alone": TINY.model_copy(update={"asked": "nothing"}),
        },
        "presets": {name: Recipe(method="minmax") for name in ("best-w3a8", "minmax-w8a8", "tfmq-w4a8")},
        "prompt_sets": ("ornate", "plain"),
    }
)
ANNOUNCEMENT = Announcement(
    worker="w", queues=("generate.tiny", "calibrate", "evaluate"), device="cpu", catalogue=OFFERED, loaded=()
)
MEASURED = {"a-poor": 20.0, "b-good": 48.5, "c-fair": 33.0}
"""Variants of both models, and their psnr."""


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    settings = make_settings(tmp_path).model_copy(update={"ui": True})
    for model in OFFERED.models:
        for variant, psnr in MEASURED.items():
            publish(settings, model, variant, psnr)
    return settings


@pytest.fixture
def store(valkey: Valkey) -> Iterator[JobStore]:
    """Of a service that no worker has spoken to."""
    valkey.client.flushall()
    with closing(JobStore(valkey.url, WORKER_TIMEOUTS)) as store:
        yield store


@pytest.fixture
def url(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> Iterator[str]:
    with PretendWorker(store, ImageStore(settings.data_dir / "images")), serving(settings, valkey.url) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str, store: JobStore) -> Iterator[Page]:
    store.run(announce(ANNOUNCEMENT))
    with opened(browser, url) as page:
        expect(page.get_by_label("Model").first).to_have_value("first")
        yield page


def publish(settings: GatewaySettings, model: str, variant: str, psnr: float) -> Path:
    folder = settings.variants / model / variant
    (folder / "unet").mkdir(parents=True)
    made = card(model, variant)
    report = made.report.model_copy(update={"metrics": {"psnr": Statistic(mean=psnr, count=1)}})
    (folder / "card.json").write_text(made.model_copy(update={"report": report}).model_dump_json())
    (folder / "unet" / "weights").write_bytes(b"w")
    return folder


def test_the_defaults_are_a_cheap_preset_and_the_most_faithful_variant(page: Page) -> None:
    for name in ("Generate", "Compare"):
        expect(tab(page, name).get_by_label("Variant", exact=True)).to_have_value("b-good")
    expect(tab(page, "Calibrate").get_by_label("Preset")).to_have_value("minmax-w8a8")


def test_a_model_without_a_prompt_is_not_asked_for_one(page: Page) -> None:
    panel = tab(page, "Generate")
    expect(panel.get_by_label("Prompt", exact=True)).to_be_visible()
    choose(panel, "Model", "seeds-alone")
    expect(panel.get_by_label("Prompt", exact=True)).to_be_hidden()
    assert "prompt" not in sampling_body("", "seeds-alone", "b-good", 5, 4.0, "")
    choose(panel, "Model", "tiny")
    expect(panel.get_by_label("Prompt", exact=True)).to_be_visible()
    panel = tab(page, "Calibrate")
    choose(panel, "Model", "seeds-alone")
    expect(panel.get_by_label("Prompt set", exact=True)).to_have_value("seeds")
    panel = tab(page, "Evaluate")
    choose(panel, "Model", "seeds-alone")
    expect(panel.get_by_text("seeds", exact=True).locator("visible=true")).to_be_visible()


def test_every_form_keeps_what_was_chosen_when_the_lists_are_filled_again(
    page: Page, settings: GatewaySettings
) -> None:
    for name, variant in (("Generate", "reference"), ("Compare", "c-fair")):
        panel = tab(page, name)
        choose(panel, "Model", "tiny")
        expect(panel.get_by_label("Steps").first).to_have_value("7")
        enter(panel.get_by_label("Steps").first, "5")
        choose(panel, "Variant", variant)
    panel = tab(page, "Evaluate")
    choose(panel, "Model", "tiny")
    choose(panel, "Variants", "c-fair")
    choose(panel, "Prompt sets", "plain")
    page.keyboard.press("Escape")
    panel = tab(page, "Calibrate")
    choose(panel, "Model", "tiny")
    choose(panel, "Preset", "tfmq-w4a8")
    choose(panel, "Prompt set", "plain")
    panel.get_by_label("Name of the new variant").fill("mine")
    publish(settings, "tiny", "0-new", 60.0)  # so that the lists have something new to show, at their head
    panel.get_by_role("button", name="Calibrate").click()
    expect(panel.get_by_role("heading", name="tiny:mine")).to_be_visible()
    expect(tab(page, "Variants").get_by_text("0-new").locator("visible=true").first).to_be_visible()
    panel = tab(page, "Calibrate")
    for label, value in (("Model", "tiny"), ("Preset", "tfmq-w4a8"), ("Prompt set", "plain")):
        expect(panel.get_by_label(label, exact=True)).to_have_value(value)
    expect(panel.get_by_label("Name of the new variant")).to_have_value("mine")
    for name, variant in (("Generate", "reference"), ("Compare", "c-fair")):
        panel = tab(page, name)
        expect(panel.get_by_label("Model", exact=True)).to_have_value("tiny")
        expect(panel.get_by_label("Variant", exact=True)).to_have_value(variant)
        expect(panel.get_by_label("Steps").first).to_have_value("5")
        panel.get_by_label("Variant", exact=True).click()
        expect(page.get_by_role("option", name="0-new", exact=True)).to_be_visible()
        page.keyboard.press("Escape")
    panel = tab(page, "Evaluate")
    expect(panel.get_by_label("Model", exact=True)).to_have_value("tiny")
    panel.get_by_role("button", name="Evaluate").click()
    expect(panel.get_by_role("cell", name="c-fair")).to_have_count(2)
    for name in ("ornate", "plain"):
        expect(panel.get_by_role("heading", name=name, exact=True)).to_be_visible()
    assert panel.get_by_role("cell", name="0-new").count() == 0


def test_a_choice_that_is_offered_no_more_gives_way_to_the_default(page: Page, settings: GatewaySettings) -> None:
    choose(tab(page, "Generate"), "Variant", "c-fair")
    shutil.rmtree(settings.variants / "first" / "c-fair")
    panel = tab(page, "Calibrate")
    panel.get_by_role("button", name="Calibrate").click()
    expect(panel.get_by_role("status")).to_contain_text("Done in")
    expect(tab(page, "Generate").get_by_label("Variant", exact=True)).to_have_value("b-good")


def test_another_model_keeps_a_variant_that_it_has_too(page: Page, settings: GatewaySettings) -> None:
    panel = tab(page, "Generate")
    choose(panel, "Variant", "a-poor")
    choose(panel, "Model", "tiny")
    expect(panel.get_by_label("Steps").first).to_have_value("7")
    expect(panel.get_by_label("Variant", exact=True)).to_have_value("a-poor")


def test_lists_fill_by_themselves_when_a_worker_is_ready(browser: Browser, url: str, store: JobStore) -> None:
    with opened(browser, url) as page:
        expect(page.get_by_text("No worker has started yet")).to_be_visible()
        store.run(announce(ANNOUNCEMENT))
        expect(page.get_by_label("Model").first).to_have_value("first")
        expect(page.get_by_text("No worker has started yet")).to_be_hidden()
        expect(tab(page, "Calibrate").get_by_label("Preset")).to_have_value("minmax-w8a8")
        expect(tab(page, "Evaluate").get_by_label("Model", exact=True)).to_have_value("first")


@pytest.mark.parametrize("name", ["Größe", "Mine!", "-x", "a b"])
def test_a_name_that_cannot_be_is_answered_with_the_rule_not_its_pattern(page: Page, name: str) -> None:
    panel = tab(page, "Calibrate")
    panel.get_by_label("Name of the new variant").fill(name)
    panel.get_by_role("button", name="Calibrate").click()
    expect(panel.get_by_role("status")).to_have_text(
        "Variant: a name has 1 to 64 lower-case letters, digits and hyphens, and no hyphen first."
    )
