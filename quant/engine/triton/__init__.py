"""The engine of NVIDIA GPUs, written in Triton. Importing this package imports nothing of Triton."""

from __future__ import annotations

from importlib.util import find_spec

import torch


def missing() -> str | None:
    """Why the engine cannot run here, as one sentence; None where it can."""
    if find_spec("triton") is None:
        return "Triton is not installed: `pip install triton`, in the version that this torch names"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return f"the GPU has compute capability {major}.{minor}: int8 products need 8.0 (Ampere) or newer"
    return None
