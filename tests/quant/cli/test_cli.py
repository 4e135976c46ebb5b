"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from facsimile.__main__ import app
from tests.support.tiny_world import TinyWorld

runner = CliRunner()


def _run(*arguments: object) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_generate_writes_the_pictures_it_names(tiny: TinyWorld, tmp_path: Path) -> None:
    common = ("generate", "tiny", "--models", tiny.models, "--prompt", "a red box", "--seed", 3, "--json")
    first = json.loads(_run(*common, "--output", tmp_path / "a", "--num-images", 2))
    assert first["seeds"] == [3, 4]
    assert [Image.open(file).size for file in first["files"]] == [(64, 64)] * 2
    quantized = ("--variant", "w8a8-minmax", "--variant-folder", tiny.variants)
    second = json.loads(_run(*common, "--output", tmp_path / "b", *quantized))
    assert Path(second["files"][0]).read_bytes() != Path(first["files"][0]).read_bytes()


def test_compare_reports_the_documented_keys(tiny: TinyWorld) -> None:
    result = json.loads(
        _run(
            "compare", "tiny", "--models", tiny.models, "--variant", "w8a8-minmax",
            "--variant-folder", tiny.variants, "--prompts", "test", "--limit", 4, "--json",
        )
    )  # fmt: skip
    low, high = result["psnr"]["ci95"]
    assert low <= result["psnr"]["mean"] <= high
    assert result["ssim"]["mean"] > 0.9 and len(result["ssim"]["ci95"]) == 2
    assert result["noise_floor"]["psnr"]["mean"] > result["psnr"]["mean"]
    assert "128 x 128, not 64 x 64" in result["not_measured"]["prompt_accuracy"]
    assert result["count"] == 4 and result["machine"]["threads"] >= 1


def test_quantize_makes_a_variant_that_compare_finds(tiny: TinyWorld, tmp_path: Path) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        'method = "minmax"\nweight_bits = 4\nkeep_float = ["conv_in", "conv_out"]\n'
        "[calibration]\nnum_prompts = 2\nnum_inference_steps = 2\n"
    )
    arguments = ("quantize", "tiny", "--models", tiny.models, "--recipe", recipe, "--output", tmp_path)
    card = json.loads(_run(*arguments, "--limit", 2, "--json"))
    assert card["variant"] == "w4a8-minmax" and "conv_in" in card["float_layers"]
    assert not list(tmp_path.glob("tiny/.*")), "nothing is left of the staging folder"
    refused = runner.invoke(app, [str(argument) for argument in arguments])
    assert refused.exit_code == 2


def test_generate_scores_against_the_reference_with_every_setting(tiny: TinyWorld, tmp_path: Path) -> None:
    settings = ("--width", 96, "--height", 64, "--scheduler", "euler", "--negative-prompt", "blur", "--score", "--json")
    result = json.loads(
        _run(
            "generate", "tiny", "--models", tiny.models, "--prompt", "a red box", "--variant", tiny.folder(8),
            "--output", tmp_path, "--num-images", 2, *settings,
        )
    )  # fmt: skip
    assert [Image.open(file).size for file in result["files"]] == [(96, 64)] * 2
    assert len(result["metrics"]["psnr"]) == 2 and min(result["metrics"]["psnr"]) > 20


def test_models_lists_variants_with_the_psnr_of_their_cards(tiny: TinyWorld) -> None:
    arguments = ("models", "--models", tiny.models, "--variant-folder", tiny.variants)
    told = json.loads(_run(*arguments, "--json"))["tiny"]
    assert (told["family"], told["dtype"], told["width"]) == ("stable_diffusion", "float32", 64)
    card = json.loads((tiny.folder(4) / "card.json").read_text())
    assert told["variants"]["w4a8-minmax"] == card["report"]["metrics"]["psnr"]
    assert f"{card['report']['metrics']['psnr']['mean']:.2f}" in _run(*arguments)


