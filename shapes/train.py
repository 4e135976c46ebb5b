"""`python -m shapes.train vae|denoiser|judge`: trains the embedded models, resumably."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from shapes.renders import cached_renders
from shapes.scene import Split, draw_scenes

app = typer.Typer(add_completion=False)

Runs = Annotated[Path, typer.Option(help="folder for renders, training state and curves")]
Models = Annotated[Path, typer.Option(help="folder of the embedded models")]
Iterations = Annotated[int, typer.Option(min=1, help="optimizer steps in all, earlier runs counted in")]
Pictures = Annotated[int, typer.Option(min=1, help="training scenes to render")]
Processes = Annotated[int, typer.Option(min=1, help="processes that render")]

SCENES_SEED = 1


@app.callback()
def main() -> None:
    """Train the embedded models; a run that was stopped goes on where it was."""


@app.command()
def vae(
    runs: Runs = Path("runs"),
    models: Models = Path("models"),
    iterations: Iterations = 2200,
    decoder_iterations: Annotated[int, typer.Option(min=1, help="steps of the decoder on whole pictures")] = 400,
    pictures: Pictures = 8000,
    processes: Processes = 2,
) -> None:
    """The autoencoder: all of it on crops, then the decoder on whole pictures."""
    from shapes.training.autoencoder import finish_decoder, train_autoencoder

    scenes = draw_scenes(pictures, Split.TRAIN, SCENES_SEED)
    renders = cached_renders(scenes, runs / f"renders-{pictures}.npy", processes)
    autoencoder = train_autoencoder(renders, iterations, runs / "vae")
    finished = finish_decoder(autoencoder, renders, decoder_iterations, runs / "decoder")
    finished.half().save_pretrained(models / "shapes-sd" / "vae")


@app.command()
def denoiser(
    runs: Runs = Path("runs"),
    models: Models = Path("models"),
    iterations: Iterations = 4000,
    text_iterations: Annotated[int, typer.Option(min=1, help="optimizer steps of the text encoder")] = 600,
    pictures: Pictures = 24000,
    processes: Processes = 2,
) -> None:
    """The text encoder, then the denoiser; writes the finished pipeline."""
    from shapes.training.pipeline import train_pipeline

    scenes = draw_scenes(pictures, Split.TRAIN, SCENES_SEED)
    renders = cached_renders(scenes, runs / f"renders-{pictures}.npy", processes)
    train_pipeline(scenes, renders, (text_iterations, iterations), runs, models / "shapes-sd")


@app.command()
def judge(
    runs: Runs = Path("runs"),
    models: Models = Path("models"),
    iterations: Iterations = 800,
    pictures: Pictures = 24000,
    processes: Processes = 2,
) -> None:
    """The judge of pictures."""
    from diffusers import AutoencoderKL

    from shapes.training.judge import train_judge

    scenes = draw_scenes(pictures, Split.TRAIN, SCENES_SEED)
    renders = cached_renders(scenes, runs / f"renders-{pictures}.npy", processes)
    autoencoder = AutoencoderKL.from_pretrained(models / "shapes-sd" / "vae", torch_dtype=torch.float32)
    train_judge(scenes, renders, autoencoder, iterations, runs / "judge").half().save_pretrained(
        models / "shapes-judge"
    )


if __name__ == "__main__":
    app()
