"""The study of methods: which arms there are, which are left to do, and that a killed run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.methods.variant as variant_module
import quant.fidelity.study as study_module
from benchmarks.methods.ablation import Ablation, Ablations, read_ablations, recipe_json
from benchmarks.methods.arms import EXPECTED, Arm, all_arms, sames
from benchmarks.methods.measurement import measure, write
from benchmarks.methods.process import ArmFailed, run_process
from benchmarks.methods.results import State, current, standings
from benchmarks.methods.study import conduct, plan, task_of
from benchmarks.methods.task import Places, Protocol, Task
from contract.recipe import Recipe
from quant.fidelity.networks.judge import Judge
from quant.methods.minmax import STAGES
from tests.support.made_results import made_result
from tests.support.study import resolution
from tests.support.tiny_model import save_tiny_model

NO_ABLATIONS = Ablations(groups={}, ablations={})
PROTOCOL = Protocol(limit=64)
S2P = 'method = "s2p_v2"\nweight_bits = 4\nstages.fine_tuning = { kind = "serial_to_parallel", rounds = 7 }\n'


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A folder with three presets, one of them broken."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "s2p-v2-w4a8.toml").write_text(S2P)
    (folder / "minmax-w4a8.toml").write_text('method = "minmax"\nweight_bits = 4\n')
    (folder / "pcr-w4a6.toml").write_text('method = "pcr"\nweight_bits = ')
    return folder


def _arm(name: str, recipes: Path, ablations: Ablations = NO_ABLATIONS) -> Arm:
    return next(arm for arm in all_arms(recipes, ablations, resolution()) if arm.name == name)


def test_arms_without_a_preset_are_missing_and_no_crash(recipes: Path) -> None:
    arms = {arm.name: arm for arm in all_arms(recipes, read_ablations(), resolution())}
    assert set(EXPECTED) <= set(arms)
    assert {name for name, arm in arms.items() if arm.group is None and arm.fault is None} == {
        "s2p-v2-w4a8",
        "minmax-w4a8",
    }
    assert "there is no preset recipes/best-w4a8.toml" in str(arms["best-w4a8"].fault)
    assert "pcr-w4a6.toml" in str(arms["pcr-w4a6"].fault) and arms["relaxing-none"].fault == arms["pcr-w4a6"].fault
    due = plan(standings(arms.values(), recipes, PROTOCOL), ["*-w4a8", "relaxing-*"], renew=False)
    assert {"best-w4a8", "relaxing-none"} <= set(due.missing)
    assert [arm.name for arm in due.todo] == ["minmax-w4a8", "s2p-v2-w4a8"]


def test_a_preset_whose_name_lies_about_its_bits_is_missing(recipes: Path) -> None:
    (recipes / "minmax-w8a8.toml").write_text('method = "minmax"\nweight_bits = 4\n')
    assert _arm("minmax-w8a8", recipes).fault == "minmax-w8a8.toml is called w8a8 and is w4a8"


def test_an_ablation_changes_what_it_names_and_nothing_else(recipes: Path) -> None:
    base = _arm("s2p-v2-w4a8", recipes)
    arms = {arm.name: arm for arm in all_arms(recipes, read_ablations(), resolution())}
    assert base.stages is not None
    tuning = base.stages.fine_tuning
    assert tuning.rounds == 7 and tuning.freezing == "plateau" and tuning.feature_weight == 0.1  # type: ignore[union-attr]
    changes: dict[str, dict[str, object]] = {
        "tuning-serial": {"kind": "serial"},
        "freezing-oscillation": {"freezing": "oscillation"},
        "s2p-no-distillation": {"feature_weight": 0.0},
    }
    for name, change in changes.items():
        expected = base.stages.model_copy(update={"fine_tuning": tuning.model_copy(update=change)})
        assert arms[name].stages == expected
    kept = arms["s2p-time-path-kept"].stages
    assert kept is not None and kept.time_path.kind == "keep"
    assert kept.fine_tuning == tuning.model_copy(update={"time_tables": False})


def test_a_changed_kind_drops_the_old_option_but_for_what_is_asked(recipes: Path) -> None:
    (recipes / "eda-dm-w4a8.toml").write_text(
        'method = "eda_dm"\nweight_bits = 4\nstages.rounding = { kind = "fbr", batch = 123 }\n'
    )
    arms = {arm.name: arm for arm in all_arms(recipes, read_ablations(), resolution())}
    brecq = arms["rounding-brecq"].stages
    assert brecq is not None and brecq.rounding.kind == "brecq"
    assert (brecq.rounding.batch, brecq.rounding.drop) == (123, 0.0)


def test_an_ablation_of_nothing_is_the_preset_and_not_run_twice(recipes: Path) -> None:
    standing = standings(all_arms(recipes, read_ablations(), resolution()), recipes, PROTOCOL)
    assert standing["tuning-serial-to-parallel"].same_as == "s2p-v2-w4a8"
    assert standing["freezing-none"].same_as == "s2p-no-freezing"
    due = plan(standing, ["freezing-none", "s2p-no-freezing"], renew=False)
    assert [arm.name for arm in due.todo] == ["s2p-no-freezing"] and due.same == {"freezing-none": "s2p-no-freezing"}


def test_an_ablation_that_makes_no_recipe_is_missing(recipes: Path) -> None:
    changes: dict[str, dict[str, dict[str, Any]]] = {
        "stage": {"tune": {"kind": "none"}},
        "option": {"ranges": {"kind": "guess"}},
        "value": {"rounding": {"kind": "brecq", "iterations": "preset"}},
        "contradiction": {"ranges": {"kind": "progressive"}},
    }
    bad = {name: Ablation(group="g", preset="minmax-w4a8", stages=stages) for name, stages in changes.items()}
    arms = {arm.name: arm for arm in all_arms(recipes, Ablations(groups={}, ablations=bad), resolution())}
    assert all(arms[name].fault and arms[name].recipe is None for name in bad)


def test_every_shipped_ablation_belongs_to_a_group_with_a_title() -> None:
    declared = read_ablations()
    assert {each.group for each in declared.ablations.values()} == set(declared.groups)


def test_a_recipe_reaches_the_process_as_it_is(recipes: Path) -> None:
    """Fields of an option that were not named are the method's: writing defaults in their place changes the recipe."""
    arm = _arm("s2p-v2-w4a8", recipes)
    task = Task.model_validate_json(task_of(arm, PROTOCOL, Places(), drop=False).model_dump_json())
    received = Arm("x", "x", "w4a8", recipe=Recipe.model_validate(task.recipe), stages=arm.stages)
    assert received.identity == arm.identity and task.recipe["stages"] == {
        "fine_tuning": {"kind": "serial_to_parallel", "rounds": 7}
    }
    assert arm.recipe is not None and recipe_json(arm.recipe) == task.recipe


