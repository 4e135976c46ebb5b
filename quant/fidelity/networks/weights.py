"""A backbone's published file of weights: where it may lie, how it is read, and how a network is filled from it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from quant.errors import BackboneMissing, ModelError


@dataclass(frozen=True)
class WeightFile:
    """The published file's name, who publishes it, and how the names of tensors begin that a network does without."""

    name: str
    origin: str
    unused: tuple[str, ...] = ()


def fill(network: nn.Module, folder: Path, wanted: WeightFile) -> None:
    """Fills the network in place with float32 weights, from `folder/*.safetensors`, or else from the published file in
    `folder` or in torch.hub's cache, and sets it to evaluation.

    Raises BackboneMissing when there is neither, and ModelError for a file that cannot be read or holds other tensors
    than the network's; batch counters may be absent."""
    places = _places(folder, wanted)
    weights = {
        name: tensor
        for place in places
        for name, tensor in _read(place).items()
        if not name.startswith(wanted.unused) and not name.endswith("num_batches_tracked")
    }
    _check(network, weights, places[0])
    network.load_state_dict(weights, strict=False)
    network.eval().requires_grad_(False)


def _places(folder: Path, wanted: WeightFile) -> list[Path]:
    """The files to read together."""
    shards = sorted(folder.glob("*.safetensors"))
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    published = [path for path in (folder / wanted.name, cache / wanted.name) if path.is_file()]
    if not shards and not published:
        raise BackboneMissing(
            f"no weights of the backbone {folder.name}: neither *.safetensors nor {wanted.name} in {folder}, and no "
            f"{wanted.name} in {cache}; put that file, which {wanted.origin}, in one of the two folders"
        )
    return shards or published[:1]


def _read(place: Path) -> dict[str, Tensor]:
    try:
        if place.suffix == ".safetensors":
            return load_file(place)
        return dict(torch.load(place, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"the weights in {place} cannot be read, fetch the file again: {reason}") from error


def _check(network: nn.Module, weights: dict[str, Tensor], place: Path) -> None:
    expected = {
        name: tensor.shape for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    found = {name: tensor.shape for name, tensor in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ModelError(
            f"{place} holds another network's weights: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"the first of them {wrong[0]}"
        )
