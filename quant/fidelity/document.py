"""The findings as one JSON document: statistics of every arm on every prompt set, floors, and tests between variants.

`variants.<name>.<prompt set>.<metric>` and `floors.<floor>.<metric>` hold `mean`, `ci95` and `count`; the floors are
those of the first prompt set, and `floors.<floor>.prompt_sets` has all. All but `times` is the same in every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quant.fidelity.arm import BFLOAT16, OTHER_SEEDS, OTHER_SEEDS_OFFSET
from quant.fidelity.measurement import Measurement
from quant.fidelity.metric import Metric
from quant.fidelity.metric_choice import Reasons
from quant.fidelity.metrics.trajectory import DIVERGED
from quant.fidelity.paired_tests import comparisons
from quant.fidelity.report.figures import FINITE_SAMPLE, figures, finite_sample, gap, own_figures
from quant.fidelity.report.worst import WorstPair
from quant.fidelity.run import BATCH, Run
from quant.identity import key_of
from quant.sampling.prompts import PromptSet

FORMAT_VERSION = 1
REFERENCE = "reference"
Json = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """All that was measured, by arm and prompt set, and what else the document tells. `names` are the variants that
    were asked for; `calibrated_on` has the prompt set that each was calibrated on, where it is known."""

    model: str
    names: tuple[str, ...]
    prompt_sets: tuple[PromptSet, ...]
    seed: int
    measured: Mapping[str, Mapping[str, Measurement]]
    metrics: tuple[Metric, ...]
    not_measured: Reasons
    cards: Mapping[str, Json]
    calibrated_on: Mapping[str, str | None]
    failures: Mapping[str, str]
    worst: list[WorstPair]
    real: Mapping[str, Tensor]


def document(run: Run, found: Findings) -> Json:
    """The document, without its times."""
    measured = [name for name in found.names if name in found.measured]
    return {
        "format_version": FORMAT_VERSION,
        "model": found.model,
        "protocol": _protocol(run, found),
        "reference": {"identity": run.reference.identity, **_own_figures(found)},
        "floors": {name: _floor(name, found) for name in _floor_names(found)},
        "variants": {name: _variant(name, found) for name in found.names},
        "comparisons": comparisons(
            {name: found.measured[name] for name in measured}, found.measured[REFERENCE], found.metrics
        ),
    }


def _protocol(run: Run, found: Findings) -> Json:
    return {
        "seed": found.seed,
        "pairing": "prompt i of a set has seed + i; both arms start from the same noise, drawn on the CPU",
        "other_seeds_offset": OTHER_SEEDS_OFFSET,
        "sampling": run.sampling.settings,
        "batch": BATCH,
        "prompt_sets": {
            each.name: {
                "count": len(each.prompts),
                "left_out": each.left_out,
                "first": each.prompts[0].id,
                "last": each.prompts[-1].id,
                "digest": key_of({"prompts": [(prompt.id, prompt.text) for prompt in each.prompts]}),
            }
            for each in found.prompt_sets
        },
        "metrics": {metric.key: _traits(metric) for metric in found.metrics},
        "not_measured": found.not_measured,
        "diverged_at": DIVERGED,
        "intervals": "95 %; means: percentile bootstrap over prompts; distances of sets: delete-half jackknife",
        "tests": "two-sided sign-flip permutation test of the mean paired difference",
    }


def _traits(metric: Metric) -> Json:
    traits = metric.traits
    return {
        "better": traits.better,
        "identical": traits.identical if traits.identical in (0.0, 1.0) else None,
        "unit": traits.unit,
        "symmetric": traits.symmetric,
        "backbone": metric.backbone or None,
        "of_sets": metric.of_sets,
    }


def _own_figures(found: Findings) -> Json:
    """Figures of the reference that are not about itself."""
    own = found.measured[REFERENCE]
    return {name: own_figures(measured, found.metrics, found.real) for name, measured in own.items()}


def _floor_names(found: Findings) -> list[str]:
    if OTHER_SEEDS not in found.measured:
        return []
    has_sets = any(metric.of_sets for metric in found.metrics)
    return [BFLOAT16, OTHER_SEEDS, *([FINITE_SAMPLE] if has_sets else [])]


def _floor(name: str, found: Findings) -> Json:
    reference = found.measured[REFERENCE]
    if name == FINITE_SAMPLE:
        others = found.measured[OTHER_SEEDS]
        by_set = {each: finite_sample(reference[each], others[each], found.metrics) for each in reference}
        return {**by_set[found.prompt_sets[0].name], "prompt_sets": by_set}
    by_set = {
        each: figures(reference[each], measured, found.metrics, found.real)
        for each, measured in found.measured[name].items()
    }
    curves = {each: _curve(measured) for each, measured in found.measured[name].items()}
    return {**by_set[found.prompt_sets[0].name], "prompt_sets": by_set, "curves": curves}


def _variant(name: str, found: Findings) -> Json:
    if name in found.failures:
        return {"card": found.cards.get(name), "error": found.failures[name]}
    reference, measured = found.measured[REFERENCE], found.measured[name]
    return {
        "card": found.cards[name],
        **{each: figures(reference[each], measured[each], found.metrics, found.real) for each in measured},
        "generalization": _generalization(name, found),
        "curves": {each: _curve(measured[each]) for each in measured},
        "invalid_pictures": {each.name: _invalid(each, measured[each.name]) for each in found.prompt_sets},
        "worst": [
            {"prompt_set": w.prompt_set, "id": w.prompt.id, "prompt": w.prompt.text, w.metric: w.score}
            for w in found.worst
            if w.variant == name
        ],
    }


def _generalization(name: str, found: Findings) -> Json:
    home, measured = found.calibrated_on[name], found.measured[name]
    if home is None or home not in measured:
        return {"calibrated_on": home}
    gaps = {
        each: gap(found.measured[REFERENCE], measured, (home, each), found.metrics) for each in measured if each != home
    }
    return {"calibrated_on": home, **gaps}


def _curve(measured: Measurement) -> list[float | None]:
    """Mean distance to the reference after every step."""
    finite = measured.trajectory[measured.valid]
    return [None] * measured.trajectory.shape[1] if not len(finite) else finite.double().mean(dim=0).tolist()


def _invalid(prompt_set: PromptSet, measured: Measurement) -> list[str]:
    places = torch.nonzero(~measured.valid).flatten().tolist()
    return [prompt_set.prompts[place].id for place in places]
