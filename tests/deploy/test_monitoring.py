"""Prometheus, its alerts and the dashboard speak of services, figures and labels that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest

import worker.metrics  # noqa: F401  (registers the worker's figures)
from app.metrics import GATEWAY, CensusCollector
from app.settings import GatewaySettings
from contract.announcements import Census, Queue
from tests.support.tools import tool

Tree = dict[str, Any]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
COUNTS = {"submitted:generation": 1, "finished:generation:failed": 1}
CENSUS = CensusCollector(Census(1, COUNTS, (Queue("generate.tiny", 1, 1.0),)), ())
ALWAYS_THERE = {"job", "instance", "le"}


@pytest.fixture(scope="session")
def prometheus(repository: Path) -> Tree:
    return yaml.safe_load((repository / "deploy/prometheus.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def rules(repository: Path) -> list[Tree]:
    groups = yaml.safe_load((repository / "deploy/alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="session")
def dashboard(repository: Path) -> Tree:
    return json.loads((repository / "deploy/grafana/dashboards/facsimile.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def queries(rules: list[Tree], dashboard: Tree) -> list[str]:
    """Every PromQL expression."""
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return shown + [rule["expr"] for rule in rules]


def test_targets_are_services_and_their_ports(prometheus: Tree, services: dict[str, Tree]) -> None:
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    (gateway,) = jobs["gateway"]["static_configs"][0]["targets"]
    assert gateway == f"gateway:{services['gateway']['environment']['FACSIMILE_PORT']}"
    (workers,) = jobs["worker"]["dns_sd_configs"]
    assert set(workers["names"]) == {name for name in services if name.startswith("worker-")}
    for name in workers["names"]:
        command = services[name]["command"]
        assert command[command.index("--metrics-port") + 1] == str(workers["port"])


def test_prometheus_reads_the_alerts_that_compose_mounts(prometheus: Tree, services: dict[str, Tree]) -> None:
    mounted = [volume.split(":")[1] for volume in services["prometheus"]["volumes"]]
    assert set(prometheus["rule_files"]) <= set(mounted)


def test_queries_name_figures_that_exist(queries: list[str]) -> None:
    known = {name + suffix for name, kind in _figures() for suffix in SUFFIXES[kind]}
    asked = {name for query in queries for name in re.findall(r"\bfacsimile_\w+", query)}
    assert asked
    assert asked <= known, asked - known


def test_queries_name_labels_that_exist(queries: list[str]) -> None:
    asked = {
        label.strip()
        for query in queries
        for labels in re.findall(r"\bby \(([^)]*)\)", query)
        for label in labels.split(",")
    } | {label for query in queries for label in re.findall(r"[{,]\s*(\w+)\s*=", query)}
    assert asked <= _labels() | ALWAYS_THERE


def test_every_figure_is_on_the_dashboard_or_in_an_alert(queries: list[str]) -> None:
    """A figure nobody looks at is a cost; this list is of those that are there for questions not yet asked."""
    unseen = {name for name, _ in _figures() if not any(name in query for query in queries)}
    assert unseen == {"facsimile_jobs_submitted"}


def test_alerts_say_what_happens_and_what_to_do(rules: list[Tree]) -> None:
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_alerts_name_settings_that_exist(rules: list[Tree]) -> None:
    known = {f"FACSIMILE_{field.upper()}" for field in GatewaySettings.model_fields}
    assert set(re.findall(r"FACSIMILE_\w+", json.dumps(rules))) <= known


@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", "--lint=all", "deploy/alerts.yml"),
        ("test", "rules", "deploy/alerts.test.yml"),
    ],
    ids=["rules", "tests"],
)
def test_promtool_agrees(command: tuple[str, ...], repository: Path) -> None:
    program = tool("promtool", "prometheus")
    ended = subprocess.run([program, *command], cwd=repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_prometheus_reads_its_configuration(prometheus: Tree, repository: Path, tmp_path: Path) -> None:
    rules_here = {**prometheus, "rule_files": [str(repository / "deploy/alerts.yml")]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(rules_here))
    command = [tool("promtool", "prometheus"), "check", "config", str(tmp_path / "prometheus.yml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_is_scraped_is_well_formed() -> None:
    text = generate_latest(GATEWAY) + b"".join(_text(CENSUS)) + generate_latest(REGISTRY)
    ours = b"".join(line for line in text.splitlines(keepends=True) if b"facsimile_" in line)
    command = [tool("promtool", "prometheus"), "check", "metrics"]
    ended = subprocess.run(command, input=ours, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b""), ended.stderr


def test_every_alert_is_tested_to_fire_or_to_be_silent(rules: list[Tree], repository: Path) -> None:
    tests = yaml.safe_load((repository / "deploy/alerts.test.yml").read_text(encoding="utf-8"))["tests"]
    named = {case["alertname"] for test in tests for case in test["alert_rule_test"]}
    assert named == {rule["alert"] for rule in rules}


@pytest.mark.parametrize("title", ["Failed in the last hour", "Invalid pictures in the last hour"])
def test_no_trouble_is_shown_as_zero(dashboard: Tree, title: str) -> None:
    (panel,) = (each for each in dashboard["panels"] if each["title"] == title)
    assert [target["expr"].endswith("or vector(0)") for target in panel["targets"]] == [True]


def test_panels_do_not_overlap(dashboard: Tree) -> None:
    places = [
        (x, y)
        for panel in dashboard["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24


def test_panels_use_the_provisioned_datasource(dashboard: Tree, repository: Path) -> None:
    provisioned = repository / "deploy/grafana/provisioning/datasources/prometheus.yml"
    (datasource,) = yaml.safe_load(provisioned.read_text(encoding="utf-8"))["datasources"]
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {datasource["uid"]}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["description"] for panel in panels)


def _text(collector: CensusCollector) -> Iterable[bytes]:
    registry = CollectorRegistry()
    registry.register(collector)
    yield generate_latest(registry)


def _figures() -> list[tuple[str, str]]:
    """The name and the type of every figure of the service itself."""
    return [(metric.name, metric.type) for metric in _metrics() if metric.name.startswith("facsimile_")]


def _metrics() -> Iterable[Metric]:
    yield from GATEWAY.collect()
    yield from CENSUS.collect()
    yield from REGISTRY.collect()


def _labels() -> set[str]:
    wrappers = {id(each): each for registry in (GATEWAY, REGISTRY) for each in registry._collector_to_names}
    declared = {label for each in wrappers.values() for label in getattr(each, "_labelnames", ())}
    return declared | {label for metric in CENSUS.collect() for sample in metric.samples for label in sample.labels}
