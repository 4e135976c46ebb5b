"""The service's description of itself: true, and of use to those who make a client from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from app.application import create_app
from app.settings import GatewaySettings
from contract.images import ImageStore
from contract.kinds import JobKind
from tests.support.gateway import connect
from tests.support.pretend_worker import PretendWorker
from tests.support.serving import serving
from tests.support.valkey import Valkey

Tree = dict[str, Any]
GENERATOR = "openapi-python-client==0.29.1"
"""Installed into an environment of its own: it wants other versions of our own tools."""

PROGRAM = """
import sys
from facsimile_client import Client
from facsimile_client.api.evaluations import create_evaluation, get_evaluation
from facsimile_client.api.generations import create_generation, get_generation, list_generations
from facsimile_client.api.catalogue import get_catalogue
from facsimile_client.api.images import get_image
from facsimile_client.models import EvaluationBody, GenerationBody, JobState, Problem

client = Client(base_url=sys.argv[1])
body = GenerationBody(model="tiny", prompt="a red cube", num_images=2, seed=5)
job = create_generation.sync(client=client, body=body, prefer="wait=30")
assert job.status is JobState.SUCCEEDED and job.request.prompt == "a red cube", job
assert [image.width for image in job.result.images] == [8, 8] and job.result.seed == 5
picture = get_image.sync(client=client, name=job.result.images[0].url.rpartition("/")[2])
assert picture.payload.read().startswith(b"\\x89PNG")
assert get_generation.sync(client=client, job=job.id) == job
assert [item.id for item in list_generations.sync(client=client).data] == [job.id]
problem = create_generation.sync(client=client, body=GenerationBody(model="none", prompt="x"))
assert isinstance(problem, Problem) and problem.code == "invalid-request" and problem.errors[0].loc == ["body", "model"]
assert get_generation.sync(client=client, job="x").code == "job-lost"
wanted = EvaluationBody(model="tiny", prompt_sets=["tiny-prompts"], variants=["shipped-one"])
evaluation = create_evaluation.sync(client=client, body=wanted, prefer="wait=30")
figures = evaluation.result.variants["shipped-one"]["tiny-prompts"]["psnr"]
assert figures["mean"] == 33.125, figures
assert get_catalogue.sync(client=client).presets["minmax-w8a8"].method == "minmax"
"""


@pytest.fixture(scope="module")
def schema() -> Tree:
    return create_app(GatewaySettings(ui=False), "unix:///nowhere").openapi()


@pytest.fixture(scope="module")
def operations(schema: Tree) -> dict[str, Tree]:
    """By operation id."""
    found = [operation for methods in schema["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in found}) == len(found)
    return {operation["operationId"]: operation for operation in found}


def test_operations_are_named_as_a_person_would(operations: dict[str, Tree]) -> None:
    jobs = {f"{verb}_{kind}" for kind in JobKind for verb in ("create", "get", "follow", "cancel")}
    lists = {f"list_{kind}s" for kind in JobKind}
    others = {"list_models", "get_model", "list_variants", "get_variant", "get_catalogue", "get_image", "get_report"}
    assert set(operations) == jobs | lists | others | {"get_health", "get_readiness", "get_metrics"}


def test_summaries_are_english(operations: dict[str, Tree]) -> None:
    summaries = {name: operation["summary"] for name, operation in operations.items()}
    assert summaries["get_evaluation"] == "Look at an evaluation"
    assert summaries["create_calibration"] == "Ask for a calibration"
    assert not [text for text in summaries.values() if " a e" in f" {text}" or text.title() == text]


def test_every_refusal_is_a_problem(operations: dict[str, Tree]) -> None:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for name, operation in operations.items():
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        if name != "get_readiness":
            assert all(answer["content"] == {"application/problem+json": problem} for answer in refusals.values()), name


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("list_models", {"200", "401", "503"}),
        ("get_model", {"200", "401", "404", "503"}),
        ("get_variant", {"200", "401", "404", "500"}),
        ("get_image", {"200", "304", "401", "404"}),
        ("get_report", {"200", "304", "401", "404"}),
        ("get_comparison", {"200", "401", "404", "410", "422", "503"}),
        ("get_health", {"200"}),
    ],
)
def test_routes_list_the_answers_they_give(operations: dict[str, Tree], name: str, statuses: set[str]) -> None:
    assert set(operations[name]["responses"]) == statuses


@pytest.mark.parametrize("kind", list(JobKind))
def test_examples_fit_their_schema(schema: Tree, operations: dict[str, Tree], kind: JobKind) -> None:
    reference = operations[f"create_{kind}"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    body = schema["components"]["schemas"][reference.rpartition("/")[2]]
    assert body["examples"]
    for example in body["examples"]:
        jsonschema_rs.validate({**body, "components": schema["components"]}, example)


def test_no_default_is_an_object(schema: Tree) -> None:
    parts = [part for each in schema["components"]["schemas"].values() for part in each.get("properties", {}).values()]
    assert not [part for part in parts if isinstance(part.get("default"), dict)]
    assert "HTTPValidationError" not in schema["components"]["schemas"]


@pytest.fixture
def url(settings: GatewaySettings, valkey: Valkey) -> Iterator[str]:
    images = ImageStore(settings.data_dir / "images")
    with closing(connect(valkey)) as store, PretendWorker(store, images), serving(settings, valkey.url) as url:
        yield url


@pytest.mark.slow
def test_a_generated_client_draws_and_evaluates(url: str, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"content_type_overrides": {"image/png": "application/octet-stream"}}))
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{url}/openapi.json").content)
    for command in (
        ["pip", "install", "--quiet", GENERATOR],
        ["openapi-python-client", "generate", "--path", "openapi.json", "--config", "config.json", "--fail-on-warning"],
        ["python", "-c", PROGRAM, url],
    ):
        work = tmp_path / "facsimile-client" if command[0] == "python" else tmp_path
        program = str(binaries / command[0])
        ended = subprocess.run(
            [program, *command[1:]], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
