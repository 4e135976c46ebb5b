"""Measurements, one question per file; numbers go to docs/ with versions, machine and settings."""
