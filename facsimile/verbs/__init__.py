"""The verbs of the library, one per file; `facsimile` offers them under its own name."""
