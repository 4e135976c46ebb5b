"""The stages of a calibration, one file for every key of a recipe's `[stages]`: each has STAGE, a `Stage`."""
