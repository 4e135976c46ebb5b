"""What docker-compose.yml promises: nobody is root, nothing is open that need not be, everything says how it is."""

from __future__ import annotations

import re
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

from app.__main__ import SERVED
from app.settings import GatewaySettings
from contract.broker import Line
from worker.settings import WorkerSettings

Tree = dict[str, Any]
SERVICES = ("gateway", "worker-generate", "worker-calibrate", "redis", "prometheus", "grafana")
OURS = SERVICES[:3]
SETTINGS_OF = {"gateway": GatewaySettings, "worker-generate": WorkerSettings, "worker-calibrate": WorkerSettings}


def test_the_tests_below_know_every_service(services: dict[str, Tree]) -> None:
    assert set(services) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_is_root(name: str, services: dict[str, Tree], stages: dict[str, list[str]]) -> None:
    service = services[name]
    user = service["user"] if "image" in service and "build" not in service else _user(stages, service)
    assert re.match(r"[1-9]\d*:\d+$", user), f"{name} runs as {user!r}"


@pytest.mark.parametrize("name", SERVICES)
def test_rights_and_resources_are_bounded(name: str, services: dict[str, Tree]) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["stop_grace_period"]
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_health_is_checked(name: str, services: dict[str, Tree], stages: dict[str, list[str]]) -> None:
    service = services[name]
    checks = (
        [line for line in stages[service["build"]["target"]] if line.startswith("HEALTHCHECK")] if name in OURS else []
    )
    assert "healthcheck" in service or checks, f"nobody would notice that {name} hangs"


def test_calibrations_yield_to_pictures(services: dict[str, Tree]) -> None:
    """Containers share the processors by weight, 1024 unless they say otherwise; nice values count inside of one."""
    assert services["worker-calibrate"]["cpu_shares"] <= 0.02 * 1024
    assert "cpu_shares" not in services["worker-generate"]


def test_every_queue_is_served_once_in_containers_and_without(services: dict[str, Tree]) -> None:
    commands = [services[name].get("command", []) for name in OURS]
    served = [queue for command in commands for option, queue in pairwise(command) if option == "--queues"]
    assert sorted(served) == sorted(chain.from_iterable(SERVED)) == sorted(Line)


def test_only_the_gateway_is_published_and_only_locally(services: dict[str, Tree]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"gateway": ["${PUBLISH_ADDRESS:-127.0.0.1:8000}:8000"]}


def test_overrides_publish_on_loopback_only(overrides: dict[str, Tree]) -> None:
    ports = [
        port for tree in overrides.values() for each in tree["services"].values() for port in each.get("ports", [])
    ]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_overrides_name_services_and_targets_that_exist(
    overrides: dict[str, Tree], services: dict[str, Tree], stages: dict[str, list[str]]
) -> None:
    for tree in overrides.values():
        assert set(tree["services"]) <= set(services)
        assert {each["build"]["target"] for each in tree["services"].values() if "build" in each} <= set(stages)


def test_only_the_gateway_can_reach_the_outside(compose: Tree) -> None:
    assert compose["networks"]["inside"]["internal"] is True
    outside = {name for name, service in compose["services"].items() if "outside" in service["networks"]}
    assert outside == {"gateway"}


@pytest.mark.parametrize("name", OURS)
def test_environment_names_settings_that_exist(name: str, services: dict[str, Tree]) -> None:
    known = {f"FACSIMILE_{field.upper()}" for field in SETTINGS_OF[name].model_fields}
    given = {variable for variable in services[name]["environment"] if variable.startswith("FACSIMILE_")}
    assert {"FACSIMILE_REDIS_URL", "FACSIMILE_DATA_DIR"} <= given <= known


def test_the_cuda_override_names_settings_that_exist(overrides: dict[str, Tree]) -> None:
    given = overrides["docker-compose.cuda.yml"]["services"]["worker-generate"]["environment"]
    assert set(given) <= {f"FACSIMILE_{field.upper()}" for field in WorkerSettings.model_fields}


@pytest.mark.parametrize("name", OURS)
def test_data_live_in_a_volume(name: str, services: dict[str, Tree]) -> None:
    folder = services[name]["environment"]["FACSIMILE_DATA_DIR"]
    assert f"data:{folder}" in services[name]["volumes"]


def test_keys_are_a_secret_file_and_never_in_the_environment(compose: Tree) -> None:
    gateway = compose["services"]["gateway"]
    assert gateway["environment"]["FACSIMILE_API_KEYS_FILE"] == f"/run/secrets/{gateway['secrets'][0]}"
    assert set(gateway["secrets"]) == set(compose["secrets"])


def test_the_broker_keeps_what_it_accepted(services: dict[str, Tree]) -> None:
    command = " ".join(services["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "redis:/data" in services["redis"]["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist(name: str, services: dict[str, Tree], compose: Tree, repository: Path) -> None:
    for volume in services[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (repository / source).exists(), source
            assert volume.endswith(":ro"), f"{name} could write to {source}"
        else:
            assert source in compose["volumes"]


def test_images_are_pinned(services: dict[str, Tree]) -> None:
    foreign = [service["image"] for service in services.values() if "build" not in service]
    assert all(re.search(r":v?\d+\.\d+\.\d+", image) for image in foreign), foreign


def test_the_compose_variables_are_documented_with_their_defaults(repository: Path) -> None:
    variables = set(
        re.findall(r"\$\{(\w+):-([^}]+)\}", (repository / "docker-compose.yml").read_text(encoding="utf-8"))
    )
    page = (repository / "docs/deployment.md").read_text(encoding="utf-8")
    assert variables == set(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", page, flags=re.MULTILINE))


def _user(stages: dict[str, list[str]], service: Tree) -> str:
    return [line.split()[1] for line in stages[service["build"]["target"]] if line.startswith("USER")][-1]
