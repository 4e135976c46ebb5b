"""No variant is measured on prompts that its making has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from contract.card import Card
from quant.errors import EvaluationError
from quant.sampling.prompts import PromptSet, SeenPrompt


def refuse_overlap(name: str, card: Card, prompt_sets: tuple[PromptSet, ...], seen: Mapping[str, SeenPrompt]) -> None:
    """Raises EvaluationError when a prompt of the sets is among those that the card names for calibration or for its
    own report: by id, and by text where `seen` knows the text of an id."""
    used = {*card.calibration_prompt_ids, *card.report.prompt_ids}
    texts = {seen[prompt].text for prompt in used if prompt in seen}
    for prompt_set in prompt_sets:
        shared = [prompt.id for prompt in prompt_set.prompts if prompt.id in used or prompt.text in texts]
        if shared:
            raise EvaluationError(
                f"{len(shared)} prompts of {prompt_set.name} were used to make or report on {name}, such as "
                f"{shared[0]!r}: a variant is measured only on prompts that it has never met"
            )


def calibrated_on(card: Card, seen: Mapping[str, SeenPrompt]) -> str | None:
    """The prompt set that most of a variant's calibration prompts are from, None when none of them is known."""
    sets = Counter(seen[prompt].prompt_set for prompt in card.calibration_prompt_ids if prompt in seen)
    return sets.most_common(1)[0][0] if sets else None
