"""A whole service run: every log line is JSON, and none holds a word of a prompt."""

from __future__ import annotations

import json

from tests.support.long_prompts import LONG, WORDS
from tests.support.service import Service


def test_no_word_of_a_long_prompt_is_logged(service: Service) -> None:
    pictures = [
        service.submit("generations", prompt=LONG, negative_prompt=LONG[::-1], num_inference_steps=2),
        service.submit("generations", prompt=LONG, scheduler="unipc", num_inference_steps=1),
    ]
    made = service.submit("calibrations", recipe="tiny-w8a8", prompts=[LONG, *WORDS], variant="of-long-prompts")
    assert service.ended(made)["status"] == "succeeded"
    same = {"variants": ["of-long-prompts"], "prompt_sets": ["long-prompts"]}
    assert service.ended(service.submit("evaluations", **same))["status"] == "succeeded"
    compared = service.submit("comparisons", prompt=LONG, variant="of-long-prompts")
    for job in (*pictures, compared):
        service.ended(job)
    lines = list(service.process.log)
    assert len(lines) > 10
    for line in lines:
        assert isinstance(json.loads(line), dict), line
    run_together = "".join(lines).replace(" ", "").lower()  # a tokenizer may take words apart
    assert [word for word in WORDS if word in run_together or word[::-1] in run_together] == []
