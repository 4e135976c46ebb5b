from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator

import pytest

from tests.support.long_prompts import LONG
from tests.support.service import SHORT_TIMES, STOP_SECONDS, Process, Service
from tests.support.tiny_model import save_tiny_model

RECIPE = """
method = "minmax"
keep_float = ["conv_in", "conv_out", "time_embedding.*", "*.time_emb_proj"]
[calibration]
num_prompts = 2
num_inference_steps = 2
guidance_scale = 3.0
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that name a tiny model, one recipe and one prompt set."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "tiny-w8a8.toml").write_text(RECIPE)
    for name, words in (("tiny-prompts", ("one", "two")), ("long-prompts", (LONG, LONG[::-1]))):
        prompts = folder / "prompts" / name
        prompts.mkdir(parents=True)
        for split in ("calibration", "validation", "test"):
            rows = [
                json.dumps({"id": f"{split}-{index}", "prompt": f"{split} {word}"}) for index, word in enumerate(words)
            ]
            (prompts / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return {
        "FACSIMILE_MODELS": str(save_tiny_model(folder)),
        "FACSIMILE_RECIPES": str(folder / "recipes"),
        "FACSIMILE_PROMPTS": str(folder / "prompts"),
        "FACSIMILE_VARIANTS": str(folder / "shipped"),
        "FACSIMILE_PORT": "0",
        "FACSIMILE_METRICS_PORT": "0",
        "FACSIMILE_UI": "false",
    }


@pytest.fixture(scope="session")
def service(world: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests, with short times: a test that kills a part leaves it to the service to recover."""
    data = tmp_path_factory.mktemp("data")
    process = Process(["app"], {**world, **SHORT_TIMES, "FACSIMILE_DATA_DIR": str(data)})
    try:
        yield Service(process, data)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{process.output}") from error
    finally:
        asked = time.monotonic()
        status = process.stop()
    assert status == 0, process.output
    assert time.monotonic() - asked < STOP_SECONDS, f"a child had to be killed\n{process.output}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the service's output with a failed test."""
    report = yield
    service = getattr(item, "funcargs", {}).get("service")
    if report.failed and isinstance(service, Service):
        report.sections.append(("service output", service.process.output[-8000:]))
    return report
