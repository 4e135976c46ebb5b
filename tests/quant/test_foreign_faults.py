"""Whatever is wrong with a model's folder, a scheduler's settings, a models file or a prompt file, it is said in our
words: none of the libraries' own errors gets through."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contract.catalogue import ModelDescription, read_models
from contract.errors import ContractError
from quant.checkpoints.pipelines import load_reference
from quant.errors import ModelError, QuantError, SamplingError
from quant.sampling.generation import denoise
from quant.sampling.prompts import load_prompt_set
from quant.sampling.request import Sampling
from quant.sampling.schedulers import SCHEDULERS
from tests.support.tiny_model import build_tiny_pipeline

SLOW = int(os.environ.get("FOREIGN_EXAMPLES", "25"))
KEPT = settings(
    max_examples=SLOW,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # shrinking draws hundreds of pictures more
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""The same examples each time; FOREIGN_EXAMPLES=500 makes two thousand of them."""

OURS = (QuantError, ContractError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    build_tiny_pipeline().save_pretrained(place / "tiny")
    return place / "tiny"


def draws(folder: Path, sampling: Sampling) -> None:
    description = ModelDescription(family="stable_diffusion", source=str(folder))
    denoise(load_reference(description), sampling)


SMALL = Sampling("a b c", num_inference_steps=1, width=64, height=64)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2000), st.floats(-2, 2, allow_nan=False), st.sampled_from(
        ["epsilon", "v_prediction", "squaredcos_cap_v2", "linear", "leading", "trailing", "linspace", "gelu", "x"]
    ), st.lists(st.integers(1, 64), max_size=3),
)  # fmt: skip
JSON_FILES = (
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json",
)  # fmt: skip


def config_change() -> st.SearchStrategy[Callable[[Path], None]]:
    def change(name: str, choice: int, value: Any) -> Callable[[Path], None]:
        def apply(folder: Path) -> None:
            try:
                content = json.loads((folder / name).read_text())
            except (OSError, ValueError):  # an earlier change damaged it
                return
            keys = sorted(content)
            content[keys[choice % len(keys)]] = value
            (folder / name).write_text(json.dumps(content))

        return apply

    return st.builds(change, st.sampled_from(JSON_FILES), st.integers(0, 200), VALUES)


def file_damage() -> st.SearchStrategy[Callable[[Path], None]]:
    def damage(choice: int, kind: str, amount: int) -> Callable[[Path], None]:
        def apply(folder: Path) -> None:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            path = files[choice % len(files)]
            if kind == "gone":
                path.unlink()
            elif kind == "cut":
                path.write_bytes(path.read_bytes()[:amount])
            elif kind == "other":
                path.write_bytes(b"\x80\x04" + bytes(amount % 64))
            else:
                path.rename(path.with_suffix(".bin"))

        return apply

    return st.builds(
        damage, st.integers(0, 100), st.sampled_from(["gone", "cut", "other", "renamed"]), st.integers(0, 300)
    )


@KEPT
@given(changes=st.lists(st.one_of(config_change(), file_damage()), min_size=1, max_size=2))
def test_a_model_folder_that_cannot_be_used(
    changes: list[Callable[[Path], None]], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("damaged") / "tiny"
    shutil.copytree(folder, place)
    try:
        for change in changes:
            change(place)
        draws(place, SMALL)
    except QuantError as error:
        assert "Traceback" not in str(error) and len(str(error)) < 600
    finally:
        shutil.rmtree(place)


@KEPT
@given(
    schedule=st.fixed_dictionaries(
        {},
        optional={
            "beta_schedule": st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
            "timestep_spacing": st.sampled_from(["leading", "trailing", "linspace"]),
            "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample"]),
            "steps_offset": st.integers(0, 1),
            "use_karras_sigmas": st.booleans(),
            "rescale_betas_zero_snr": st.booleans(),
            "num_train_timesteps": st.sampled_from([1, 10, 100, 1000]),
        },
    ),
    scheduler=st.sampled_from([None, *SCHEDULERS]),
    steps=st.sampled_from([1, 2, 3, 4, 8]),
)
def test_settings_that_a_scheduler_refuses(schedule: dict[str, Any], scheduler: str | None, steps: int) -> None:
    pipeline = build_tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = type(pipeline.scheduler).from_config({**pipeline.scheduler.config, **schedule})
    try:
        denoise(pipeline, Sampling("a", num_inference_steps=steps, width=64, height=64, scheduler=scheduler))
    except SamplingError as error:
        assert str(steps) in str(error) or scheduler is None or scheduler in str(error)


