"""How much of the processor this process may use: `FACSIMILE_MAX_CPU_ISA` lets one machine run as lesser ones do.

The variable is read once, when the library is imported. It caps oneDNN, which reads a variable of its own at its first
product, and our native kernels; torch's other operators are not touched."""

from __future__ import annotations

import os
import sys
import warnings

from quant.errors import KernelError

VARIABLE = "FACSIMILE_MAX_CPU_ISA"
LEVELS = {
    "avx2": "AVX2",
    "avx512_vnni": "AVX512_CORE_VNNI",
    "avx512_bf16": "AVX512_CORE_BF16",
    "amx": "AVX512_CORE_AMX",
}
"""The values, from the least to the most, and oneDNN's names for them. Each stands for one of our paths: exact
emulation, oneDNN alone, oneDNN with native passes, and native attention too."""

CAP = os.environ.get(VARIABLE, "")
LATE = "torch" in sys.modules
"""Whether torch came first, in which case oneDNN may have been used before it was capped."""


def cap_onednn() -> None:
    """Hands the cap on to oneDNN. Warns where torch was imported before; a wrong value is left to `check`."""
    if CAP not in LEVELS:
        return
    os.environ["ONEDNN_MAX_CPU_ISA"] = LEVELS[CAP]
    if LATE:
        warnings.warn(
            f"{VARIABLE}={CAP}: torch was imported before quant; oneDNN is capped only if it has not computed yet",
            RuntimeWarning,
            stacklevel=3,
        )


def check() -> None:
    """Raises KernelError, naming the values that there are, where the variable has another."""
    if CAP and CAP not in LEVELS:
        raise KernelError(f"{VARIABLE} is {CAP!r}: it can be {', '.join(LEVELS)}, or be left out")


def allows(level: str) -> bool:
    """Whether the cap, if there is one, reaches `level`; what the processor can do is another question. Raises what
    `check` raises."""
    check()
    order = list(LEVELS)
    return not CAP or order.index(level) <= order.index(CAP)


def multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16, and the cap leaves them."""
    import torch

    has = torch.cpu.get_capabilities()
    return allows("avx512_bf16") and bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def describe() -> str | None:
    """A sentence about the cap, if there is one."""
    if not CAP:
        return None
    late = "; torch was imported first, so oneDNN follows only if it had not computed yet" if LATE else ""
    return f"capped: {VARIABLE} is {CAP}{late}"