def test_a_result_of_another_recipe_is_stale(recipes: Path, tmp_path: Path) -> None:
    arm = _arm("s2p-v2-w4a8", recipes)
    write(made_result(arm, 0.1, protocol=PROTOCOL), tmp_path / "s2p-v2-w4a8.json")
    assert standings([arm], tmp_path, PROTOCOL)[arm.name].state is State.FINISHED
    assert standings([arm], tmp_path, Protocol(limit=8))[arm.name].reason == "limit was 64, is 8"
    (recipes / "s2p-v2-w4a8.toml").write_text(S2P.replace("7", "8"))
    standing = standings([_arm("s2p-v2-w4a8", recipes)], tmp_path, PROTOCOL)
    found = standing["s2p-v2-w4a8"]
    assert found.state is State.STALE and found.reason == "the recipe has changed: stages.fine_tuning"
    assert not current(standing)
    assert plan(standing, [], renew=False).stale == {"s2p-v2-w4a8": found.reason}
    assert not plan(standing, [], renew=False).todo
    assert [each.name for each in plan(standing, [], renew=True).todo] == ["s2p-v2-w4a8"]


def test_a_method_that_has_changed_makes_results_stale(recipes: Path, tmp_path: Path) -> None:
    arm = _arm("minmax-w4a8", recipes)
    write(made_result(arm, 0.1, protocol=PROTOCOL), tmp_path / "minmax-w4a8.json")
    assert arm.stages is not None
    changed = replace(arm, stages=arm.stages.model_copy(update={"split_shortcuts": True}))
    assert standings([changed], tmp_path, PROTOCOL)[arm.name].reason == "the recipe has changed: stages.split_shortcuts"
    assert sames([arm, replace(arm, name="again"), changed]) == {"again": "minmax-w4a8"}


