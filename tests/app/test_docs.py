"""The documents name every route, error code, setting and metric that there is."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from app.application import create_app
from app.errors import RETRY_AFTER, STATUS
from app.metrics import GATEWAY, CensusCollector
from app.settings import GatewaySettings
from contract.announcements import Census, Queue
from contract.places import ROOT
from contract.settings import NAMES
from worker.settings import WorkerSettings

DOCS = ROOT / "docs"
HTTP = (DOCS / "http.md").read_text("utf-8")
OPERATIONS = (DOCS / "operations.md").read_text("utf-8")


def test_every_route_is_documented() -> None:
    schema = create_app(GatewaySettings(ui=False), "unix:///nowhere").openapi()
    routes = [f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods]
    assert len(routes) > 20
    assert [route for route in routes if f"`{route}`" not in HTTP] == []


def test_every_code_is_documented_with_its_status() -> None:
    table = dict(re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|(?:.*)$", HTTP, re.MULTILINE))
    assert table == {code: str(int(status)) for code, status in STATUS.items()}
    for line in HTTP.splitlines():
        code = re.match(r"\| `([a-z-]+)` \| \d{3} ", line)
        if code:
            assert ("`Retry-After`" in line) == (code[1] in RETRY_AFTER)


def test_every_setting_is_documented_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(FACSIMILE_[A-Z_]+)` \| `?([^`|]+?)`? \|", OPERATIONS, re.MULTILINE))
    fields = {**WorkerSettings.model_fields, **GatewaySettings.model_fields}
    assert set(table) == {f"FACSIMILE_{name}" for name in NAMES}
    for name, field in fields.items():
        written = table[f"FACSIMILE_{name.upper()}"]
        if isinstance(field.default, bool):
            assert written == str(field.default).lower()
        elif isinstance(field.default, int | float):
            assert float(written) == field.default
        elif isinstance(field.default, Path):
            assert str(field.default).endswith(written)


def test_every_metric_is_documented() -> None:
    import worker.metrics

    queue = CensusCollector(Census(0, {"submitted:generation": 1}, (Queue("q", 0, 0.0),)), ())
    metrics = [*GATEWAY.collect(), *queue.collect()]
    for item in vars(worker.metrics).values():
        if isinstance(item, MetricWrapperBase):
            metrics += item.collect()
    names = {metric.name for metric in metrics if metric.name.startswith("facsimile_")}
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in OPERATIONS and f"`{name}_total`" not in OPERATIONS] == []
