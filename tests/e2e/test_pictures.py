"""What users come for: pictures, comparisons, new variants."""

from __future__ import annotations

import io
import json
import shutil

import pytest
from PIL import Image

from tests.support.service import Service

PROMPT = {"prompt": "a red cube", "num_inference_steps": 2}


@pytest.fixture(scope="session")
def variant(service: Service) -> str:
    """A variant that was calibrated by the running service, and is served without a restart."""
    calibrated = service.ended(service.submit("calibrations", recipe="tiny-w8a8", prompts="tiny-prompts"))
    assert calibrated["status"] == "succeeded", calibrated["error"]
    assert calibrated["result"]["card"]["report"]["metrics"]
    return str(calibrated["result"]["variant"])


def test_a_prompt_becomes_a_picture_and_the_seed_fixes_it(service: Service) -> None:
    jobs = [service.submit("generations", **PROMPT, seed=seed) for seed in (7, 7, 8)]
    first, again, other = (service.ended(job) for job in jobs)
    assert [job["status"] for job in (first, again, other)] == ["succeeded"] * 3
    picture = Image.open(io.BytesIO(service.picture(first)))
    assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert json.loads(picture.getexif()[0x010E])["seed"] == 7
    assert service.picture(first) == service.picture(again)
    assert service.picture(first) != service.picture(other)


def test_other_formats_and_several_pictures(service: Service) -> None:
    made = service.ended(service.submit("generations", **PROMPT, num_images=2, output_format="webp", scheduler="euler"))
    assert [Image.open(io.BytesIO(service.picture(made, i))).format for i in range(2)] == ["WEBP", "WEBP"]


def test_waiting_and_following(service: Service) -> None:
    answer = service.http.post("/v1/generations", json={"model": "tiny", **PROMPT}, headers={"Prefer": "wait=60"})
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    events = service.http.get(answer.json()["links"]["events"]).text
    assert '"state": "succeeded"' in events


def test_a_variant_is_compared_and_scored(service: Service, variant: str) -> None:
    same = {**PROMPT, "seed": 3, "variant": variant}
    compared = service.ended(service.submit("comparisons", **same))
    assert compared["status"] == "succeeded", compared["error"]
    result = compared["result"]
    assert len(result["differences"]) == 1
    assert result["score"]["metrics"]["psnr"][0] is not None
    assert result["score"]["noise_floor"]["psnr"]["mean"] is not None
    assert 0 < result["variant"]["resident_bytes"] < result["reference"]["resident_bytes"]
    scored = service.ended(service.submit("generations", **same, score=True))
    assert scored["result"]["score"]["metrics"] == result["score"]["metrics"]
    assert scored["result"]["images"] == result["variant"]["images"]
    assert scored["result"]["digest"] == service.http.get(f"/v1/variants/tiny/{variant}").json()["digest"]


def test_variants_are_evaluated_to_a_report(service: Service, variant: str) -> None:
    job = service.submit("evaluations", variants=[variant], prompt_sets=["tiny-prompts"], limit=2)
    ended = service.ended(job)
    assert ended["status"] == "succeeded", ended["error"]
    result = ended["result"]
    assert result["variants"][variant]["tiny-prompts"]["psnr"]["count"] == 2
    assert result["floors"]["bfloat16"]["psnr"]["mean"] is not None
    assert result["failures"] == {}
    report = service.http.get(result["report"]["json"])
    card = service.http.get(f"/v1/variants/tiny/{variant}").json()
    assert report.json()["variants"][variant]["card"]["digest"] == card["digest"]
    assert card["evaluation"] == result["report"]["html"]
    page = service.http.get(card["evaluation"]).text
    assert variant in page
    assert "<script" not in page
    assert list((service.data / "evaluation-cache").rglob("*.safetensors"))


def test_nothing_on_disk_is_for_others(service: Service, variant: str) -> None:
    service.ended(service.submit("generations", **PROMPT, variant=variant))
    written = [path for path in service.data.rglob("*") if path.is_file()]
    assert {path.relative_to(service.data).parts[0] for path in written} >= {"broker", "images", "variants"}
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_a_broken_variant_fails_alone(service: Service, variant: str) -> None:
    folder = service.data / "variants" / "tiny"
    shutil.copytree(folder / variant, folder / "broken")
    card = json.loads((folder / "broken" / "card.json").read_text())
    (folder / "broken" / "card.json").write_text(json.dumps({**card, "variant": "broken"}))
    weights = next((folder / "broken" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    broken = service.ended(service.submit("generations", **PROMPT, variant="broken"))
    assert (broken["status"], broken["error"]["code"]) == ("failed", "variant-unusable")
    for good in ("reference", variant):
        assert service.ended(service.submit("generations", **PROMPT, variant=good))["status"] == "succeeded"
    shutil.rmtree(folder / "broken")
