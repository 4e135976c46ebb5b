"""Which release this is: the one place that says it."""

RELEASE = "0.3.0"
