"""A recipe as it is followed on one model: its family, and the model's own layers in place of roles."""

from __future__ import annotations

from contract.recipe import Recipe
from quant.checkpoints.pipelines import Source, denoiser_skeleton
from quant.discovery import anatomy_of
from quant.errors import RecipeMismatch


class Resolution:
    """Recipes resolved for a model. What they are resolved to says what is done, and is what results are kept under:
    a preset that calls layers by roles does on this model what one that names them does."""

    def __init__(self, description: Source) -> None:
        """Raises ModelError where the model's config cannot be read."""
        self._family = description.family
        self._denoiser = denoiser_skeleton(description)
        self._anatomy = anatomy_of(self._denoiser)
        try:
            self._has_requests = bool(self._anatomy.time_path(self._denoiser).request)
        except RecipeMismatch:
            self._has_requests = False

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe for this model. Raises RecipeMismatch for a role that its layers do not have."""
        layers = self._anatomy.layers_called(recipe.keep_float, self._denoiser)
        time_bits = recipe.time_bits if self._has_requests else None  # tables have none
        return recipe.model_copy(update={"family": self._family, "keep_float": layers, "time_bits": time_bits})
