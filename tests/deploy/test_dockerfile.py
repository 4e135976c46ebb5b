"""What the images hold, and what they never hold."""

from __future__ import annotations

from pathlib import Path

import pytest

TARGETS = ("gateway", "worker-cpu", "worker-cuda")


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_without_root_and_check_their_health(target: str, stages: dict[str, list[str]]) -> None:
    lines = stages[target]
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK") for line in lines)


@pytest.mark.parametrize("target", TARGETS)
def test_images_install_pinned_versions_only(target: str, stages: dict[str, list[str]]) -> None:
    installs = [line for line in stages[f"build-{target}"] if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


def test_the_gateway_image_has_no_torch_and_no_quantizer(stages: dict[str, list[str]]) -> None:
    gateway = " ".join(stages["gateway"] + stages["build-gateway"])
    for heavy in ("torch", "worker", "quant", "shapes"):
        assert heavy not in gateway


def test_copied_folders_exist_and_pass_the_dockerignore(stages: dict[str, list[str]], repository: Path) -> None:
    allowed = {
        line.lstrip("!").rstrip("/")
        for line in (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copies = {line for lines in stages.values() for line in lines if line.startswith("COPY") and "--from" not in line}
    sources = {source for line in copies for source in line.split()[1:-1]}
    assert not [source for source in sources if not (repository / source).exists()]
    assert {source.split("/")[0] for source in sources} == allowed


def test_no_secret_enters_an_image(stages: dict[str, list[str]]) -> None:
    words = " ".join(line for lines in stages.values() for line in lines).lower()
    for suspicious in ("api_key", "password", "token", "secret"):
        assert suspicious not in words
