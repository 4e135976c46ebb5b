"""Which integer engine a device gets, and the report of what was chosen and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from quant.engine import native, processor, triton
from quant.engine.engine import Engine
from quant.engine.native.passes import NativePasses
from quant.engine.onednn import OneDNNEngine
from quant.engine.passes import TorchPasses
from quant.engine.reference import ReferenceEngine
from quant.engine.self_test import check_passes, self_test
from quant.errors import KernelError


@dataclass(frozen=True)
class Selection:
    """The engine of a device, and one sentence per choice that was made."""

    engine: Engine
    reasons: tuple[str, ...]


@cache
def select(device_type: str = "cpu") -> Selection:
    """The fastest engine of a device type that passes the self-test; exact emulation when none does. Raises KernelError
    for a cap that makes no sense."""
    processor.check()
    cap = processor.describe()
    reasons: list[str] = [] if cap is None else [cap]
    for make in _CANDIDATES.get(device_type, ()):
        try:
            engine = make(reasons)
            self_test(engine, torch.device(device_type))
        except Exception as error:  # compilers and drivers raise kinds of their own
            reasons.append(f"{make.__name__.strip('_')}: not used: {error}")
            continue
        reasons.append(f"products: {engine.name}, self-test passed in float32, bfloat16 and float16")
        if isinstance(engine, OneDNNEngine) and engine.widened:
            reasons.append(f"through float32, slower: {', '.join(sorted(map(str, engine.widened)))}")
        return Selection(engine, tuple(reasons))
    reasons.append("products: reference, exact emulation, slow")
    return Selection(ReferenceEngine(), tuple(reasons))


def default_engine(device_type: str = "cpu") -> Engine:
    """The engine of `select`."""
    return select(device_type).engine


def _onednn(reasons: list[str]) -> Engine:
    if not native.available():
        reasons.append(f"passes: plain torch, no native kernels: {native.status()}")
        return OneDNNEngine(TorchPasses())
    passes = NativePasses()
    try:
        check_passes(passes)
    except Exception as error:
        reasons.append(f"passes: plain torch: {error}")
        return OneDNNEngine(TorchPasses())
    tiles = "AMX tiles" if native.has_tiles() else "no AMX tiles, so attention is torch's"
    reasons.append(f"passes: native, {tiles}")
    return OneDNNEngine(passes)


def _triton(reasons: list[str]) -> Engine:
    reason = triton.missing()
    if reason is not None:
        raise KernelError(reason)
    from quant.engine.triton.engine import TritonEngine  # Triton itself takes a second to import

    reasons.append("passes: triton, attention is torch's")
    return TritonEngine()


_CANDIDATES: dict[str, tuple[Callable[[list[str]], Engine], ...]] = {"cpu": (_onednn,), "cuda": (_triton,)}
