"""Metrics of consistency and of prompt following: one file per metric, the file's name is the metric's name."""
