"""Requests that must be refused: each with a documented status, a problem body, and nothing of the input in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.application import create_app
from app.errors import STATUS
from contract.announcements import census
from contract.job_store import JobStore
from tests.support.gateway import CALIBRATION, COMPARISON, EVALUATION, GENERATION, connect, make_settings
from tests.support.valkey import Valkey

CANARY = "canary-5d1f"
PYDANTIC = re.compile(
    r"(Input|String|List|Value|Tuple|Number) (should|error|tag)|pattern|\^|Field required|not permitted"
)
"""How pydantic would say it: not the words of people who write requests."""

BAD_TEXT = [
    "",
    " ",
    "\n\t ",
    "x" * 2001,
    "a\x00b",
    "a\x07b",
    "a\x7fb",
    "a\x85b",
    "\ud800",
    "a\udfffb",
    5,
    None,
    ["a"],
    {},
]
BAD_FIELDS: dict[str, list[Any]] = {
    "prompt": BAD_TEXT,
    "negative_prompt": ["x" * 2001, "a\x00b", "\ud800", 5, None],
    "model": ["", "other", "Tiny", "../tiny", "a" * 65, "\ud800", 5, None],
    "variant": ["", "none", "../tiny", "w4a8\x00", 5, None],
    "seed": [-1, 2**32, 2**63, 10**400, 1.5, "5", True, [1]],
    "num_inference_steps": [0, -1, 151, 2**63, 2.5, "5", True],
    "guidance_scale": [-0.1, 30.1, float("nan"), float("inf"), -float("inf"), "5", True],
    "width": [0, -8, 7, 65, 129, 136, 2**40, 64.5, "64"],
    "height": [0, -8, 7, 65, 129, 136, 2**40, 64.5, "64"],
    "num_images": [0, -1, 9, 2**40, 1.5, None],
    "scheduler": ["", "other", "DDIM", 5],
    "output_format": ["gif", "PNG", "", None, 5],
    "score": ["yes", 1, None, True],
    "state": ["succeeded"],
    "owner": [CANARY],
    "attempt": [1],
}
BAD_COMPARISON: dict[str, list[Any]] = {
    "variant": ["reference", "none", None],
    "output_format": ["png"],
    "score": [False],
}
RECIPE = {"method": "minmax"}
BAD_CALIBRATION: dict[str, list[Any]] = {
    "model": ["other", None],
    "recipe": [
        "other",
        "../minmax-w8a8",
        5,
        {},
        {**RECIPE, "weight_bits": 1},
        {**RECIPE, "weight_bits": 9},
        {**RECIPE, "activation_bits": 16},
        {**RECIPE, "layer_bits": {"conv_in": 0}},
        {**RECIPE, "layer_bits": {"a b": 8}},
        {**RECIPE, "timestep_groups": 0},
        {**RECIPE, "timestep_groups": 26},
        {**RECIPE, "packed": True},
        {**RECIPE, "softmax_bits": 16},
        {**RECIPE, "attention_bits": 8, "softmax_bits": 12},
        {**RECIPE, "method": "other"},
        {**RECIPE, "method": "../x"},
        {**RECIPE, "family": "other"},
        {**RECIPE, "eight_bit": ["conv_in"]},
        {**RECIPE, "keep_float": ["a b"]},
        {**RECIPE, "extra": 1},
        {**RECIPE, "calibration": {"num_prompts": 0}},
        {**RECIPE, "calibration": {"guidance_scale": float("inf")}},
    ],
    "prompts": [
        "other",
        "",
        [],
        ["one"],
        ["a", "a"],
        ["a", ""],
        ["a", "\ud800"],
        ["a", 5],
        [f"p{i}" for i in range(1025)],
    ],
    "variant": ["reference", "UPPER", "a/b", "", "x" * 65],
    "held_out": [1],
}
BAD_EVALUATION: dict[str, list[Any]] = {
    "model": ["", "other", "../tiny", "\ud800", 5, None],
    "variants": [
        [],
        "",
        "none",
        "shipped-one",
        "ALL",
        ["none"],
        ["reference"],
        ["shipped-one", "reference"],
        ["shipped-one", "shipped-one"],
        ["shipped-one", 5],
        ["shipped-one", "../tiny"],
        ["all"],
        ["Größe"],
        ["\ud800"],
        [f"v{i}" for i in range(17)],
        5,
        None,
        {},
    ],
    "prompt_sets": [
        [],
        "tiny-prompts",
        [CANARY],
        ["tiny-prompts", "tiny-prompts"],
        ["tiny-prompts", ""],
        ["../tiny-prompts"],
        ["/etc/passwd"],
        ["test"],
        ["подсказки"],
        ["\ud800"],
        ["x" * 65],
        [f"s{i}" for i in range(9)],
        [5],
        5,
        None,
    ],
    "limit": [0, -1, 5001, 2**63, 10**400, 64.0, 1.5, float("nan"), float("inf"), "64", True, None, [64]],
    "metrics": [
        "psnr",
        [CANARY],
        ["psnr", "psnr"],
        ["PSNR"],
        ["psnr:"],
        [":judge"],
        ["psnr:a:b"],
        ["psnr:../x"],
        ["other:judge"],
        ["ψ"],
        ["\ud800"],
        [f"m{i}" for i in range(33)],
        [5],
        None,
    ],
    "seed": [-1, 2**32, 10**400, 1.5, float("nan"), "5", True, None],
    "prompts": ["tiny-prompts"],
    "surprise": [CANARY],
}


@pytest.fixture(scope="module")
def store(valkey: Valkey) -> Iterator[JobStore]:
    with closing(connect(valkey)) as store:
        yield store


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, store: JobStore) -> Iterator[TestClient]:
    """One gateway for all: a refused request leaves nothing behind."""
    app = create_app(make_settings(tmp_path_factory.mktemp("gateway")), valkey.url)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _cases(route: str, body: dict[str, Any], fields: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(route, {**body, name: value}, id=f"{route}-{name}-{i}")
        for name, values in fields.items()
        for i, value in enumerate(values)
    ]


CASES = [
    *_cases("generations", GENERATION, BAD_FIELDS),
    *_cases("comparisons", COMPARISON, BAD_COMPARISON),
    *_cases("calibrations", CALIBRATION, BAD_CALIBRATION),
    *_cases("evaluations", EVALUATION, BAD_EVALUATION),
    *(
        pytest.param(route, {}, id=f"{route}-empty")
        for route in ("generations", "comparisons", "calibrations", "evaluations")
    ),
]


def _assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status == STATUS[code]
    assert problem["code"] == code
    assert answer.headers["x-request-id"]
    return dict(problem)


@pytest.mark.parametrize(("route", "body"), CASES)
def test_bad_fields_are_named_and_not_repeated(
    client: TestClient, store: JobStore, route: str, body: dict[str, Any]
) -> None:
    answer = client.post(f"/v1/{route}", content=json.dumps(body), headers={"Content-Type": "application/json"})
    problem = _assert_problem(answer, 422, "invalid-request")
    assert problem["errors"]
    assert all(set(fault) == {"loc", "msg"} for fault in problem["errors"])
    assert CANARY not in answer.text
    assert not PYDANTIC.search(answer.text), answer.text
    assert store.run(census()).open_jobs == 0


@pytest.mark.parametrize(
    ("route", "body", "place"),
    [
        ("calibrations", {"recipe": {**RECIPE, "weight_bits": 1}}, "recipe.weight_bits"),
        ("calibrations", {"recipe": {**RECIPE, "stages": {"rounding": {"kind": "magic"}}}}, "recipe.stages.rounding"),
        (
            "calibrations",
            {"recipe": {**RECIPE, "stages": {"bits_over_time": {"kind": "window", "start": 0}}}},
            "recipe.stages.bits_over_time.end",
        ),
        ("calibrations", {"recipe": {**RECIPE, "layer_bits": {"conv_in": 0}}}, "recipe.layer_bits.conv_in"),
        ("calibrations", {"recipe": {}}, "recipe.method"),
        ("calibrations", {"recipe": 5}, "recipe"),
        ("calibrations", {"prompts": ["a", "b\0"]}, "prompts.1"),
        ("calibrations", {"prompts": ["a"]}, "prompts"),
        ("calibrations", {"prompts": 5}, "prompts"),
        ("evaluations", {"variants": ["shipped-one", "../tiny"]}, "variants.1"),
        ("evaluations", {"variants": "ALL"}, "variants"),
        ("generations", {"surprise": 1}, "surprise"),
    ],
)
def test_a_fault_is_placed_where_the_client_wrote_it(
    client: TestClient, route: str, body: dict[str, Any], place: str
) -> None:
    whole = {"calibrations": CALIBRATION, "evaluations": EVALUATION, "generations": GENERATION}[route]
    problem = _assert_problem(client.post(f"/v1/{route}", json={**whole, **body}), 422, "invalid-request")
    assert [".".join(fault["loc"]) for fault in problem["errors"]] == [f"body.{place}"]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"a": ' * 5000, b'{"prompt": "a"', b"[" * 100_00, b"1" * 5000]
)
def test_what_is_not_json_is_said_to_be_none(client: TestClient, text: bytes) -> None:
    answer = client.post("/v1/generations", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    _assert_problem(answer, answer.status_code, "malformed-json" if answer.status_code == 400 else "invalid-request")


@pytest.mark.parametrize("text", [b"null", b"5", b'"text"', b"[]", b"NaN"])
def test_json_that_is_no_object_is_refused(client: TestClient, text: bytes) -> None:
    answer = client.post("/v1/generations", content=text, headers={"Content-Type": "application/json"})
    _assert_problem(answer, 422, "invalid-request")


def test_strange_field_names_are_refused(client: TestClient) -> None:
    for name in ("\ud800", "x" * 5000):
        body = json.dumps({**GENERATION, name: 1})
        answer = client.post("/v1/generations", content=body, headers={"Content-Type": "application/json"})
        problem = _assert_problem(answer, 422, "invalid-request")
        assert len(problem["errors"][0]["loc"][-1]) <= 200


@pytest.mark.parametrize(
    ("route", "size"), [("generations", 64), ("comparisons", 64), ("evaluations", 64), ("calibrations", 1024)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_refused(client: TestClient, route: str, size: int, chunked: bool) -> None:
    body = b'{"prompt": "' + b"a" * size * 1024 + b'"}'
    pieces = (body[i : i + 10_000] for i in range(0, len(body), 10_000))
    answer = client.post(f"/v1/{route}", content=pieces if chunked else body)
    assert "64 KiB" in _assert_problem(answer, 413, "body-too-large")["detail"]


def test_a_body_within_its_limit_is_read(client: TestClient) -> None:
    prompts = [f"{index} {'a' * 1000}" for index in range(500)]
    assert client.post("/v1/calibrations", json={**CALIBRATION, "prompts": prompts, "model": "none"}).status_code == 422
    near = {**GENERATION, "negative_prompt": "a" * 60_000}
    assert client.post("/v1/generations", json=near).status_code == 422


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "json",
        "",
        None,
    ],
)
@pytest.mark.parametrize("route", ["generations", "comparisons", "calibrations", "evaluations"])
def test_what_is_not_sent_as_json_is_told_the_header(client: TestClient, route: str, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post(f"/v1/{route}", content=json.dumps(GENERATION), headers=headers)
    assert "Content-Type: application/json" in _assert_problem(answer, 415, "not-json")["detail"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"])
def test_every_kind_of_json_is_taken(client: TestClient, kind: str) -> None:
    body = json.dumps({**GENERATION, "num_images": 0})
    answer = client.post("/v1/generations", content=body, headers={"Content-Type": kind})
    _assert_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/generations", "HEAD, GET, POST"),
        ("DELETE", "/v1/evaluations/x", "HEAD, GET"),
        ("GET", "/v1/calibrations/x/cancel", "POST"),
        ("HEAD", "/v1/comparisons/x/cancel", "POST"),
        ("POST", "/v1/models", "HEAD, GET"),
        ("PATCH", "/healthz", "HEAD, GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(client: TestClient, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("PUT", "/v1/generations", 405, "method-not-allowed"),
        ("GET", "/v1/generations/unknown", 410, "job-lost"),
        ("GET", "/v1/generations/%00", 410, "job-lost"),
        ("GET", "/v1/generations/..%2f..%2fetc", 404, "not-found"),
        ("POST", "/v1/generations/unknown/cancel", 410, "job-lost"),
        ("GET", "/v1/generations/unknown/events", 410, "job-lost"),
        ("GET", "/v1/generations?limit=0", 422, "invalid-request"),
        ("GET", "/v1/generations?limit=101", 422, "invalid-request"),
        ("GET", "/v1/generations?cursor=-1", 422, "invalid-request"),
        ("GET", "/v1/generations?cursor=a", 422, "invalid-request"),
        ("GET", "/v1/generations?status=none", 422, "invalid-request"),
        ("GET", "/v1/models/none", 404, "not-found"),
        ("GET", "/v1/variants/tiny/none", 404, "not-found"),
        ("GET", "/v1/variants/..%2f/x", 404, "not-found"),
        ("GET", "/v1/variants?model=..", 422, "invalid-request"),
        ("GET", "/v1/evaluations/unknown", 410, "job-lost"),
        ("GET", "/v1/reports/none.html", 404, "not-found"),
        ("GET", f"/v1/reports/{'0' * 32}.html", 404, "not-found"),
        ("GET", f"/v1/reports/{'0' * 32}", 404, "not-found"),
        ("GET", f"/v1/reports/variants/{'0' * 64}", 404, "not-found"),
        ("GET", "/v1/reports/..%2f..%2fetc%2fpasswd", 404, "not-found"),
        ("GET", "/v1/images/none.png", 404, "not-found"),
        ("GET", f"/v1/images/{'0' * 64}.png", 404, "not-found"),
        ("GET", "/v1/images/..%2f..%2fetc%2fpasswd", 404, "not-found"),
    ],
)
def test_unknown_things(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    _assert_problem(client.request(method, path), status, code)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_idempotency_keys_have_a_length(client: TestClient, key: str) -> None:
    answer = client.post("/v1/generations", json=GENERATION, headers={"Idempotency-Key": key})
    _assert_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize(("kind", "body"), [("generations", {**GENERATION, "score": True}), ("comparisons", {})])
def test_pictures_too_small_to_measure_are_refused_at_the_door(
    client: TestClient, side: str, kind: str, body: dict[str, Any]
) -> None:
    sent = {**COMPARISON, **body, "variant": "shipped-one", side: 8}
    answer = client.post(f"/v1/{kind}", json=sent)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["body", side]
    assert client.post(f"/v1/{kind}", json={**sent, side: 16}).status_code == 202
