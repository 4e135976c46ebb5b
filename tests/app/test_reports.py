"""Evaluations over HTTP, and the reports that they leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.application import create_app
from app.settings import GatewaySettings
from contract.card import Card
from contract.images import ImageStore
from contract.job_store import JobStore
from contract.kinds import JobKind
from contract.registry import Registry
from tests.support.cards import card, stage
from tests.support.gateway import EVALUATION
from tests.support.pretend_worker import PretendWorker
from tests.support.valkey import Valkey

WAIT = {"Prefer": "wait=30"}


@pytest.fixture
def worker(settings: GatewaySettings, store: JobStore) -> Iterator[PretendWorker]:
    with PretendWorker(store, ImageStore(settings.data_dir / "images")) as worker:
        yield worker


def test_all_variants_are_named_in_the_request(client: TestClient, settings: GatewaySettings) -> None:
    registry = Registry(settings.variants, settings.data_dir)
    registry.publish(stage(registry.stage("own"), variant="own"))
    request = client.post("/v1/evaluations", json=EVALUATION).json()["request"]
    assert request == {
        "model": "tiny",
        "variants": ["own", "shipped-one"],
        "prompt_sets": ["tiny-prompts"],
        "limit": 64,
        "metrics": [],
        "seed": 2_000_000,
    }
    chosen = {**EVALUATION, "variants": ["own"], "metrics": ["psnr", "psnr:judge"], "limit": 5000}
    request = client.post("/v1/evaluations", json=chosen).json()["request"]
    assert (request["variants"], request["metrics"], request["limit"]) == (["own"], ["psnr", "psnr:judge"], 5000)


def test_all_needs_at_least_one_variant_and_takes_no_more_than_one_job_can(
    client: TestClient, settings: GatewaySettings
) -> None:
    for i in range(16):
        stage(settings.variants / "tiny" / f"v{i}", variant=f"v{i}")
    many = client.post("/v1/evaluations", json=EVALUATION)
    assert many.json()["errors"] == [{"loc": ["body", "variants"], "msg": "tiny has 17: name at most 16 of them"}]
    settings.variants.rename(settings.variants.with_name("elsewhere"))
    none = client.post("/v1/evaluations", json=EVALUATION)
    assert none.json()["errors"] == [{"loc": ["body", "variants"], "msg": "tiny has none yet"}]


def test_evaluations_may_take_as_long_as_calibrations(settings: GatewaySettings) -> None:
    limits = {kind: settings.limits(kind).time_limit_seconds for kind in JobKind}
    assert limits[JobKind.EVALUATION] == limits[JobKind.CALIBRATION] > limits[JobKind.GENERATION]


def test_an_evaluation_becomes_a_report_that_its_variants_card_links(client: TestClient, worker: PretendWorker) -> None:
    assert client.get("/v1/variants/tiny/shipped-one").json()["evaluation"] is None
    answer = client.post("/v1/evaluations", json=EVALUATION, headers=WAIT)
    assert (answer.status_code, answer.json()["kind"]) == (200, "evaluation"), answer.text
    result = answer.json()["result"]
    assert result["variants"]["shipped-one"]["tiny-prompts"]["psnr"]["ci95"] == [32.5, 34.0]
    assert result["floors"]["bfloat16"]["psnr"]["count"] == 64
    assert client.get("/v1/variants/tiny/shipped-one").json()["evaluation"] == result["report"]["html"]
    assert client.get("/v1/variants").json()["data"][0]["evaluation"] == result["report"]["html"]
    other = client.post("/v1/evaluations", json={**EVALUATION, "limit": 2}, headers=WAIT).json()["result"]["report"]
    assert other != result["report"]
    assert client.get("/v1/variants/tiny/shipped-one").json()["evaluation"] == other["html"]


@pytest.mark.parametrize(
    ("form", "media_type"),
    [("html", "text/html; charset=utf-8"), ("json", "application/json"), ("markdown", "text/markdown; charset=utf-8")],
)
def test_reports_are_immutable_and_run_nothing(
    client: TestClient, worker: PretendWorker, form: str, media_type: str
) -> None:
    url = client.post("/v1/evaluations", json=EVALUATION, headers=WAIT).json()["result"]["report"][form]
    answer = client.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.text == "<title>64 prompts</title>"
    assert answer.headers["etag"] == f'"{url.rpartition("/")[2]}"'
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers.get("content-security-policy")
    expected = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy == (f"{expected}; frame-ancestors 'none'" if form == "html" else "frame-ancestors 'none'")
    again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    for wrong in (url.upper(), f"{url}.", f"{url}.gz", url.replace(".", "%00.")):
        assert client.get(wrong).status_code == 404


def test_reports_ask_for_a_key_like_pictures(
    settings: GatewaySettings, valkey: Valkey, store: JobStore, worker: PretendWorker, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-long-enough-key\nsecond-long-enough-key\n")
    with TestClient(create_app(settings.model_copy(update={"api_keys_file": keys}), valkey.url)) as client:
        first, second = ({"Authorization": f"Bearer {key}-long-enough-key"} for key in ("first", "second"))
        job = client.post("/v1/evaluations", json=EVALUATION, headers={**first, **WAIT}).json()
        assert client.get(job["links"]["self"], headers=second).status_code == 404
        url = job["result"]["report"]["html"]
        assert [client.get(url, headers=headers).status_code for headers in ({}, first, second)] == [401, 200, 200]


def test_a_repeated_key_is_the_same_evaluation(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first, second = (client.post("/v1/evaluations", json=EVALUATION, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    other = client.post("/v1/evaluations", json={**EVALUATION, "limit": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


def test_cards_of_earlier_releases_are_read(client: TestClient, settings: GatewaySettings) -> None:
    path = settings.variants / "tiny" / "shipped-one" / "card.json"
    earlier = card(variant="shipped-one").model_dump_json(exclude={"evaluation"})
    assert "evaluation" not in earlier
    path.write_text(earlier)
    assert client.get("/v1/variants/tiny/shipped-one").json()["evaluation"] is None
    assert Card.model_validate_json(earlier) == card(variant="shipped-one")
    path.write_text(card(variant="shipped-one").model_copy(update={"evaluation": "/elsewhere"}).model_dump_json())
    assert client.get("/v1/variants/tiny/shipped-one").json()["evaluation"] is None
