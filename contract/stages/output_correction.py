"""`output_correction`: what is known about the error of the finished denoiser's output is taken out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.stages.option import Option


class NoCorrection(Option):
    """The denoiser's output is taken as it is."""

    kind: Literal["none"] = "none"


class Ptqd(Option):
    """The part of the error that is proportional to the output, and its mean, are taken out (PTQD, arXiv
    2305.10657)."""

    kind: Literal["ptqd"] = "ptqd"
    prompts: int = Field(default=16, ge=1, le=256)


OutputCorrection = NoCorrection | Ptqd