TOML = st.one_of(
    st.text(max_size=80),
    st.builds(
        lambda name, key, value: f'[{name}]\nfamily = "stable_diffusion"\nsource = "x"\n{key} = {value}\n',
        st.sampled_from(["sd", "SD15", "a.b", '"a b"', "a-b", '""', "sd_1"]),
        st.sampled_from(["width", "height", "dtype", "revision", "guidance_scale", "max_width", "family", "steps"]),
        st.sampled_from(["1", "64", "-8", '"float16"', '"float64"', "nan", "true", "[]", '"auto"', "1e9"]),
    ),
)


@KEPT
@given(text=TOML)
def test_a_models_file_is_read_or_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("models") / "models.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_models(path)
    except ContractError as error:
        assert "models.toml" in str(error) and "\n" not in str(error)


@KEPT
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.text(max_size=80).map(lambda text: text.encode("utf-16")),
        st.lists(st.dictionaries(st.sampled_from(["prompt", "id", "attributes", "x"]), VALUES), max_size=4).map(
            lambda rows: "\n".join(json.dumps(row) for row in rows).encode()
        ),
        st.text(max_size=80).map(str.encode),
    ),
    ending=st.sampled_from([".txt", ".jsonl", ".json", ".csv", ".parquet", ".xml", ""]),
)
def test_a_prompt_file_is_read_or_refused(
    content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("prompts") / f"mine{ending}"
    path.write_bytes(content)
    try:
        found = load_prompt_set(path.parent, str(path))
        assert all(prompt.text.strip() for prompt in found.prompts)
    except OURS as error:
        assert str(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_channels": 9}, "an inpainting model"),
        ({"in_channels": 8}, "an editing model"),
        ({"in_channels": 5}, "depth"),
        ({"cross_attention_dim": 48}, "features"),
    ],
)
def test_another_kind_of_model_is_named_when_it_is_loaded(
    folder: Path, tmp_path: Path, change: dict[str, int], words: str
) -> None:
    from diffusers import UNet2DConditionModel

    shutil.copytree(folder, tmp_path / "other")
    config = UNet2DConditionModel.load_config(tmp_path / "other" / "unet")
    UNet2DConditionModel.from_config({**config, **change}).save_pretrained(tmp_path / "other" / "unet")
    with pytest.raises(ModelError, match=words):
        load_reference(ModelDescription(family="stable_diffusion", source=str(tmp_path / "other")))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "model_index.json"),
        (lambda path: path.write_bytes(b"weights"), "it is a file"),
        (lambda path: None, "hf download"),
    ],
)
def test_what_is_no_model_says_what_would_be_one(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "model")
    with pytest.raises(ModelError, match=words):
        load_reference(ModelDescription(family="stable_diffusion", source=str(tmp_path / "model")))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_too_few_steps_name_the_scheduler_and_the_setting(steps: int) -> None:
    sampling = Sampling("a", num_inference_steps=steps, width=64, height=64, scheduler="pndm")
    with pytest.raises(SamplingError, match=rf"pndm cannot draw in {steps} steps.*num_inference_steps or scheduler"):
        denoise(build_tiny_pipeline(), sampling)


def test_what_the_caller_raises_in_a_step_stays_its_own() -> None:
    class Stop(ValueError):
        pass

    def stop(step: int, steps: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        denoise(build_tiny_pipeline(), SMALL, stop)
