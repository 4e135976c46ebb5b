"""The page beside the API: every route wins over it, and below /v1 a client never meets it. No browser is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.application import create_app
from app.settings import GatewaySettings
from app.ui.api import Api, KeyNeeded, Offer, ServiceError
from app.ui.evaluate import summary
from app.ui.numbers import figure, report_link, statistic
from contract.card import Statistic
from contract.job_store import JobStore
from contract.kinds import JobKind
from contract.results import EvaluationResult
from tests.support.gateway import GENERATION
from tests.support.valkey import Valkey


@pytest.fixture
def client(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> Iterator[TestClient]:
    application = create_app(settings.model_copy(update={"ui": True}), valkey.url)
    with TestClient(application, raise_server_exceptions=False) as client:
        yield client


def test_the_page_is_at_the_root(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert 'property="og:title" content="Facsimile"' in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/docs", "/openapi.json", "/v1/models", "/v1/variants"])
def test_routes_win_over_the_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "gradio_config" not in answer.text  # what every page of gradio carries


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("PUT", "/v1/models", 405)])
def test_below_v1_errors_are_problems(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_offers_what_the_api_offers(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> None:
    offer = asyncio.run(_offer(settings, valkey, key=""))
    assert [model.id for model in offer.models] == ["tiny"]
    assert [card.variant for card in offer.cards] == ["shipped-one"]
    assert list(offer.catalogue.presets) == ["minmax-w8a8"]


def test_the_page_sends_the_readers_key(
    settings: GatewaySettings, valkey: Valkey, store: JobStore, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("open-sesame-please\n")
    locked = settings.model_copy(update={"api_keys_file": keys})
    with pytest.raises(KeyNeeded):
        asyncio.run(_offer(locked, valkey, key="wrong"))
    assert asyncio.run(_offer(locked, valkey, key="open-sesame-please")).models


def test_a_refusal_is_the_apis_own_sentence(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> None:
    async def submit() -> None:
        async with Api(create_app(settings, valkey.url)).connect("") as connection:
            await connection.submit(JobKind.GENERATION, GENERATION | {"num_inference_steps": 1000})

    with pytest.raises(ServiceError, match=r"^Steps: must be at most 150\.$"):
        asyncio.run(submit())


@pytest.mark.parametrize(
    ("value", "text"), [(33.125, "33.12"), (0.93, "0.9300"), (1e-6, "1.0e-06"), (0.0, "0.000"), (None, "∞ (identical)")]
)
def test_figures_have_four_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_a_statistic_shows_its_interval_or_why_there_is_none() -> None:
    assert statistic(Statistic(mean=20.0, ci95=(19.0, 21.0), count=9)) == "20.00  [19.00, 21.00]"
    assert statistic(Statistic(mean=None, count=0, reason="all pictures are identical")) == "all pictures are identical"
    assert statistic(None) == "not measured"


def test_a_report_link_leads_where_it_says_and_nowhere_else() -> None:
    assert report_link("/v1/reports/a.html", "Report") == (
        '<a href="/v1/reports/a.html" target="_blank" rel="noopener">Report</a>'
    )
    assert "<script" not in report_link('"><script>', "<script>")


def test_an_evaluation_is_a_table_per_set_with_floors_beside_the_first() -> None:
    figures = {"psnr": Statistic(mean=33.125, count=2), "fid:judge": Statistic(mean=None, count=2, reason="2|few")}
    result = EvaluationResult(
        model="tiny",
        report={"html": "/v1/reports/a.html"},
        variants={"one": {"plain": figures, "ornate": figures}},
        floors={"other_seeds": {"psnr": Statistic(mean=12.5, count=2)}},
        failures={"two": "its files are damaged"},
    )
    assert summary(result).splitlines() == [
        "- **two** could not be measured: its files are damaged",
        "",
        "### plain",
        "",
        "| Mean [95 %] | PSNR (dB) | Fid (judge) |",
        "|---|---|---|",
        "| one | 33.12 | 2\\|few |",
        "| *floor: other seeds* | 12.50 | not measured |",
        "",
        "### ornate",
        "",
        "| Mean [95 %] | PSNR (dB) | Fid (judge) |",
        "|---|---|---|",
        "| one | 33.12 | 2\\|few |",
    ]


async def _offer(settings: GatewaySettings, valkey: Valkey, key: str) -> Offer:
    application = create_app(settings, valkey.url)
    async with Api(application).connect(key) as connection:
        offer = await connection.offer()
    await application.state.services.close()
    return offer
