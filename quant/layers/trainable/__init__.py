"""Floating-point layers that compute what integer ones will: what calibration watches and trains."""
