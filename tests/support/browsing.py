"""The page in a browser, as a reader sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Locator, Page, expect

PATIENCE = 60_000
"""Milliseconds that an expectation may take: a busy machine is slow, not wrong."""


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[Page]:
    """The page at an address, loaded; an error of its scripts fails the test."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    page.get_by_role("tab").first.wait_for()
    yield page
    page.close()
    assert not faults


def tab(page: Page, name: str) -> Locator:
    """The panel of a tab, opened."""
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("tabpanel").filter(visible=True)


def choose(panel: Locator, label: str, name: str) -> None:
    """Choose from a list, as a reader does."""
    panel.get_by_label(label, exact=True).click()
    panel.page.get_by_role("option", name=name, exact=True).click()


def enter(field: Locator, value: str) -> None:
    """Type into a field, as a reader does: not within the milliseconds in which the page still fills it."""
    for _ in range(20):
        field.fill(value)
        field.page.wait_for_timeout(500)
        if field.input_value() == value:
            return
    raise AssertionError(f"the field does not keep {value!r}")
