"""From what was measured to the document: statistics of every arm on every prompt set, floors, and tests between
variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.fidelity.arm import REFERENCE
from quant.fidelity.document import (
    Curve,
    Document,
    Failure,
    Figures,
    Floor,
    Generalization,
    Identity,
    MeasuredSet,
    MetricTraits,
    Protocol,
    Reference,
    ReportCard,
    SharedSettings,
    Times,
    Variant,
    WorstPicture,
)
from quant.fidelity.evaluation.figures import figures, finite_sample, gap, own_figures
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.evaluation.paired_tests import comparisons
from quant.fidelity.floors import BFLOAT16, FINITE_SAMPLE, OTHER_SEEDS, OTHER_SEEDS_OFFSET
from quant.fidelity.measurement import Measurement
from quant.fidelity.metric import Metric
from quant.fidelity.metric_choice import Reasons
from quant.fidelity.metrics.trajectory import DIVERGED
from quant.fidelity.report.worst_pair import WorstPair
from quant.fidelity.study import BATCH, Study
from quant.identity import key_of
from quant.sampling.prompts import PromptSet


@dataclass(frozen=True)
class Findings:
    """All that was measured, by arm and prompt set, and what else the document tells. `calibrated_on` has the prompt
    set that each variant was calibrated on, where it is known; `real` are features of real pictures by backbone."""

    job: EvaluationJob
    measured: Mapping[str, Mapping[str, Measurement]]
    not_measured: Reasons
    report_cards: Mapping[str, ReportCard]
    calibrated_on: Mapping[str, str | None]
    failures: Mapping[str, str]
    worst: list[WorstPair]
    real: Mapping[str, Tensor]


def document(study: Study, findings: Findings, times: Times) -> Document:
    """The document of an evaluation."""
    names, measured = findings.job.variants, findings.measured
    reference = measured[REFERENCE]
    own = {name: own_figures(own_set, study.metrics, findings.real) for name, own_set in reference.items()}
    return Document(
        model=findings.job.model,
        protocol=_protocol(study, findings),
        reference=Reference(identity=Identity.model_validate(study.reference.identity), prompt_sets=own),
        floors={name: _floor(name, study, findings) for name in _floor_names(study, findings)},
        variants={name: _variant(name, study, findings) for name in names},
        comparisons=comparisons({name: measured[name] for name in names if name in measured}, reference, study.metrics),
        times=times,
    )


def _protocol(study: Study, findings: Findings) -> Protocol:
    return Protocol(
        seed=findings.job.seed,
        pairing="prompt i of a set has seed + i; both arms start from the same noise, drawn on the CPU",
        other_seeds_offset=OTHER_SEEDS_OFFSET,
        sampling=SharedSettings.model_validate(study.sampling.settings),
        batch=BATCH,
        prompt_sets={prompt_set.name: _measured_set(prompt_set) for prompt_set in findings.job.prompt_sets},
        metrics={metric.key: _traits(metric) for metric in study.metrics},
        not_measured=findings.not_measured,
        diverged_at=DIVERGED,
        intervals="95 %; means: percentile bootstrap over prompts; distances of sets: delete-half jackknife",
        tests="two-sided sign-flip permutation test of the mean paired difference",
    )


def _measured_set(prompt_set: PromptSet) -> MeasuredSet:
    prompts = prompt_set.prompts
    return MeasuredSet(
        count=len(prompts),
        left_out=prompt_set.left_out,
        first=prompts[0].id,
        last=prompts[-1].id,
        digest=key_of({"prompts": [(prompt.id, prompt.text) for prompt in prompts]}),
    )


def _traits(metric: Metric) -> MetricTraits:
    traits = metric.traits
    return MetricTraits(
        better=traits.better,
        identical=traits.identical if traits.identical in (0.0, 1.0) else None,
        unit=traits.unit,
        symmetric=traits.symmetric,
        backbone=metric.backbone or None,
        of_sets=metric.of_sets,
    )


def _floor_names(study: Study, findings: Findings) -> list[str]:
    if OTHER_SEEDS not in findings.measured:
        return []
    has_sets = any(metric.of_sets for metric in study.metrics)
    return [BFLOAT16, OTHER_SEEDS, *([FINITE_SAMPLE] if has_sets else [])]


def _floor(name: str, study: Study, findings: Findings) -> Floor:
    reference = findings.measured[REFERENCE]
    primary = findings.job.prompt_sets[0].name
    by_set: dict[str, Figures]
    if name == FINITE_SAMPLE:
        others = findings.measured[OTHER_SEEDS]
        by_set = {each: finite_sample(reference[each], others[each], study.metrics) for each in reference}
        return Floor(primary=by_set[primary], prompt_sets=by_set)
    measured = findings.measured[name]
    by_set = {each: figures(reference[each], measured[each], study.metrics, findings.real) for each in measured}
    curves = {each: _curve(measured[each]) for each in measured}
    return Floor(primary=by_set[primary], prompt_sets=by_set, curves=curves)


def _variant(name: str, study: Study, findings: Findings) -> Variant | Failure:
    if name in findings.failures:
        return Failure(card=findings.report_cards.get(name), error=findings.failures[name])
    reference, measured = findings.measured[REFERENCE], findings.measured[name]
    return Variant(
        card=findings.report_cards[name],
        prompt_sets={each: figures(reference[each], measured[each], study.metrics, findings.real) for each in measured},
        generalization=_generalization(name, study, findings),
        curves={each: _curve(measured[each]) for each in measured},
        invalid_pictures={
            prompt_set.name: _invalid(prompt_set, measured[prompt_set.name]) for prompt_set in findings.job.prompt_sets
        },
        worst=tuple(_worst(pair) for pair in findings.worst if pair.variant == name),
    )


def _generalization(name: str, study: Study, findings: Findings) -> Generalization:
    home, measured = findings.calibrated_on[name], findings.measured[name]
    if home is None or home not in measured:
        return Generalization(calibrated_on=home)
    reference = findings.measured[REFERENCE]
    gaps = {each: gap(reference, measured, (home, each), study.metrics) for each in measured if each != home}
    return Generalization(calibrated_on=home, gaps=gaps)


def _curve(measured: Measurement) -> Curve:
    finite = measured.trajectory[measured.valid]
    return tuple([None] * measured.trajectory.shape[1] if not len(finite) else finite.double().mean(dim=0).tolist())


def _invalid(prompt_set: PromptSet, measured: Measurement) -> tuple[str, ...]:
    places = torch.nonzero(~measured.valid).flatten().tolist()
    return tuple(prompt_set.prompts[place].id for place in places)


def _worst(pair: WorstPair) -> WorstPicture:
    prompt, scores = pair.prompt, {pair.metric: pair.score}
    return WorstPicture(prompt_set=pair.prompt_set, id=prompt.id, prompt=prompt.text, scores=scores)
