"""The variants of an evaluation before anything is drawn: their cards, and why some have none."""

from __future__ import annotations

from dataclasses import dataclass

from contract.card import Card
from quant.checkpoints.card_file import read_card
from quant.errors import CheckpointError
from quant.fidelity.document import ReportCard
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.evaluation.overlap import refuse_overlap
from quant.fidelity.evaluation.report_card import report_card


@dataclass(frozen=True)
class Variants:
    """Cards and report cards of those that can be read, and why others cannot be measured, all by name. Failures are
    added while the evaluation goes on."""

    cards: dict[str, Card]
    report_cards: dict[str, ReportCard]
    failures: dict[str, Exception]

    def refuse_if_all_failed(self, job: EvaluationJob) -> None:
        """Raises the first failure where there is one of every variant."""
        if len(self.failures) == len(job.variants):
            raise next(iter(self.failures.values()))


def read_variants(job: EvaluationJob) -> Variants:
    """Reads all cards. Raises CheckpointError when no variant has one, EvaluationError when a variant has met one of
    the prompts."""
    variants = Variants({}, {}, {})
    for name, folder in job.variants.items():
        try:
            card = read_card(folder)
            variants.report_cards[name] = report_card(card, folder)
            variants.cards[name] = card
        except CheckpointError as error:
            variants.failures[name] = error
    variants.refuse_if_all_failed(job)
    for name, card in variants.cards.items():
        refuse_overlap(name, card, job.prompt_sets, job.seen)
    return variants
