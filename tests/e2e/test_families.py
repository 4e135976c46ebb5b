"""Models of every family behind HTTP: drawn, calibrated, compared; and what a model does not take is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import Process, Service
from tests.support.tiny_families import FAMILY, SIZE, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PRESETS = {"sd1": "minmax", "sd2": "pcr", "sdxl": "s2p_v2", "sd3": "best", "ddim": "minmax"}
STAGES: dict[str, dict[str, Any]] = {
    "s2p_v2": {"fine_tuning": {"kind": "none"}},
    "best": {"fine_tuning": {"kind": "none"}, "bits": {"kind": "uniform"}},
}
"""What makes those methods short; every stage of theirs has its turn in tests/quant/families."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("families")
    tables = []
    for name, family in FAMILY.items():
        build(name).save_pretrained(folder / name)
        sides = "\n".join(f"{side} = {SIZE}" for side in ("width", "height", "max_width", "max_height"))
        sampling = "guidance_scale = 3.0\nnum_inference_steps = 3"
        tables.append(f'[{name}]\nfamily = "{family}"\nsource = "{name}"\n{sides}\n{sampling}\n')
    (folder / "models.toml").write_text("".join(tables))
    env = {
        "FACSIMILE_DATA_DIR": str(folder / "data"), "FACSIMILE_MODELS": str(folder / "models.toml"),
        "FACSIMILE_PORT": "0", "FACSIMILE_METRICS_PORT": "0", "FACSIMILE_UI": "false",
    }  # fmt: skip
    process = Process(["app"], env)
    try:
        yield Service(process, Path(folder / "data"))
    finally:
        process.stop()


def _asked(name: str) -> dict[str, Any]:
    return {"model": name} if name == "ddim" else {"model": name, "prompt": "abc"}


@pytest.mark.parametrize("name", FAMILY)
def test_a_variant_is_calibrated_served_and_compared(service: Service, name: str) -> None:
    recipe = {
        "method": PRESETS[name], "weight_bits": 8, "keep_float": ["@input", "@output"],
        "calibration": {"num_prompts": 2, "num_inference_steps": 3, "guidance_scale": 3.0},
        "stages": STAGES.get(PRESETS[name], {}),
    }  # fmt: skip
    prompts: Any = "seeds" if name == "ddim" else ["abc", "xyz", "q a", "r"]
    job = service.ended(service.submit("calibrations", model=name, recipe=recipe, prompts=prompts, variant="made"))
    assert job["status"] == "succeeded", job["error"]
    drawn = service.ended(service.submit("generations", **_asked(name), variant="made", seed=3))
    exact = service.ended(service.submit("generations", **_asked(name), seed=3))
    assert (drawn["status"], exact["status"]) == ("succeeded", "succeeded"), (drawn["error"], exact["error"])
    assert service.picture(drawn) != service.picture(exact)
    compared = service.ended(service.submit("comparisons", **_asked(name), variant="made", seed=3))
    assert compared["status"] == "succeeded", compared["error"]
    assert compared["result"]["score"]["metrics"]["psnr"][0] > 5.0
    assert compared["result"]["variant"]["images"] == drawn["result"]["images"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "ddim", "prompt": "abc"}, "prompt"),
        ({"model": "ddim", "negative_prompt": "abc"}, "negative_prompt"),
        ({"model": "sd1"}, "prompt"),
    ],
)
def test_a_prompt_is_asked_for_where_a_model_takes_one(service: Service, body: dict[str, Any], field: str) -> None:
    answer = service.http.post("/v1/generations", json=body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["loc"][-1] == field, answer.text


def test_models_say_what_they_are_asked_with(service: Service) -> None:
    models = {each["id"]: each for each in service.http.get("/v1/models").json()["data"]}
    assert {name: models[name]["asked"] for name in FAMILY} == dict.fromkeys(FAMILY, "text") | {"ddim": "nothing"}
