"""What the command `facsimile` does with a model: one command per file."""
