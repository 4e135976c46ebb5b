"""Records what a release writes: run it in a checkout of that release, `python -m tests.releases.record FOLDER`.

A real service draws, compares, calibrates and evaluates with a tiny model, is left with jobs in every state, and what
it wrote is copied: the broker's append-only file, the same as JSON to look at, and the variant. Nothing expires for ten
years, so that the files can be read as long."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from tests.support.service import Process, Service
from tests.support.tiny_model import save_tiny_model

RECIPE = """
method = "minmax"
keep_float = ["conv_in", "conv_out", "time_embedding.*", "*.time_emb_proj"]
[calibration]
num_prompts = 2
num_inference_steps = 2
guidance_scale = 3.0
"""
TEN_YEARS = str(10 * 365 * 86_400)
SHORT = {"prompt": "a red cube", "num_inference_steps": 2, "seed": 7}
LONG = {"prompt": "a red cube", "num_inference_steps": 150, "num_images": 8}
CALIBRATION = {"recipe": "tiny-w8a8", "prompts": "tiny-prompts"}
EVALUATION = {"variants": ["w8a8-minmax"], "prompt_sets": ["tiny-prompts"]}


def make_world(folder: Path) -> dict[str, str]:
    """Settings that name a tiny model, a recipe and a prompt set; only what 0.1.0 knows."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "tiny-w8a8.toml").write_text(RECIPE)
    prompts = folder / "prompts" / "tiny-prompts"
    prompts.mkdir(parents=True)
    for split in ("calibration", "validation", "test"):
        rows = [json.dumps({"id": f"{split}-{word}", "prompt": f"{split} {word}"}) for word in ("one", "two")]
        (prompts / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return {
        "FACSIMILE_MODELS": str(save_tiny_model(folder)),
        "FACSIMILE_RECIPES": str(folder / "recipes"),
        "FACSIMILE_PROMPTS": str(folder / "prompts"),
        "FACSIMILE_VARIANTS": str(folder / "shipped"),
        "FACSIMILE_PORT": "0",
        "FACSIMILE_METRICS_PORT": "0",
        "FACSIMILE_UI": "false",
        "FACSIMILE_RETENTION_SECONDS": TEN_YEARS,
    }


def work(service: Service) -> None:
    """Jobs of every kind that succeed, and then jobs in every other state."""
    for kind, body in (
        ("generations", SHORT),
        ("calibrations", CALIBRATION),
        ("generations", {**SHORT, "variant": "w8a8-minmax", "score": True}),
        ("comparisons", {**SHORT, "variant": "w8a8-minmax"}),
        ("evaluations", EVALUATION),
    ):
        ended = service.ended(service.submit(kind, **body))
        if ended["status"] != "succeeded":
            raise RuntimeError(f"{kind}: {ended['error']}")
    service.ended(service.submit("generations", **{**SHORT, "num_inference_steps": 1, "scheduler": "pndm"}))  # fails
    service.running(service.submit("generations", **LONG))
    service.submit("calibrations", **CALIBRATION, variant="running-or-done")
    for kind, body in (
        ("generations", SHORT),
        ("comparisons", {**SHORT, "variant": "w8a8-minmax"}),
        ("calibrations", {**CALIBRATION, "variant": "waiting"}),
        ("evaluations", EVALUATION),
    ):
        service.submit(kind, **body)
        canceled = service.submit(kind, **({**body, "variant": "canceled"} if kind == "calibrations" else body))
        service.http.post(canceled["links"]["cancel"])


def dump(client: redis.Redis) -> dict[str, Any]:
    """Every key with its value."""
    readers = {
        "string": client.get,
        "hash": client.hgetall,
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": lambda key: client.xrange(key),
    }
    return {key: readers[client.type(key)](key) for key in sorted(client.scan_iter("facsimile:*"))}


def record(target: Path) -> None:
    """Run the service and copy what it wrote."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        data = place / "data"
        process = Process(["app"], {**make_world(place / "world"), "FACSIMILE_DATA_DIR": str(data)})
        try:
            work(Service(process, data))
            time.sleep(1.5)  # the append-only file is synced every second
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            client = redis.Redis(unix_socket_path=str(data / "broker" / "valkey.sock"), decode_responses=True)
            (target / "store.json").write_text(json.dumps(dump(client), indent=1) + "\n")
            shutil.copytree(data / "broker" / "appendonlydir", target / "appendonlydir")
            shutil.copytree(data / "variants" / "tiny" / "w8a8-minmax", target / "variants" / "tiny" / "w8a8-minmax")
        finally:
            process.stop()


if __name__ == "__main__":
    record(Path(sys.argv[1]))
