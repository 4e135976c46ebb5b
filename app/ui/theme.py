"""Colours and type of the page: quiet greys, one accent, the reader's own fonts."""

from __future__ import annotations

import gradio as gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "monospace")


def make_theme() -> gr.themes.Base:
    """The theme; nothing in it is loaded over the network."""
    theme = gr.themes.Base(
        primary_hue="teal",
        secondary_hue="slate",
        neutral_hue="slate",
        radius_size="sm",
        spacing_size="md",
        font=SANS,
        font_mono=MONO,
    )
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="white",
        block_label_text_weight="500",
        block_border_width="1px",
        body_background_fill="*neutral_50",
    )
