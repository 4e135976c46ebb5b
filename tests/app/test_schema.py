"""Requests that schemathesis makes of the OpenAPI document, sent to a real server: answers are as the document says,
and none is a fault of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.gateway import connect, make_settings
from tests.support.serving import serving
from tests.support.valkey import Valkey

CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
UNTRIED = "/events$"
"""Answers that end when a job does."""


@pytest.fixture(scope="module")
def described(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The API as its own document has it."""
    folder = tmp_path_factory.mktemp("gateway")
    with closing(connect(valkey)), serving(make_settings(folder), valkey.url) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json").exclude(path_regex=UNTRIED)


def test_answers_are_as_the_document_says(described: Any) -> None:
    tried = [result.ok() for result in described.get_all_operations()]
    for operation in tried:

        @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answers(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKED, timeout=30)

        answers()
    assert len(tried) > 20