def test_patterns_set_the_order_and_finished_arms_are_skipped(recipes: Path, tmp_path: Path) -> None:
    arms = all_arms(recipes, read_ablations(), resolution())
    standing = standings(arms, tmp_path, PROTOCOL)
    todo = [arm.name for arm in plan(standing, ["tuning-p*", "s2p-v2-w4a8"], renew=False).todo]
    assert todo == ["tuning-parallel", "s2p-v2-w4a8"]
    write(made_result(_arm("s2p-v2-w4a8", recipes), 0.1, protocol=PROTOCOL), tmp_path / "s2p-v2-w4a8.json")
    (tmp_path / "minmax-w4a8.json").write_text('{"question": "meth')  # what is damaged does not count
    due = plan(standings(arms, tmp_path, PROTOCOL), [], renew=False)
    assert due.finished == ("s2p-v2-w4a8",) and due.todo[0].name == "minmax-w4a8"


def test_a_study_that_is_killed_goes_on_with_the_arms_that_are_left(recipes: Path, tmp_path: Path) -> None:
    arms = [arm for arm in all_arms(recipes, read_ablations(), resolution()) if arm.fault is None]
    places = Places(results=tmp_path / "results")
    launched: list[str] = []

    def launch(task: Task) -> None:
        if len(launched) == 2:
            raise KeyboardInterrupt
        launched.append(task.arm)
        if task.arm == "minmax-w4a8":
            raise ArmFailed("minmax-w4a8: no memory")
        write(made_result(next(a for a in arms if a.name == task.arm), 0.1, protocol=PROTOCOL), places.result(task.arm))

    def run() -> dict[str, str]:
        due = plan(standings(arms, places.results, PROTOCOL), ["minmax*", "s2p-v2*", "tuning-*"], renew=False)
        return conduct([task_of(a, PROTOCOL, places, drop=False) for a in due.todo], launch, lambda *_: None)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert launched == ["minmax-w4a8", "s2p-v2-w4a8"]
    launched.clear()
    launched += ["", "", ""]
    assert run() == {"minmax-w4a8": "minmax-w4a8: no memory"}
    assert launched[3:] == ["minmax-w4a8", "tuning-serial", "tuning-parallel", "tuning-after-reconstruction"]


