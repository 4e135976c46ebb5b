"""Jobs over HTTP, with the test in the worker's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.application import create_app
from app.settings import GatewaySettings
from contract.images import ImageStore
from contract.job_store import JobStore
from contract.jobs import JobError, JobProgress, JobRecord
from contract.results import GenerationResult
from contract.transitions import Claimant, claim, fail, renew, succeed
from tests.support.gateway import CALIBRATION, COMPARISON, EVALUATION, GENERATION
from tests.support.valkey import Valkey

RESULT = GenerationResult(images=(), seed=1, seconds={"denoise": 0.5}, digest=None, score=None)


def _claim(store: JobStore) -> tuple[JobRecord, Claimant]:
    record = store.run(claim(["generate.tiny", "calibrate", "evaluate"], "test"))
    assert record is not None
    return record, Claimant(record.id, record.attempt)


def test_an_accepted_job_is_complete_and_linked(client: TestClient) -> None:
    answer = client.post("/v1/generations", json=GENERATION)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/v1/generations/{job['id']}"
    assert 0 <= job["request"].pop("seed") < 2**32
    assert job["request"] == {
        "model": "tiny",
        "prompt": "a red cube",
        "negative_prompt": "",
        "variant": "reference",
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "width": 64,
        "height": 64,
        "num_images": 1,
        "scheduler": None,
        "output_format": "png",
        "score": False,
    }
    assert client.get(job["links"]["self"]).json()["status"] == "queued"


def test_a_job_from_acceptance_to_result(client: TestClient, store: JobStore) -> None:
    links = client.post("/v1/generations", json=GENERATION).json()["links"]
    _, claimant = _claim(store)
    store.run(renew(claimant, JobProgress(stage="denoise", step=1, steps=2)))
    running = client.get(links["self"]).json()
    assert (running["status"], running["progress"]["step"]) == ("running", 1)
    store.run(succeed(claimant, RESULT))
    ended = client.get(links["self"]).json()
    assert ended["status"] == "succeeded"
    assert ended["result"]["seconds"] == {"denoise": 0.5}
    assert ended["expires_at"] > ended["finished_at"]


def test_events_resume_after_the_last_one_seen(client: TestClient, store: JobStore) -> None:
    links = client.post("/v1/generations", json=GENERATION).json()["links"]
    _, claimant = _claim(store)
    store.run(renew(claimant, JobProgress(stage="denoise", step=1, steps=2)))
    store.run(fail(claimant, JobError(code="invalid-output", message="flat")))
    events = client.get(links["events"]).text.strip().split("\n\n")
    assert [event.splitlines()[0] for event in events] == ["event: state"] * 2 + ["event: progress", "event: state"]
    assert '"step": 1' in events[2]
    last_seen = events[1].splitlines()[-1].removeprefix("id: ")
    resumed = client.get(links["events"], headers={"Last-Event-ID": last_seen}).text.strip().split("\n\n")
    assert resumed == events[2:]
    end = events[-1].splitlines()[-1].removeprefix("id: ")
    assert client.get(links["events"], headers={"Last-Event-ID": end}).text == ""


def test_cancel_is_durable_and_can_be_repeated(client: TestClient, store: JobStore) -> None:
    waiting = client.post("/v1/generations", json=GENERATION).json()["links"]
    assert [client.post(waiting["cancel"]).json()["status"] for _ in range(2)] == ["canceled", "canceled"]
    running = client.post("/v1/generations", json=GENERATION).json()["links"]
    _, claimant = _claim(store)
    assert client.post(running["cancel"]).json()["status"] == "running"
    assert store.run(renew(claimant)) == "canceled"
    assert store.run(succeed(claimant, RESULT)) == "canceled"
    assert client.get(running["self"]).json()["result"] is None


def test_each_kind_has_its_own_place(client: TestClient, store: JobStore) -> None:
    bodies = {
        "generations": GENERATION,
        "comparisons": COMPARISON,
        "calibrations": CALIBRATION,
        "evaluations": EVALUATION,
    }
    ids = {kind: client.post(f"/v1/{kind}", json=body).json()["id"] for kind, body in bodies.items()}
    for kind, job in ids.items():
        listed = client.get(f"/v1/{kind}", params={"status": "queued"}).json()
        assert [item["id"] for item in listed["data"]] == [job]
        others = [other for other in ids if other != kind]
        assert [client.get(f"/v1/{other}/{job}").status_code for other in others] == [404, 404, 404]
    queues = ["generate.tiny", "generate.tiny", "calibrate", "evaluate"]
    assert [_claim(store)[0].queue for _ in ids] == queues


def test_lists_page(client: TestClient) -> None:
    ids = [client.post("/v1/generations", json=GENERATION).json()["id"] for _ in range(5)]
    first = client.get("/v1/generations", params={"limit": 3}).json()
    second = client.get("/v1/generations", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["data"] + second["data"]] == ids[::-1]
    assert second["next_cursor"] is None


def test_a_repeated_key_is_the_same_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first, second = (client.post("/v1/generations", json=GENERATION, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert (first.headers.get("idempotency-replayed"), second.headers["idempotency-replayed"]) == (None, "true")
    other = client.post("/v1/generations", json={**GENERATION, "seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert client.post("/v1/comparisons", json=COMPARISON, headers=headers).status_code == 202


def test_a_full_queue_refuses_and_says_when_to_return(client: TestClient) -> None:
    answers = [client.post("/v1/generations", json=GENERATION) for _ in range(22)]
    assert [answer.status_code for answer in answers] == [202] * 20 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].json()["code"] == "queue-full"


@pytest.mark.parametrize(
    ("prefer", "applied"), [("wait=1", "wait=1"), ("respond-async, wait=0", None), ("wait=x", None)]
)
def test_waiting_ends(client: TestClient, prefer: str, applied: str | None) -> None:
    answer = client.post("/v1/generations", json=GENERATION, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert answer.headers.get("preference-applied") == applied


def test_own_prompts_are_split_and_the_recipe_fits_them(client: TestClient) -> None:
    prompts = [f"prompt {letter}" for letter in "abcdefgh"]
    request = client.post("/v1/calibrations", json={**CALIBRATION, "prompts": prompts}).json()["request"]
    assert request["held_out"] == 2
    assert request["recipe"]["calibration"]["num_prompts"] == 6
    assert request["variant"] == "w8a8-minmax"


def test_a_published_name_is_taken(client: TestClient) -> None:
    answer = client.post("/v1/calibrations", json={**CALIBRATION, "variant": "shipped-one"})
    assert (answer.status_code, answer.json()["code"]) == (409, "variant-exists")


def test_models_variants_and_catalogue_name_what_can_be_asked_for(client: TestClient) -> None:
    model = client.get("/v1/models").json()["data"][0]
    assert model == client.get("/v1/models/tiny").json()
    assert (model["variants"], model["loaded"]) == (["reference", "shipped-one"], ["reference"])
    cards = client.get("/v1/variants", params={"model": "tiny"}).json()["data"]
    assert cards == [client.get("/v1/variants/tiny/shipped-one").json()]
    catalogue = client.get("/v1/catalogue").json()
    assert (catalogue["models"], catalogue["schedulers"]) == (["tiny"], ["ddim", "euler"])
    assert "/secret/place" not in client.get("/v1/models").text + client.get("/v1/catalogue").text


def test_pictures_are_immutable(client: TestClient, settings: GatewaySettings) -> None:
    name = ImageStore(settings.data_dir / "images").put(b"picture", "webp")
    answer = client.get(f"/v1/images/{name}")
    assert (answer.content, answer.headers["content-type"]) == (b"picture", "image/webp")
    assert answer.headers["etag"] == f'"{name[:64]}"'
    assert "immutable" in answer.headers["cache-control"]
    assert client.get(f"/v1/images/{name}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_health_and_metrics(client: TestClient, store: JobStore, valkey: Valkey) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["ready"] is True
    client.post("/v1/generations", json=GENERATION)
    client.get("/v1/generations/x")
    metrics = client.get("/metrics").text
    for line in (
        'facsimile_jobs_submitted_total{kind="generation"} 1.0',
        'facsimile_jobs_submitted_total{kind="evaluation"} 0.0',
        'facsimile_jobs_finished_total{kind="comparison",outcome="failed"} 0.0',
        'facsimile_queue_workers{serves="generate"} 1.0',
        'facsimile_queue_workers{serves="calibrate"} 1.0',
        'facsimile_queue_depth{queue="generate.tiny"} 1.0',
        'facsimile_http_requests_total{code="410",method="GET",route="/v1/generations/{job}"}',
        "facsimile_broker_up 1.0",
    ):
        assert line in metrics
    valkey.client.zincrby("facsimile:beats", -20, "w")
    assert client.get("/readyz").status_code == 503
    assert 'facsimile_queue_workers{serves="generate"} 0.0' in client.get("/metrics").text


def test_without_any_worker_ever_nothing_is_accepted(client: TestClient, valkey: Valkey) -> None:
    valkey.client.flushall()
    answer = client.post("/v1/generations", json=GENERATION)
    assert (answer.status_code, answer.json()["code"]) == (503, "no-worker")
    assert int(answer.headers["retry-after"]) > 0


def test_jobs_belong_to_their_key(settings: GatewaySettings, valkey: Valkey, store: JobStore, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-long-enough-key\nsecond-long-enough-key\n")
    guarded = GatewaySettings.model_validate({**settings.model_dump(), "api_keys_file": keys, "host": "0.0.0.0"})
    with TestClient(create_app(guarded, valkey.url)) as client:
        first, second = ({"Authorization": f"Bearer {key}-long-enough-key"} for key in ("first", "second"))
        links = client.post("/v1/generations", json=GENERATION, headers=first).json()["links"]
        assert client.get(links["self"], headers=first).status_code == 200
        for path in (links["self"], links["events"]):
            assert client.get(path, headers=second).status_code == 404
        assert client.post(links["cancel"], headers=second).status_code == 404
        assert client.get("/v1/generations", headers=second).json()["data"] == []
        bad: list[dict[str, Any]] = [
            {},
            {"Authorization": "Bearer first-long-enough-ke"},
            {"Authorization": "Basic first-long-enough-key"},
        ]
        for headers in bad:
            answer = client.get("/v1/models", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == 200


def test_a_kind_that_no_worker_serves_is_not_accepted(client: TestClient, valkey: Valkey) -> None:
    valkey.client.hset("facsimile:workers", "w", _without_queue(valkey, "evaluate"))
    refused = client.post("/v1/evaluations", json=EVALUATION)
    assert (refused.status_code, refused.json()["code"]) == (503, "no-worker")
    assert "evaluate" in refused.json()["detail"]
    assert client.post("/v1/calibrations", json=CALIBRATION).status_code == 202


def _without_queue(valkey: Valkey, queue: str) -> str:
    said = json.loads(str(valkey.client.hget("facsimile:workers", "w")))
    return json.dumps({**said, "queues": [each for each in said["queues"] if each != queue]})


def test_readiness_knows_models_that_cannot_be_loaded(client: TestClient, valkey: Valkey) -> None:
    said = json.loads(str(valkey.client.hget("facsimile:workers", "w")))
    valkey.client.hset("facsimile:workers", "w", json.dumps({**said, "unusable": ["tiny"]}))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["unusable_models"]) == (503, ["tiny"])
    both = {**said, "queues": [*said["queues"], "generate.other"], "unusable": ["other"]}
    valkey.client.hset("facsimile:workers", "w", json.dumps(both))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["unusable_models"]) == (200, ["other"])


def test_a_stream_ends_in_time_however_much_happens(
    client: TestClient, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.routes.jobs.EVENT_SECONDS", 0.0)
    job = client.post("/v1/generations", json=GENERATION).json()
    _, claimant = _claim(store)
    for step in range(5):
        store.run(renew(claimant, JobProgress(stage="denoise", step=step, steps=5)))
    first = client.get(job["links"]["events"]).text
    assert first.count("event: ") == 1  # and the next one goes on from there
    last = next(line for line in first.splitlines() if line.startswith("id: ")).removeprefix("id: ")
    rest = client.get(job["links"]["events"], headers={"Last-Event-ID": last}).text
    assert rest.count("event: ") == 1 and last not in rest
