"""Observers: what is remembered of a tensor while calibration data runs through the model."""
