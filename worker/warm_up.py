"""Warm-up: loads what fits before the worker says that it is there, so that the first picture is quick."""

from __future__ import annotations

import structlog

from contract.errors import ContractError
from contract.payloads import REFERENCE
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)


def warm_up(runtime: Runtime) -> None:
    """Load every model's reference, then variants while there is room, and make one picture with each. What cannot be
    loaded is logged: its jobs will fail with the reason, the others will not."""
    names = [(model, REFERENCE) for model in runtime.catalogue.models]
    names += [(published.card.model, published.card.variant) for published in runtime.registry.variants()]
    for model, variant in names[: runtime.settings.pipelines]:
        _one_picture(runtime, model, variant)


def _one_picture(runtime: Runtime, model: str, variant: str) -> None:
    from quant.errors import QuantError
    from quant.sampling.generation import generate
    from quant.sampling.request import Sampling

    description = runtime.catalogue.models.get(model)
    if description is None:
        return
    prompt = "warm-up" if description.asked == "text" else None
    sampling = Sampling.native(description).changed(prompt=prompt, num_inference_steps=1)
    try:
        generate(runtime.pipelines.get(model, variant).pipeline, sampling, None)
    except (QuantError, ContractError, MemoryError, RuntimeError) as error:
        _log.warning("not warmed up", model=model, variant=variant, error=str(error))
