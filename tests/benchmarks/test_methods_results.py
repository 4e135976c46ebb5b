"""What is shown of the study of methods: the table's keys, the claims' verdicts, and the page against its JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.methods import plots
from benchmarks.methods.ablation import read_ablations
from benchmarks.methods.arms import Arm, all_arms
from benchmarks.methods.claims import Claim, Verdict, claims, claims_json
from benchmarks.methods.evidence import drawn_otherwise, mean_ratio, typical_ratio
from benchmarks.methods.floors import known_floors
from benchmarks.methods.measurement import write
from benchmarks.methods.page import NOTES, PAGE, page
from benchmarks.methods.results import Standing, current, standings
from benchmarks.methods.table import rich_table, table
from benchmarks.methods.task import Protocol
from tests.support.made_results import made_result
from tests.support.study import resolution

METHODS = ("minmax", "q-diffusion", "eda-dm", "pcr", "s2p-v2", "best")
BITS = ("w8a8", "w4a8", "w4a6")
ERRORS = {"minmax": 0.3, "q-diffusion": 0.12, "eda-dm": 0.1, "pcr": 0.11, "s2p-v2": 0.05, "best": 0.03}
SECONDS = {"minmax": 20.0, "pcr": 250.0, "s2p-v2": 900.0}
ABLATIONS = {
    "ranges-progressive": 0.12,
    "ranges-of-reference": 0.2,
    "tuning-serial": 0.08,
    "tuning-parallel": 0.07,
}
Json = dict[str, Any]
Made = Callable[..., dict[str, Standing]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Standings of presets with made results; arguments are 1 - SSIM of arms, None for one that has none."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for method in METHODS:
        for bits in BITS:
            head = f'method = "{"s2p_v2" if method == "best" else method.replace("-", "_")}"\n'
            numbers = f"weight_bits = {bits[1]}\nactivation_bits = {bits[3]}\n"
            own = 'stages.output_correction = { kind = "ptqd" }\n' if method == "best" else ""
            (folder / f"{method}-{bits}.toml").write_text(head + numbers + own)
    arms = all_arms(folder, read_ablations(), resolution())

    def make(**errors: float | None) -> dict[str, Standing]:
        results = tmp_path / "results"
        known = {name.replace("_", "-"): error for name, error in errors.items()}
        for arm in arms:
            _write(arm, known, results)
        return standings(arms, results, Protocol())

    return make


def _write(arm: Arm, known: dict[str, float | None], results: Path) -> None:
    default = ABLATIONS.get(arm.name) if arm.group else ERRORS.get(arm.preset)
    if default is not None and arm.group is None and arm.bits == "w8a8":
        default = 0.002
    error = known.get(arm.name, default)
    if arm.fault is None and error is not None:
        write(made_result(arm, error, SECONDS.get(arm.preset, 1500.0)), results / f"{arm.name}.json")


def _claim(name: str, standing: dict[str, Standing]) -> Claim:
    return next(claim for claim in claims(current(standing)) if claim.name == name)


def test_the_table_has_its_keys(made: Made) -> None:
    document = table(made())
    json.dumps(document, allow_nan=False)
    row = document["s2p-v2-w4a8"]
    assert row["shapes-ornate"]["ssim"] == {"mean": 0.95, "ci95": pytest.approx([0.945, 0.955])}
    assert row["shapes-plain"]["frechet:judge"]["mean"] == pytest.approx(5.0)
    assert (row["seconds"], row["peak_bytes"], row["bytes"], row["state"]) == (900.0, 10**9, 8_000_000, "finished")
    assert row["generalization"]["shapes-ornate"]["ssim"]["mean"] == 0.001
    assert document["tuning-serial-to-parallel"]["same_as"] == "s2p-v2-w4a8"
    assert document["floors"]["bfloat16"]["shapes-plain"]["ssim"]["mean"] == 0.999
    assert "tfmq-w4a8" not in document
    assert rich_table(document, "shapes-plain").row_count == len(document)


def test_an_arm_that_is_the_same_as_another_is_shown_as_itself(made: Made) -> None:
    results = current(made())
    found = results["tuning-serial-to-parallel"]
    assert (found["arm"], found["group"]) == ("tuning-serial-to-parallel", "fine-tuning")
    assert found["figures"] == results["s2p-v2-w4a8"]["figures"] and results["s2p-v2-w4a8"]["group"] is None


def test_nothing_measured_is_an_empty_table_and_no_verdict(tmp_path: Path) -> None:
    standing = standings(all_arms(tmp_path, read_ablations(), resolution()), tmp_path, Protocol())
    assert table(standing) == {}
    assert {claim.verdict for claim in claims(current(standing))} == {Verdict.NOT_MEASURED}
    assert plots.draw(current(standing), {}, tmp_path / "pictures") == []


def test_claims_that_hold_are_confirmed(made: Made) -> None:
    found = claims(current(made()))
    assert {claim.name: claim.verdict for claim in found if claim.verdict is not Verdict.CONFIRMED} == {
        "best-accuracy-w4a8": Verdict.NOT_CONFIRMED
    }
    json.dumps(claims_json(found), allow_nan=False)


def test_a_reduction_is_against_the_best_rival_and_of_both_errors(made: Made) -> None:
    found = _claim("s2p-v2-reduction-w4a8", made())
    expected = {"best_rival": "eda-dm-w4a8", "reduction": pytest.approx(0.5)}
    assert found.numbers["shapes-plain"]["1-ssim"].items() >= expected.items()
    assert _claim("s2p-v2-reduction-w4a8", made(eda_dm_w4a8=0.08)).verdict is Verdict.NOT_CONFIRMED
    standing = made(eda_dm_w4a8=0.1)
    result = current(standing)["s2p-v2-w4a8"]
    plain = dict(result["figures"]["shapes-plain"])
    plain["frechet:judge"] = {"mean": 6.0, "ci95": None}
    result["figures"]["shapes-plain"] = plain
    assert _claim("s2p-v2-reduction-w4a8", standing).verdict is Verdict.NOT_CONFIRMED


@pytest.mark.parametrize(
    ("claim", "errors"),
    [
        ("best-reduction-w4a6", {"best_w4a6": 0.041}),
        ("eda-dm-better-w4a8", {"eda_dm_w4a8": 0.13}),
        ("eda-dm-better-w4a8", {"eda_dm_w4a8": 0.12}),
        ("progressive-better", {"ranges_progressive": 0.21}),
        ("serial-to-parallel-better", {"tuning_parallel": 0.04}),
        ("serial-to-parallel-better", {"tuning_serial": 0.04}),
        ("best-near-floor-w8a8", {"best_w8a8": 0.0031}),
        ("s2p-v2-faster-and-better-w4a8", {"s2p_v2_w4a8": 0.13}),
    ],
)
def test_claims_that_do_not_hold_are_not_confirmed(made: Made, claim: str, errors: dict[str, float]) -> None:
    assert _claim(claim, made(**errors)).verdict is Verdict.NOT_CONFIRMED


def test_the_typical_ratio_is_that_of_geometric_means_whatever_a_few_pictures_do(made: Made) -> None:
    results = current(made())
    mine, other = results["eda-dm-w4a8"], results["q-diffusion-w4a8"]
    errors = [0.01 * (1 + i % 7) for i in range(64)]
    mine["paired"]["shapes-plain"] = {"ssim": [1 - 0.8 * e for e in errors], "latent_mse": [0.5 * e for e in errors]}
    other["paired"]["shapes-plain"] = {"ssim": [1 - e for e in errors], "latent_mse": list(errors)}
    assert typical_ratio(mine, other, "ssim", "shapes-plain")["ratio"] == pytest.approx(0.8)
    found = typical_ratio(mine, other, "latent_mse", "shapes-plain")
    assert (found["ratio"], found["ci95"]) == (pytest.approx(0.5), pytest.approx([0.5, 0.5]))
    mine["paired"]["shapes-plain"]["ssim"][0] = 0.2  # one picture that takes another branch
    spoiled = typical_ratio(mine, other, "ssim", "shapes-plain")
    assert 0.8 < spoiled["ratio"] < 0.87 and spoiled["p"] < 0.01
    mine["paired"]["shapes-plain"]["ssim"][1] = None
    assert typical_ratio(mine, other, "ssim", "shapes-plain")["ratio"] > 0.8


def test_a_reduction_has_an_interval_that_pictures_drawn_otherwise_widen(made: Made) -> None:
    results = current(made())
    mine, other = results["eda-dm-w4a8"], results["q-diffusion-w4a8"]
    errors = [0.01 * (1 + i % 7) for i in range(64)]
    mine["paired"]["shapes-plain"] = {"ssim": [1 - 0.5 * e for e in errors]}
    other["paired"]["shapes-plain"] = {"ssim": [1 - e for e in errors]}
    found = mean_ratio(mine, other, "ssim", "shapes-plain")
    assert found == {"ratio": pytest.approx(0.5), "ci95": pytest.approx([0.5, 0.5])}
    assert drawn_otherwise(mine, "shapes-plain") == 0
    mine["paired"]["shapes-plain"]["ssim"][3] = 0.5
    low, high = mean_ratio(mine, other, "ssim", "shapes-plain")["ci95"]
    assert low < 0.55 and high > 0.8 and drawn_otherwise(mine, "shapes-plain") == 1


def test_accuracy_may_fall_by_a_point(made: Made) -> None:
    assert _claim("best-accuracy-w4a8", made(best_w4a8=0.0049)).verdict is Verdict.CONFIRMED
    assert _claim("best-accuracy-w4a8", made(best_w4a8=0.0051)).verdict is Verdict.NOT_CONFIRMED


def test_one_arm_that_took_too_long_is_enough_and_one_missing_is_not_measured(made: Made, tmp_path: Path) -> None:
    standing = made()
    current(standing)["pcr-w4a6"]["calibration"]["seconds"] = 301.0
    assert _claim("pcr-seconds", standing).verdict is Verdict.NOT_CONFIRMED
    (tmp_path / "results" / "minmax-w4a6.json").unlink()
    found = _claim("minmax-seconds", made(minmax_w4a6=None))
    assert (found.verdict, found.evidence) == (Verdict.NOT_MEASURED, "lacking: minmax-w4a6")


def test_arms_on_other_prompts_are_not_tested_against_each_other(made: Made) -> None:
    standing = made()
    current(standing)["eda-dm-w4a8"]["prompt_sets"] = {"shapes-plain": {"digest": "other"}}
    found = _claim("eda-dm-better-w4a8", standing)
    assert found.verdict is Verdict.NOT_MEASURED and "same prompts" in found.evidence


def test_seconds_of_two_kinds_of_processor_are_not_held_against_each_other(made: Made) -> None:
    standing = made()
    current(standing)["q-diffusion-w4a8"]["machine"]["flags"] = []
    found = _claim("s2p-v2-faster-and-better-w4a8", standing)
    assert found.verdict is Verdict.NOT_MEASURED and "one kind of processor" in found.evidence
    text = page(NOTES.read_text(encoding="utf-8"), standing, {}, at=NOTES)
    assert "(1) a processor with AMX, 2 threads" in text and "(2) a processor without AMX, 2 threads" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert any(line.startswith("| `s2p-v2-w4a8` |") and "| 900 (1) |" in line for line in rows)
    assert any(line.startswith("| `q-diffusion-w4a8` |") and "| 1500 (2) |" in line for line in rows)


@pytest.mark.parametrize("group", [None, "ranges"], ids=["preset", "ablation"])
def test_floors_are_those_of_an_arm_that_drew_the_same_pictures(tmp_path: Path, made: Made, group: str | None) -> None:
    made()
    folder, protocol = tmp_path / "results", Protocol().of(group)
    found = known_floors(folder, protocol)
    assert found is not None and found.drawn_with == "best-w4a6"
    assert set(found.figures["bfloat16"]) == set(found.curves["bfloat16"]) == set(protocol.prompt_sets)
    first = folder / "best-w4a6.json"
    write(json.loads(first.read_text()) | {"floors": {}}, first)
    taken = known_floors(folder, protocol)
    assert taken is not None and taken.drawn_with == "best-w4a8"
    assert known_floors(folder, protocol.model_copy(update={"limit": 511})) is None
    assert known_floors(folder, protocol.model_copy(update={"prompt_sets": ("shapes-plain", "another")})) is None


def test_a_stale_result_is_shown_and_confirms_nothing(made: Made, tmp_path: Path) -> None:
    made()
    path = tmp_path / "results" / "best-w4a8.json"
    write(json.loads(path.read_text()) | {"identity": "before"}, path)
    standing = made(best_w4a8=None)
    assert table(standing)["best-w4a8"]["state"] == "stale"
    assert _claim("best-accuracy-w4a8", standing).verdict is Verdict.NOT_MEASURED


def test_pictures_are_the_same_for_the_same_results(made: Made, tmp_path: Path) -> None:
    results, titles = current(made()), read_ablations().groups
    drawn = plots.draw(results, titles, tmp_path / "a")
    assert drawn == ["quality-seconds.svg", "quality-bits.svg", "error-growth.svg", "ablation-bars.svg"]
    plots.draw(results, titles, tmp_path / "b")
    for name in drawn:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_notes_keep_what_is_written_by_hand_and_have_the_figures(made: Made, tmp_path: Path) -> None:
    template = NOTES.read_text(encoding="utf-8")
    titles = read_ablations().groups
    filled = page(template, made(), titles, tmp_path)
    assert re.search(r"\| `s2p-v2-w4a8` \| 0\.9500 \(0\.9450 to 0\.9550\) \|", filled)
    assert "| `tuning-serial` | w4a8 |" in filled and "**not confirmed**" in filled and "_bfloat16_" in filled
    assert page(filled, made(), titles, tmp_path) == filled
    by_hand = re.sub(r"<!-- ([a-z-]+) -->.*?<!-- /\1 -->", "", template, flags=re.DOTALL)
    assert re.sub(r"<!-- ([a-z-]+) -->.*?<!-- /\1 -->", "", filled, flags=re.DOTALL) == by_hand


def test_the_answer_ranks_typical_pictures_and_counts_those_drawn_otherwise(made: Made, tmp_path: Path) -> None:
    filled = page(PAGE.read_text(encoding="utf-8"), made(best_w4a8=None), {}, tmp_path)
    rows = [line.split(" | ") for line in filled.splitlines() if line.startswith("| W4A8 |")]
    assert [row[1] for row in rows][:2] == ["`s2p-v2-w4a8`", "`eda-dm-w4a8`"]
    typical = [float(row[3]) for row in rows]
    assert typical == sorted(typical) and typical[0] == pytest.approx(0.05, rel=0.01)
    assert rows[-1][1] == "`minmax-w4a8`" and int(rows[-1][4]) > 0 == int(rows[0][4])
    assert "| `best-w4a8` |" not in filled and "_bfloat16_" in filled
    assert page(filled, made(best_w4a8=None), {}, tmp_path) == filled
