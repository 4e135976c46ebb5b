"""`Prefer` as RFC 7240 has it, and what becomes of it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.preferences import preferences
from tests.support.gateway import GENERATION


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["wait=10"], {"wait": "10"}),
        (["respond-async, wait=10"], {"respond-async": "", "wait": "10"}),
        (["respond-async", "wait=10"], {"respond-async": "", "wait": "10"}),
        (["Wait = 10"], {"wait": "10"}),
        (['wait="10"'], {"wait": "10"}),
        (["wait=10; x=1; y, other=2"], {"wait": "10", "other": "2"}),
        (["wait=10, wait=20"], {"wait": "10"}),
        (['note="a, wait=5", wait=7'], {"note": "a, wait=5", "wait": "7"}),
        (['note="a \\" b", wait=7'], {"note": 'a " b', "wait": "7"}),
        (["foo; wait=9"], {"foo": ""}),
        (['lenient, return=minimal; foo="some, parameter", wait=3'], {"lenient": "", "return": "minimal", "wait": "3"}),
        (["=5, wait=7"], {"wait": "7"}),
        (["wait 10, (x), a=b=c, ok"], {"ok": ""}),
        (['x="open, wait=7'], {"wait": "7"}),
        (["wait="], {"wait": ""}),
        (["", ",,", " , "], {}),
    ],
)
def test_preferences_are_read(lines: list[str], found: dict[str, str]) -> None:
    assert preferences(lines) == found


@pytest.mark.parametrize("text", ['"' * 5000, "a;" * 5000, "=," * 5000, "\\" * 5000, '"\\' * 5000, 'a="' + "a" * 5000])
def test_hostile_preferences_cost_nothing(text: str) -> None:
    preferences([text])


@pytest.mark.parametrize(
    ("value", "applied"),
    [
        ("wait=1", "wait=1"),
        ('respond-async, WAIT="1" ; x=y', "wait=1"),
        ("wait=0", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=٣", None),
        ("return=minimal", None),
    ],
)
def test_what_is_applied_is_said(client: TestClient, value: str, applied: str | None) -> None:
    headers = [(b"Prefer", value.encode())]
    answer = client.post("/v1/generations", json=GENERATION, headers=headers)
    assert answer.status_code == 202
    assert answer.headers.get("preference-applied") == applied


@pytest.mark.parametrize("value", ["wait=61", "wait=100000", "wait=" + "9" * 500])
def test_a_long_wait_is_capped(client: TestClient, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.waiting.MAX_WAIT", 1)
    answer = client.post("/v1/generations", json=GENERATION, headers={"Prefer": value})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
