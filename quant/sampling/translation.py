"""What diffusers, transformers, tokenizers, safetensors and torch raise, in our words: what cannot be done, and which
setting to change. Their own words stay with the error as its cause, for the log."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from quant.errors import ModelError, QuantError, SamplingError, first_line

if TYPE_CHECKING:
    from quant.sampling.request import Sampling

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_TEXT = ("transformers", "tokenizers")
_WEIGHTS = "diffusion_pytorch_model.safetensors", "model.safetensors"


def no_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, whoever raised it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _NO_MEMORY)


def of_drawing(error: Exception, sampling: Sampling, scheduler: str) -> Exception:
    """What to raise for an error in a pipeline's call: a SamplingError where the scheduler raised it, a ModelError
    where the model did, and the error itself where it is ours, or about memory or files."""
    if isinstance(error, QuantError | OSError) or no_memory(error):
        return error
    frames = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    if "quant" in frames[-1] and "diffusers" not in frames[-1]:
        return error
    if any("diffusers" in parts and "schedulers" in parts for parts in frames):
        return SamplingError(
            f"the scheduler {scheduler} cannot draw in {sampling.num_inference_steps} steps with this model's noise "
            "schedule; choose another num_inference_steps or scheduler"
        )
    if any(name in parts for parts in frames for name in _TEXT):
        return ModelError("the model's text encoder cannot read this prompt: its tokenizer and its weights do not fit")
    if isinstance(error, ValueError) and any("pipelines" in parts for parts in frames[-2:]):
        return SamplingError(f"the pipeline refuses these settings: {first_line(error)}")
    return ModelError("the model's parts do not fit together, or do not fit this size: its denoiser failed in a step")


def of_loading(error: Exception, source: str, family: str) -> Exception:
    """What to raise when a model cannot be loaded: a ModelError that says what is missing, and the error itself where
    it is about memory."""
    if isinstance(error, QuantError) or no_memory(error):
        return error
    return ModelError(f"model {source} cannot be loaded as {family}: {_loading_fault(error, Path(source))}")


def _loading_fault(error: Exception, source: Path) -> str:
    if source.is_file():
        return "it is a file; give the folder of a diffusers pipeline, with a model_index.json"
    if not source.is_dir():
        return (
            "there is no such folder, and no such model in the local cache; `hf download NAME` brings one from the hub"
        )
    if not (source / "model_index.json").is_file():
        return "the folder holds no model_index.json, so it is no diffusers pipeline"
    if isinstance(error, SafetensorError):
        return "a file of weights is damaged or cut short; download it again"
    missing = [part.name for part in sorted(source.iterdir()) if _only_other_weights(part)]
    if missing:
        return (
            f"{', '.join(missing)} has no weights of a name that is loaded ({' or '.join(_WEIGHTS)}): "
            "save the pipeline once more with save_pretrained(folder, safe_serialization=True)"
        )
    return first_line(error)


def _only_other_weights(part: Path) -> bool:
    """Whether a component has weights, and none in safetensors under their plain name."""
    if not part.is_dir():
        return False
    kept = [path.name for path in part.iterdir() if path.suffix in (".bin", ".safetensors", ".pt", ".ckpt")]
    plain = any(name in _WEIGHTS or name.endswith(".index.json") for name in (path.name for path in part.iterdir()))
    return bool(kept) and not plain