class _Killed(Exception):
    pass


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """One arm of the tiny model, on sets of its own."""
    folder = tmp_path_factory.mktemp("methods")
    models = save_tiny_model(folder)
    words = {"shapes-plain": "box", "shapes-ornate": "vase"}
    for name, word in words.items():
        for split, count in (("calibration", 2), ("validation", 2), ("test", 3)):
            (folder / "prompts" / name).mkdir(parents=True, exist_ok=True)
            rows = [
                {"id": f"{name}-{split}-{i}", "prompt": f"{split} {word} {'abc'[i]}", "attributes": {"floor": "light"}}
                for i in range(count)
            ]
            (folder / "prompts" / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    torch.manual_seed(0)
    Judge(heads=[("floor", ["light", "dark"])], image_size=64).save_pretrained(folder / "backbones" / "judge")
    recipe = Recipe.model_validate(
        {
            "method": "minmax",
            "weight_bits": 4,
            "keep_float": ["conv_in", "conv_out", "time_embedding.*", "*.time_emb_proj"],
            "calibration": {"num_prompts": 2, "num_inference_steps": 2, "guidance_scale": 3.0},
            "stages": {"inputs": {"kind": "all", "prompts": 2}},
        }
    )
    arm = Arm("minmax-w4a8", "minmax", "w4a8", recipe=recipe, stages=recipe.complete(STAGES))
    protocol = Protocol(model="tiny", limit=3, held_out=2)
    places = Places(
        models=models,
        prompts=folder / "prompts",
        backbones=folder / "backbones",
        variants=folder / "variants",
        cache=folder / "cache",
        results=folder / "results",
    )
    return task_of(arm, protocol, places, drop=False)


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was done before")


def test_the_result_of_an_arm_has_all_that_is_needed_later(task: Task) -> None:
    stages: list[str] = []
    result = measure(task, lambda stage, *_: stages.append(stage))
    assert json.loads(task.places.result("minmax-w4a8").read_text(encoding="utf-8")) == result
    for prompt_set in ("shapes-plain", "shapes-ornate"):
        figures = result["figures"][prompt_set]
        assert {"ssim", "psnr", "latent_mse", "trajectory", "frechet:judge", "prompt_accuracy"} <= set(figures)
        for metric, values in result["paired"][prompt_set].items():
            assert len(values) == 3
            assert sum(values) / 3 == pytest.approx(figures[metric]["mean"], rel=1e-5)
        assert len(result["curves"][prompt_set]) == 2
    assert set(result["generalization"]) == {"shapes-ornate"}
    assert "ssim" in result["floors"]["bfloat16"]["shapes-ornate"]
    assert result["calibration"]["seconds"] > 0 and result["calibration"]["peak_bytes"] > 0
    assert result["denoiser_bytes"] == result["card"]["denoiser_bytes"]
    assert {"ranges", "draw minmax-w4a8"} <= set(stages)
    assert (task.places.variants / "minmax-w4a8" / "card.json").is_file()


def test_an_arm_that_is_killed_goes_on_where_it_was(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = task.places.model_copy(update={"variants": tmp_path / "variants", "results": tmp_path / "results"})
    again = task.model_copy(update={"places": places, "drop": True})

    def kill_at(stage: str) -> Any:
        def show(current: str, done: int, total: int, note: str = "") -> None:
            if current == stage:
                raise _Killed

        return show

    for stage in ("ranges", "save", "evaluation"):  # in calibration, while files are written, after it
        with pytest.raises(_Killed):
            measure(again, kill_at(stage))
        assert not places.result("minmax-w4a8").exists()
    monkeypatch.setattr(variant_module, "quantize", _never)
    first = measure(again, lambda *_: None)
    assert not (places.variants / "minmax-w4a8").exists(), "--drop removes the variant"
    second = json.loads(task.places.result("minmax-w4a8").read_text(encoding="utf-8"))
    assert first["figures"] == second["figures"] and first["paired"] == second["paired"]


def test_a_variant_of_another_recipe_is_made_anew(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "draw", _never)
    monkeypatch.setattr(variant_module, "quantize", _never)
    measure(task, lambda *_: None)  # all of it was done before
    other = task.model_copy(update={"recipe": task.recipe | {"weight_bits": 8}})
    with pytest.raises(AssertionError, match="done before"):
        measure(other, lambda *_: None)


def test_a_process_of_its_own_tells_its_stages_and_its_failures(task: Task) -> None:
    measure(task, lambda *_: None)
    seen: list[str] = []
    run_process(task, 1, lambda stage, *_: seen.append(stage))
    assert "draw minmax-w4a8" in seen
    bad = task.model_copy(update={"protocol": task.protocol.model_copy(update={"model": "nobody"})})
    with pytest.raises(ArmFailed, match="minmax-w4a8: ModelError: model 'nobody' is not in"):
        run_process(bad, 1, lambda *_: None)
