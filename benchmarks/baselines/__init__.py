"""The rivals, one per file: each has `load(task)`, and runs in a process of its own."""
