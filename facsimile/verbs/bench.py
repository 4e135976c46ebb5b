"""`facsimile.bench`: variants against their reference over whole prompt sets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from contract.places import cache_folder, shipped
from quant.checkpoints.card_file import read_card
from quant.checkpoints.output_folder import make_writable
from quant.checkpoints.pipelines import describe_folder
from quant.errors import EvaluationError
from quant.fidelity.evaluation.evaluation import evaluate
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.report.report import Report, write_report
from quant.sampling.progress import Progress, silent
from quant.sampling.prompts import OWN_SET, load_prompt_set, seen_prompts
from quant.sampling.seeds import EVALUATION_SEED


def bench(
    reference: str | os.PathLike[str],
    variants: Mapping[str, str | os.PathLike[str]],
    prompts: str | Sequence[str] = OWN_SET,
    *,
    limit: int = 64,
    metrics: Sequence[str] = (),
    seed: int = EVALUATION_SEED,
    output: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Measures variants over whole prompt sets, with floors, intervals and tests: QDiffBench. Pictures are drawn with
    the settings that the first variant's card names. A run that was killed goes on where it was.

    Args:
        reference: the folder of the floating-point pipeline.
        variants: folders by the names that the report has for them. Each holds a card, as `facsimile quantize` and the
            service write it.
        prompts: names of shipped prompt sets, or paths of prompt files; the first is the primary one. `seeds` for
            pipelines that take no prompt.
        limit: prompts of each set.
        metrics: names of metrics, such as `psnr` or `frechet:clip`; none: all that can be measured.
        seed: of every set's first picture.
        output: a folder to write the report to, as JSON, Markdown and a page.
        cache: a folder for what was measured, which a killed run goes on from. None: `data/evaluation-cache` of the
            checkout, or in the user's cache folder.
        on_progress: called with whose pictures are drawn, how many are done, and how many there are.

    Returns:
        The report: `document` is what report.json holds, as a model; `document.model_dump(mode="json")` are its values.

    Raises:
        ModelError: the reference cannot be loaded.
        CheckpointError: no variant has a card, or none can be loaded.
        EvaluationError: no variant is given, a metric does not exist, or a variant was calibrated on these prompts.
        PromptSetError: there is no such prompt set.
        BackboneMissing: a metric that was asked for looks through a model whose weights are not at hand.
        OutputError: the output cannot be written."""
    folders = {name: Path(folder) for name, folder in variants.items()}
    if not folders:
        raise EvaluationError("a bench needs at least one variant")
    signature = read_card(next(iter(folders.values()))).signature
    settings = {name: getattr(signature, name) for name in ("width", "height", "num_inference_steps", "guidance_scale")}
    sets = [prompts] if isinstance(prompts, str) else prompts
    job = EvaluationJob(
        model=Path(reference).name,
        description=describe_folder(Path(reference)).model_copy(update=settings),
        variants=folders,
        prompt_sets=tuple(load_prompt_set(shipped("prompts"), name, limit) for name in sets),
        metrics=tuple(metrics),
        seed=seed,
        seen=seen_prompts(shipped("prompts")),
    )
    if output is not None:
        make_writable(Path(output))
    measured = make_writable(cache_folder() / "evaluation-cache" if cache is None else Path(cache))
    report = evaluate(job, measured, on_progress or silent)
    if output is not None:
        write_report(report, Path(output))
    return report