def test_a_model_may_be_a_folder_and_prompts_a_file(tiny: TinyWorld, tmp_path: Path) -> None:
    recipe, prompts = tmp_path / "own.toml", tmp_path / "own.txt"
    recipe.write_text('method = "minmax"\n[calibration]\nnum_prompts = 2\nnum_inference_steps = 2\n')
    prompts.write_text("\n".join(["a red box", "a blue ball", "a green cone", "a ring", "two cones"]))
    common = ("quantize", tiny.description.source, "--recipe", recipe, "--prompts", prompts)
    card = json.loads(_run(*common, "--limit", 2, "--output", tmp_path, "--json"))
    assert (card["model"], card["signature"]["width"], card["report"]["prompt_set"]) == ("tiny", 64, "own")
    assert len(card["calibration_prompt_ids"]) == len(card["report"]["prompt_ids"]) == 2
    assert not set(card["calibration_prompt_ids"]) & set(card["report"]["prompt_ids"])
    prompts.write_text("a red box\na blue ball")
    refused = runner.invoke(app, [*map(str, common), "--output", str(tmp_path / "other")])
    assert refused.exit_code == 2 and "--report-prompts" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "nope", "--prompt", "x"), "shapes-sd"),
        (("generate", "shapes-sd", "--prompt", "x", "--variant", "nope"), "there are"),
        (("compare", "shapes-sd", "--variant", "w8a8-minmax", "--prompts", "nope"), "shapes-plain"),
        (("quantize", "shapes-sd", "--recipe", "nope"), "there are best-w3a8"),
    ],
)
def test_a_wrong_name_is_said_with_what_there_is(arguments: tuple[str, ...], message: str) -> None:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('method = "minmax"\nweight_bits = 1', "own.toml: weight_bits: must be at least 2"),
        (
            'method = "minmax"\n[stages.rounding]\nkind = "magic"',
            "own.toml: stages.rounding: must be of one of these",
        ),
        ('method = "eda_dm"\ntimestep_groups = 5', "timestep_groups must be 1, not 5"),
        ('method = "minmax"\nmethod = "pcr"', "own.toml: Cannot overwrite a value"),
        ("method = \0", "own.toml: Invalid value"),
    ],
)
def test_a_faulty_recipe_is_explained_on_one_line(tmp_path: Path, text: str, fault: str) -> None:
    recipe = tmp_path / "own.toml"
    recipe.write_text(text, encoding="utf-8")
    result = runner.invoke(app, ["quantize", "shapes-sd", "--recipe", str(recipe), "--output", str(tmp_path)])
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert fault in message and "errors.pydantic.dev" not in message
    assert not (tmp_path / "shapes-sd").exists()


def test_engine_says_what_was_chosen_and_why() -> None:
    result = json.loads(_run("engine", "--device", "cpu", "--json"))
    assert result["engine"] in {"onednn", "reference"} and result["device"] == "cpu"
    assert any(reason.startswith("products: ") for reason in result["reasons"])
    assert any(reason.startswith("passes: ") for reason in result["reasons"]) or result["engine"] == "reference"
    assert "reference" in _run("engine", "--device", "meta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variant", "My_Variant"), "lower-case letters"),
        (("--variant", "-x"), "lower-case letters"),
        (("--output", "/proc/nope"), "cannot be written"),
        (("--variant", "w8a8-minmax"), "exists"),
    ],
)
def test_what_quantize_refuses_it_refuses_before_any_work(
    tiny: TinyWorld, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    given = {"--output": str(tiny.variants), "--recipe": "minmax-w8a8"} | dict([arguments])
    words = [word for pair in given.items() for word in pair]
    start = time.monotonic()
    result = runner.invoke(app, ["quantize", "tiny", "--models", str(tiny.models), *words])
    assert (result.exit_code, message in result.stderr.replace("\n", " ")) == (2, True), result.stderr
    assert time.monotonic() - start < 5
    assert not list(tiny.variants.glob("tiny/.*"))


def test_generate_refuses_before_it_draws(tiny: TinyWorld) -> None:
    common = ["generate", "tiny", "--models", str(tiny.models)]
    for more, message in (
        (["--prompt", "x", "--output", "/proc/nope"], "cannot be written"),
        (["--prompt", " "], "must not be blank"),
        (["--prompt", "x", "--score"], "name one by --variant"),
    ):
        result = runner.invoke(app, [*common, *more])
        assert (result.exit_code, message in result.stderr.replace("\n", " ")) == (2, True), result.stderr


def test_without_a_terminal_every_stage_writes_a_line(tiny: TinyWorld, tmp_path: Path) -> None:
    result = runner.invoke(
        app, ["generate", "tiny", "--models", str(tiny.models), "--prompt", "x", "--output", str(tmp_path)]
    )
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("denoise: ")]
    assert lines[0].startswith("denoise: 1 of") and lines[-1] == "denoise: 2 of 2"
