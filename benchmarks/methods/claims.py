"""What the project says of its methods, each sentence with the numbers that confirm it or do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial

from benchmarks.methods.arms import BITS
from benchmarks.methods.evidence import (
    FRECHET,
    SSIM,
    Json,
    NotMeasured,
    Results,
    difference_json,
    drawn_otherwise,
    error,
    floor,
    mean,
    mean_ratio,
    paired,
    primary,
    processor,
    result_of,
    typical_ratio,
)
from benchmarks.methods.number import number

SIGNIFICANT = 0.01
RIVALS = ("q-diffusion", "eda-dm", "pcr")
LOW_BITS = ("w4a8", "w4a6")
REDUCTIONS = {"s2p-v2": 0.45, "best": 0.60}
FLOOR, FLOOR_FACTOR = "bfloat16", 3.0
LOST_ACCURACY = 0.01
SECONDS = {"minmax": 30.0, "pcr": 300.0, "eda-dm": 1800.0, "q-diffusion": 1800.0, "s2p-v2": 1800.0}

Judgement = tuple[bool, str, Json]
"""Whether a claim holds, why in a sentence on the primary prompt set, and all numbers."""


class Verdict(StrEnum):
    """What became of a claim."""

    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not confirmed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Claim:
    """A sentence, its verdict, why in another one, and the numbers behind it, none where something is not measured."""

    name: str
    sentence: str
    verdict: Verdict
    evidence: str
    numbers: Json


def claims(results: Results) -> list[Claim]:
    """All claims, judged by results that are up to date. The primary prompt set decides; numbers of the others are
    given along."""
    return [_judged(name, sentence, partial(judge, results)) for name, sentence, judge in _declared()]


def claims_json(found: list[Claim]) -> Json:
    """The claims by name, as JSON values."""
    return {claim.name: {k: v for k, v in asdict(claim).items() if k != "name"} for claim in found}


def _judged(name: str, sentence: str, judge: Callable[[], Judgement]) -> Claim:
    try:
        holds, evidence, numbers = judge()
    except NotMeasured as lacking:
        return Claim(name, sentence, Verdict.NOT_MEASURED, f"lacking: {lacking}", {})
    return Claim(name, sentence, Verdict.CONFIRMED if holds else Verdict.NOT_CONFIRMED, evidence, numbers)


def _declared() -> Iterator[tuple[str, str, Callable[[Results], Judgement]]]:
    rivals = f"the best of {', '.join(RIVALS)}"
    for preset, least in REDUCTIONS.items():
        for bits in LOW_BITS:
            sentence = f"{preset} lowers {FRECHET} and 1 - SSIM by {least:.0%} or more each against {rivals}, at {bits}"
            yield f"{preset}-reduction-{bits}", sentence, partial(_reduction, preset, bits, least)
    for metric_bits in LOW_BITS:
        sentence = f"eda-dm is better than q-diffusion at {metric_bits} (SSIM, paired, p < {SIGNIFICANT})"
        judge = partial(_better, f"eda-dm-{metric_bits}", (f"q-diffusion-{metric_bits}",))
        yield f"eda-dm-better-{metric_bits}", sentence, judge
    yield (
        "progressive-better",
        f"pcr is better than the same with ranges observed on the reference, nothing relaxed, at w4a6 "
        f"(SSIM, paired, p < {SIGNIFICANT})",
        partial(_better, "ranges-progressive", ("ranges-of-reference",)),
    )
    yield (
        "serial-to-parallel-better",
        f"serial-to-parallel fine-tuning is better than serial and than parallel at equal updates, at w4a8 "
        f"(SSIM, paired, p < {SIGNIFICANT})",
        partial(_better, "tuning-serial-to-parallel", ("tuning-serial", "tuning-parallel")),
    )
    sentence = f"1 - SSIM of best-w8a8 is at most {FLOOR_FACTOR:g} times that of the {FLOOR} floor"
    yield "best-near-floor-w8a8", sentence, _near_floor
    sentence = f"best-w4a8 loses at most {100 * LOST_ACCURACY:g} point of prompt accuracy against the reference"
    yield "best-accuracy-w4a8", sentence, _accuracy
    for preset, most in SECONDS.items():
        sentence = f"{preset} calibrates in {most:.0f} s or less, at {', '.join(BITS)}"
        yield f"{preset}-seconds", sentence, partial(_seconds, preset, most)
    for bits in LOW_BITS:
        sentence = f"s2p-v2 calibrates faster than q-diffusion and is better ({FRECHET} and SSIM), at {bits}"
        yield f"s2p-v2-faster-and-better-{bits}", sentence, partial(_faster_and_better, bits)


def _reduction(preset: str, bits: str, least: float, results: Results) -> Judgement:
    """By how much each error is below the least error of any rival, which need not be the same for both; and how the
    typical errors of single pictures compare, which decides nothing."""
    mine = result_of(results, f"{preset}-{bits}")
    rivals = [result_of(results, f"{rival}-{bits}") for rival in RIVALS]
    numbers: Json = {"least": least}
    for prompt_set in mine["figures"]:
        for metric in (FRECHET, SSIM):
            errors = {rival["arm"]: error(rival, metric, prompt_set) for rival in rivals}
            best = min(errors, key=lambda name: errors[name])
            own = error(mine, metric, prompt_set)
            reduction = 1.0 - own / errors[best] if errors[best] > 0.0 else 0.0
            found = {"error": own, "best_rival": best, "rival_error": errors[best], "reduction": reduction}
            if metric == SSIM:
                ends = mean_ratio(mine, results[best], SSIM, prompt_set)["ci95"]
                found["reduction_ci95"] = None if ends is None else [1.0 - end for end in reversed(ends)]
                found["typical"] = typical_ratio(mine, results[best], SSIM, prompt_set)
                found["drawn_otherwise"] = {r["arm"]: drawn_otherwise(r, prompt_set) for r in (mine, results[best])}
            numbers.setdefault(prompt_set, {})[_error_name(metric)] = found
    decides = numbers[primary(mine)]
    evidence = "; ".join(_reduced(name, found) for name, found in decides.items())
    return all(each["reduction"] >= least for each in decides.values()), evidence, numbers


def _reduced(name: str, found: Json) -> str:
    rival = f"{number(found['rival_error'])} of {found['best_rival']}"
    text = f"{name} {number(found['error'])} for {rival}: {_change(-found['reduction'])}"
    if "typical" not in found:
        return text
    ends = found["reduction_ci95"]
    interval = f" (95 %: {_change(-ends[1])} to {_change(-ends[0])})" if ends else ""
    typical = _change((found["typical"]["ratio"] or 1.0) - 1.0)
    otherwise = " for ".join(map(str, found["drawn_otherwise"].values()))
    return f"{text}{interval}, typical picture {typical}, pictures drawn otherwise {otherwise}"


def _better(arm: str, others: tuple[str, ...], results: Results) -> Judgement:
    """Paired on the mean of SSIM, which decides, and on the latents; and the ratio of their typical errors."""
    mine = result_of(results, arm)
    numbers: Json = {}
    holds = True
    for other in others:
        second = result_of(results, other)
        found = paired(mine, second, SSIM, primary(mine))
        holds &= (found.mean or 0.0) > 0.0 and found.p is not None and found.p < SIGNIFICANT
        numbers[other] = {
            prompt_set: {
                metric: difference_json(paired(mine, second, metric, prompt_set))
                | {"typical": typical_ratio(mine, second, metric, prompt_set)}
                for metric in (SSIM, "latent_mse")
            }
            for prompt_set in mine["figures"]
            if prompt_set in second["figures"]  # ablations are drawn for the primary set alone
        }
    primaries = {other: by_set[primary(mine)][SSIM] for other, by_set in numbers.items()}
    return holds, "; ".join(_compared(other, found) for other, found in primaries.items()), numbers


def _compared(other: str, found: Json) -> str:
    typical = found["typical"]
    return (
        f"over {other}: {_gained(found)}; typical 1-ssim {_change((typical['ratio'] or 1.0) - 1.0)}, "
        f"p {_probability(typical['p'])}"
    )


def _gained(found: Json) -> str:
    ends = found["ci95"]
    interval = f" ({number(ends[0])} to {number(ends[1])})" if ends else ""
    return f"SSIM {found['better_by'] or 0.0:+.2g}{interval}, p {_probability(found['p'])}"


def _change(share: float) -> str:
    return f"{share:+.0%}"


def _probability(p: float | None) -> str:
    return "–" if p is None else f"{p:.2g}"


def _near_floor(results: Results) -> Judgement:
    mine = result_of(results, "best-w8a8")
    numbers: Json = {"most": FLOOR_FACTOR}
    for prompt_set in mine["figures"]:
        own, lowest = error(mine, SSIM, prompt_set), 1.0 - floor(mine, FLOOR, SSIM, prompt_set)
        numbers[prompt_set] = {"error": own, "floor": lowest, "factor": own / lowest if lowest > 0.0 else None}
    decides = numbers[primary(mine)]
    evidence = f"{number(decides['error'])} for {number(decides['floor'])}"
    return decides["error"] <= FLOOR_FACTOR * decides["floor"], evidence, numbers


def _accuracy(results: Results) -> Judgement:
    mine = result_of(results, "best-w4a8")
    numbers: Json = {"most": LOST_ACCURACY}
    for prompt_set in mine["figures"]:
        reference = mean(mine, "prompt_accuracy", prompt_set, "reference")
        own = mean(mine, "prompt_accuracy", prompt_set)
        numbers[prompt_set] = {"reference": reference, "accuracy": own, "lost": reference - own}
    decides = numbers[primary(mine)]
    evidence = f"{number(decides['accuracy'])} for {number(decides['reference'])}"
    return decides["lost"] <= LOST_ACCURACY, evidence, numbers


def _seconds(preset: str, most: float, results: Results) -> Judgement:
    """One that took too long is enough; to hold, it must at all bits."""
    names = [f"{preset}-{bits}" for bits in BITS]
    took = {name: results[name]["calibration"]["seconds"] for name in names if name in results}
    if all(seconds <= most for seconds in took.values()):
        lacking = [name for name in names if name not in took]
        if lacking:
            raise NotMeasured(", ".join(lacking))
    disturbed = {name: results[name]["calibration"]["disturbance"] for name in took}
    on = {name: processor(results[name]) for name in took}
    evidence = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
    numbers = {"most": most, "seconds": took, "disturbance": disturbed, "processor": on}
    return max(took.values()) <= most, evidence, numbers


def _faster_and_better(bits: str, results: Results) -> Judgement:
    mine, rival = (result_of(results, f"{preset}-{bits}") for preset in ("s2p-v2", "q-diffusion"))
    if processor(mine) != processor(rival):
        raise NotMeasured(f"seconds of {mine['arm']} and {rival['arm']} on one kind of processor")
    seconds = {each["arm"]: each["calibration"]["seconds"] for each in (mine, rival)}
    frechet = {each["arm"]: mean(each, FRECHET, primary(mine)) for each in (mine, rival)}
    found = paired(mine, rival, SSIM, primary(mine))
    better = (found.mean or 0.0) > 0.0 and found.p is not None and found.p < SIGNIFICANT
    faster, nearer = (by[mine["arm"]] < by[rival["arm"]] for by in (seconds, frechet))
    numbers = {"seconds": seconds, FRECHET: frechet, SSIM: difference_json(found)}
    evidence = f"{_for(seconds)} s; {FRECHET} {_for(frechet)}; {_gained(numbers[SSIM])}"
    return faster and nearer and better, evidence, numbers


def _for(values: dict[str, float]) -> str:
    return " for ".join(number(value) for value in values.values())


def _error_name(metric: str) -> str:
    return f"1-{metric}" if metric == SSIM else metric
