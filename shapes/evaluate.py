"""`python -m shapes.evaluate`: how well the embedded model follows prompts, and how good its judge is."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import DiffusionPipeline
from matplotlib import pyplot
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from contract.catalogue import ModelDescription, read_models
from quant.checkpoints.pipelines import load_reference
from quant.fidelity.networks.judge import Judge, load_judge
from quant.fidelity.statistics import summarize
from quant.sampling.generation import generate_batch
from quant.sampling.prompts import Prompt, load_prompts
from quant.sampling.request import Sampling
from shapes.caption import Style
from shapes.renders import render_all
from shapes.scene import Split, draw_scenes
from shapes.vocabulary import ATTRIBUTES, attributes

BATCH = 16
FRESH_SEED = 20_261_120
MODEL = "shapes-sd"
GRID = 64

Drawn = tuple[list[Image.Image], list[dict[str, str]]]


def draw(pipeline: DiffusionPipeline, judge: Judge, prompts: list[Prompt], sampling: Sampling) -> Drawn:
    """A picture per prompt (prompt i with seed i) and the judge's answers."""
    pictures, answers = [], []
    for start in track(
        range(0, len(prompts), BATCH), description=f"{len(prompts)} prompts", console=Console(stderr=True)
    ):
        texts = [prompt.text for prompt in prompts[start : start + BATCH]]
        seeds = replace(sampling, seed=start, num_images=len(texts)).seeds
        drawn = generate_batch(pipeline, texts, seeds, sampling)
        pictures += drawn.pictures
        answers += judge.read(drawn.values * 2.0 - 1.0)
    return pictures, answers


def agreement(answers: list[dict[str, str]], truths: list[dict[str, str]]) -> dict[str, Any]:
    """Share of pictures with every attribute right (with its 95 % interval), and the share of right answers per
    attribute, over the objects that there are."""
    right: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    all_right = []
    for answer, truth in zip(answers, truths, strict=True):
        hits = {head: answer[head] == word for head, word in truth.items()}
        all_right.append(float(all(hits.values())))
        for head, hit in hits.items():
            right[head.partition(".")[0]].append(hit)
    total = summarize([*all_right])
    shares = {name: float(np.mean(hits)) for name, hits in right.items()}
    return {"all_attributes": total.mean, "ci95": total.ci95, **shares}


def judge_fresh_renders(pipeline: DiffusionPipeline, judge: Judge, count: int) -> tuple[dict[str, float], float]:
    """The judge's accuracy per attribute, and the autoencoder's mean PSNR in dB, on `count` test scenes never rendered
    before."""
    scenes = draw_scenes(count, Split.TEST, FRESH_SEED)
    renders = torch.from_numpy(render_all(scenes)).permute(0, 3, 1, 2)
    answers: list[dict[str, str]] = []
    decibels: list[Tensor] = []
    with torch.no_grad():
        for part in (renders.float() / 127.5 - 1.0).split(32):
            answers += judge.read(part)
            latents = pipeline.vae.encode(part).latent_dist.mean
            decoded = pipeline.vae.decode(latents).sample.clamp(-1.0, 1.0)
            decibels.append(peak_signal_noise_ratio(decoded, part, data_range=2.0, reduction="none", dim=(1, 2, 3)))
    scores = agreement(answers, [attributes(scene) for scene in scenes])
    return {name: scores[name] for name in ATTRIBUTES}, torch.cat(decibels).mean().item()


def save_grid(pictures: list[Image.Image], prompts: list[Prompt], answers: list[dict[str, str]], path: Path) -> None:
    """A grid of pictures under their prompts, which are red where the judge sees an attribute that they do not name."""
    figure, axes = pyplot.subplots(8, len(pictures) // 8, figsize=(15, 17), dpi=80)
    for axis, picture, prompt, answer in zip(axes.flat, pictures, prompts, answers, strict=True):
        axis.imshow(picture)
        axis.axis("off")
        wrong = any(answer[head] != word for head, word in prompt.attributes.items())
        axis.set_title("\n".join(wrap(prompt.text or "", 34)[:3]), fontsize=6, color="crimson" if wrong else "black")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(
    models: Annotated[Path, typer.Option(help="the models file")] = Path("models/models.toml"),
    prompts: Annotated[Path, typer.Option(help="folder of prompt sets")] = Path("prompts"),
    limit: Annotated[int, typer.Option(min=1, help="prompts per style")] = 256,
    renders: Annotated[int, typer.Option(min=1, help="fresh renders for the judge and the autoencoder")] = 1024,
    grid: Annotated[Path | None, typer.Option(help="also write a grid of 64 pictures to this file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Score the embedded model on test prompts of both styles."""
    description: ModelDescription = read_models(models)[MODEL]
    pipeline, judge = load_reference(description), load_judge(models.parent / "shapes-judge").float()
    sampling = Sampling.native(description)
    started = time.monotonic()
    sets = {style: load_prompts(prompts, f"shapes-{style}", "test", limit) for style in Style}
    drawn = {style: draw(pipeline, judge, chosen, sampling) for style, chosen in sets.items()}
    seconds = time.monotonic() - started
    result: dict[str, Any] = {
        str(style): agreement(drawn[style][1], [prompt.attributes for prompt in chosen])
        for style, chosen in sets.items()
    }
    truths = [prompt.attributes for prompt in sets[Style.PLAIN]]
    result["shuffled"] = agreement(drawn[Style.PLAIN][1], truths[1:] + truths[:1]) if limit > 1 else None
    result["judge"], result["autoencoder_psnr_db"] = judge_fresh_renders(pipeline, judge, renders)
    result["pictures_per_second"] = sum(map(len, sets.values())) / seconds
    result["settings"] = {
        "prompts_per_style": limit,
        "num_inference_steps": sampling.num_inference_steps,
        "guidance_scale": sampling.guidance_scale,
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    if grid is not None:
        half = {style: (*drawn[style], sets[style]) for style in Style}
        shown = [
            [x for pair in zip(*(half[s][k][: GRID // 2] for s in Style), strict=True) for x in pair] for k in range(3)
        ]
        save_grid(shown[0], shown[2], shown[1], grid)
    if as_json:
        Console().print_json(json.dumps(result))
    else:
        Console(highlight=False).print(_summary(result))


def _summary(result: dict[str, Any]) -> str:
    lines = [f"{style}: every attribute right on {result[style]['all_attributes']:.1%}" for style in Style]
    lines.append(f"shuffled prompts: {result['shuffled']['all_attributes']:.1%}")
    lines += [f"judge, {name}: {share:.2%}" for name, share in result["judge"].items()]
    lines.append(f"autoencoder: {result['autoencoder_psnr_db']:.2f} dB")
    lines.append(f"{result['pictures_per_second']:.2f} pictures per second")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
