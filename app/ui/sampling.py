"""The inputs that Generate and Compare share: prompt, model, variant, and how to sample."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from app.ui.api import Offer, ServiceError
from app.ui.choices import default_model, default_variant, refilled, standing, takes_prompts
from contract.payloads import REFERENCE
from contract.sampling import MAX_GUIDANCE, MAX_STEPS

EXAMPLES = (
    "a large yellow matte torus left of a large green matte ball, light floor",
    "a large green metal cone behind a small blue matte ball, light floor",
    "a large purple matte torus in the centre, light floor",
    "a tiny crimson glossy box standing to the left of a huge azure clay orb, pale ground, studio lighting",
)


class SamplingInputs:
    """Build it where the inputs belong. `reference` says whether the reference itself can be chosen as variant."""

    def __init__(self, offer: gr.State, *, reference: bool) -> None:
        self._reference = reference
        self.prompt = gr.Textbox(label="Prompt", lines=2, max_lines=6, value=EXAMPLES[0])
        with gr.Row():
            self.model = gr.Dropdown(label="Model", choices=[], interactive=True)
            self.variant = gr.Dropdown(label="Variant", choices=[], interactive=True)
        with gr.Row():
            self.steps = gr.Slider(1, MAX_STEPS, value=25, step=1, label="Steps")
            self.guidance = gr.Slider(0, MAX_GUIDANCE, value=4, step=0.5, label="Guidance")
        self.seed = gr.Textbox(label="Seed", placeholder="drawn if empty", max_lines=1)
        self.model.input(
            self._follow_model,
            [self.model, self.variant, offer],
            [self.variant, self.steps, self.guidance, self.prompt],
            show_progress="hidden",
            api_visibility="private",
        )

    def examples(self) -> None:
        """Lay the example prompts out here."""
        gr.Examples([[example] for example in EXAMPLES], [self.prompt], label="Examples", api_visibility="private")

    @property
    def components(self) -> list[Component]:
        """The inputs, in the order that `body` takes their values."""
        return [self.prompt, self.model, self.variant, self.steps, self.guidance, self.seed]

    @property
    def targets(self) -> list[Component]:
        """What an offer fills, in the order of `choices`."""
        return [self.model, self.variant, self.steps, self.guidance, self.prompt]

    def choices(self, offer: Offer, model: str | None, variant: str | None, *_: Any) -> list[Any]:
        """Updates of the targets, given their values; what is chosen stays if it is still offered."""
        names = [each.id for each in offer.models]
        stands = standing(names, model, default_model(offer))
        variants, *sampling = self._follow_model(stands, variant, offer)
        same = [gr.skip()] * len(sampling)
        return [refilled(names, model, stands), variants, *(same if stands == model else sampling)]

    def _follow_model(self, name: str | None, variant: str | None, offer: Offer | None) -> list[Any]:
        model = offer.model(name) if offer else None
        if offer is None or model is None:
            return [gr.update(choices=[], value=None), gr.skip(), gr.skip(), gr.skip()]
        variants = [each for each in model.variants if self._reference or each != REFERENCE]
        default = default_variant(offer, name, variants)
        prompt = gr.update(visible=True) if takes_prompts(offer, name) else gr.update(visible=False, value="")
        return [refilled(variants, variant, default), model.num_inference_steps, model.guidance_scale, prompt]


def sampling_body(
    prompt: str, model: str | None, variant: str | None, steps: float, guidance: float, seed: str
) -> dict[str, Any]:
    """The request for these values; without a seed the service draws one, without a prompt the model may. Raises
    ServiceError for a seed in words."""
    body: dict[str, Any] = {"prompt": prompt} if prompt else {}
    body |= {
        "model": model or "",
        "variant": variant or "",
        "num_inference_steps": int(steps),
        "guidance_scale": float(guidance),
    }
    if not seed.strip():
        return body
    if not seed.strip().isdecimal():
        raise ServiceError(f"The seed must be a whole number, not {seed.strip()!r}.")
    return body | {"seed": int(seed)}
