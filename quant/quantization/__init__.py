"""From a recipe to a variant with its card."""
