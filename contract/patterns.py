"""Patterns of texts that people write, each with what it means: an error says the meaning, never the pattern."""

from __future__ import annotations

from contract.identifier import IDENTIFIER_PATTERN, IDENTIFIER_RULE

LAYERS = r"^@?[A-Za-z0-9_.*?\[\]!-]+$"
METHOD = r"^[a-z][a-z0-9_]{0,31}$"
METRIC = r"^[a-z][a-z0-9_]{0,31}(:[a-z0-9][a-z0-9_-]{0,63})?$"
PROMPT_SET = r"^[^/]{1,64}$"
EVENT = r"^\d{1,18}-\d{1,18}$"
CURSOR = r"^\d{1,15}$"
REDIS_URL = r"^(redis|rediss|unix)://."

MEANINGS = {
    IDENTIFIER_PATTERN: f"a name has {IDENTIFIER_RULE}",
    LAYERS: "must be a layer's name (letters, digits, dots, hyphens, underscores, * and ?) or a role such as @input",
    METHOD: "a name has 1 to 32 lower-case letters, digits and underscores, and a letter first",
    METRIC: "must be a metric's name, such as psnr, or a metric and a backbone, such as fid:judge",
    PROMPT_SET: "must be a prompt set's name of 1 to 64 characters, not a path",
    EVENT: "must be the id of an event of this job",
    CURSOR: "must be next_cursor of the page before",
    REDIS_URL: "must be an address such as redis://localhost:6379/0, rediss://... or unix:///path",
}
