"""A report of an evaluation: JSON for machines, Markdown and a page with plots for people."""
