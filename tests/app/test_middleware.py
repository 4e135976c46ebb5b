"""What every answer has in common, whichever route gives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.application import create_app
from app.settings import GatewaySettings
from contract.images import ImageStore
from contract.job_store import JobStore
from contract.jobs import JobError
from contract.transitions import Claimant, claim, fail
from tests.support.gateway import CALIBRATION, GENERATION, connect, make_settings
from tests.support.serving import serving
from tests.support.valkey import Valkey

GETS = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/models", "/v1/variants/tiny/shipped-one", "/")


@pytest.fixture(scope="module")
def store(valkey: Valkey) -> Iterator[JobStore]:
    with closing(connect(valkey)) as store:
        yield store


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, store: JobStore) -> Iterator[TestClient]:
    """A gateway with its web page."""
    settings = make_settings(tmp_path_factory.mktemp("paged"))
    app = create_app(settings.model_copy(update={"ui": True}), valkey.url)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _client(settings: GatewaySettings, valkey: Valkey, **changes: object) -> TestClient:
    return TestClient(create_app(settings.model_copy(update=changes), valkey.url), raise_server_exceptions=False)


@pytest.mark.parametrize("path", [*GETS, "/v1/nothing", "/v1/models/none"])
def test_head_is_get_without_a_body(paged: TestClient, path: str) -> None:
    whole, head = paged.get(path), paged.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    if path not in ("/metrics", "/"):  # which change from one to the next
        assert head.headers["content-length"] == whole.headers["content-length"]


def test_head_on_a_real_port_keeps_the_connection(
    settings: GatewaySettings, valkey: Valkey, store: JobStore, tmp_path: Path
) -> None:
    name = ImageStore(settings.data_dir / "images").put(b"picture", "png")
    with serving(settings, valkey.url) as url, httpx.Client(base_url=url, timeout=20) as client:
        links = client.post("/v1/generations", json=GENERATION).json()["links"]
        for path, length in ((f"/v1/images/{name}", "7"), (links["self"], None), (links["events"], None)):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            if length:
                assert answer.headers["content-length"] == length
        assert client.head("/v1/images/none.png").status_code == 404
        assert client.get(f"/v1/images/{name}").content == b"picture"


@pytest.mark.parametrize("path", [*GETS, "/v1/nothing", "/nothing", "/v1/images/none.png", "/docs/none"])
def test_every_answer_is_unframed_unsniffed_and_unstored(paged: TestClient, path: str) -> None:
    headers = paged.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"]
    if path.startswith("/v1/") or path == "/metrics":
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/at/all", 404),
        ("GET", "/gradio_api/file=/etc/passwd", 403),
        ("DELETE", "/healthz", 405),
        ("POST", "/nothing", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1", 404),
    ],
)
def test_errors_are_problems_outside_the_api_too(paged: TestClient, method: str, path: str, status: int) -> None:
    answer = paged.request(method, path)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, problem["status"]) == (status, status)
    assert problem["detail"]
    assert answer.headers["x-request-id"]


def test_a_defect_is_a_problem_with_its_id_and_is_counted(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("secret")

    answer = client.get("/broken", headers={"X-Request-ID": "abc"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["x-request-id"] == "abc"
    assert "secret" not in answer.text
    assert 'facsimile_http_requests_total{code="500",method="GET",route="/broken"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:18230", 200),
        ("127.8.8.8", 200),
        ("[::1]:8000", 200),
        ("app.localhost", 200),
        ("pictures.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.1.5", 421),
        ("0.0.0.0", 421),
        ("evil.example@localhost:80", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_a_service_without_keys_answers_to_its_names(
    settings: GatewaySettings, valkey: Valkey, store: JobStore, host: str, status: int
) -> None:
    with _client(settings, valkey, allowed_hosts=("pictures.example",)) as client:
        for path in ("/v1/models", "/healthz"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == status, answer.text
        if status == 421:
            assert answer.json()["code"] == "unknown-host"
            assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 202),
        ("https://localhost:8000", 202),
        ("https://friend.example", 202),
        ("http://localhost:3000", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_pages_of_other_sites_cannot_make_it_work(
    settings: GatewaySettings, valkey: Valkey, store: JobStore, origin: str, status: int
) -> None:
    headers = {"Host": "localhost:8000", "Origin": origin}
    with _client(settings, valkey, cors_origins=("https://friend.example",)) as client:
        answer = client.post("/v1/generations", json=GENERATION, headers=headers)
        assert answer.status_code == status, answer.text
        assert client.get("/v1/models", headers=headers).status_code == 200


def test_with_keys_names_are_asked_for_only_if_there_are_any(
    settings: GatewaySettings, valkey: Valkey, store: JobStore, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("open-sesame-please\n")
    sent = {"Host": "pictures.example", "Origin": "https://other.example", "Authorization": "Bearer open-sesame-please"}
    for allowed, status in (((), 202), (("pictures.example",), 202), (("other.example",), 421)):
        with _client(settings, valkey, api_keys_file=keys, allowed_hosts=allowed) as client:
            assert client.post("/v1/generations", json=GENERATION, headers=sent).status_code == status
            assert client.get("/metrics", headers={"Host": "gateway:8000"}).status_code == 200


def test_pages_of_named_origins_may_use_the_api(settings: GatewaySettings, valkey: Valkey, store: JobStore) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,prefer"}
    with _client(settings, valkey, cors_origins=("https://friend.example",)) as client:
        friend, other = ({"Origin": f"https://{name}.example"} for name in ("friend", "other"))
        preflight = client.options("/v1/generations", headers={**friend, **asked})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://friend.example"
        answer = client.post("/v1/generations", json=GENERATION, headers=friend)
        assert answer.status_code == 202
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert "Location" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in client.get("/v1/models", headers=other).headers
        assert client.options("/v1/generations", headers={**other, **asked}).json()["status"] == 400
    with _client(settings, valkey) as client:
        assert "access-control-allow-origin" not in client.get("/v1/models", headers=friend).headers


def test_lists_of_names_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACSIMILE_ALLOWED_HOSTS", "a.example, b.example")
    monkeypatch.setenv("FACSIMILE_CORS_ORIGINS", "https://a.example")
    settings = GatewaySettings()
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.cors_origins == ("https://a.example",)
    for wrong in ("a.example", "https://a.example/path", "*"):
        monkeypatch.setenv("FACSIMILE_CORS_ORIGINS", wrong)
        with pytest.raises(ValidationError, match=r"must hold origins|ORIGINS: any page"):
            GatewaySettings()
    monkeypatch.setenv("FACSIMILE_API_KEYS_FILE", str(tmp_path / "keys"))
    assert GatewaySettings().cors_origins == ("*",)


def test_a_stream_that_has_ended_is_not_asked_for_again(client: TestClient, store: JobStore) -> None:
    links = client.post("/v1/calibrations", json=CALIBRATION).json()["links"]
    record = store.run(claim(["calibrate"], "test"))
    assert record is not None
    store.run(fail(Claimant(record.id, record.attempt), JobError(code="invalid-output", message="flat")))
    events = client.get(links["events"])
    assert events.status_code == 200
    ids = [line.removeprefix("id: ") for line in events.text.splitlines() if line.startswith("id: ")]
    assert len(ids) > 2
    assert client.get(links["events"], headers={"Last-Event-ID": ids[-2]}).status_code == 200
    over = client.get(links["events"], headers={"Last-Event-ID": ids[-1]})
    assert (over.status_code, over.content) == (204, b"")
    assert "content-length" not in over.headers
