"""The embedded world: scenes with exact ground truth, their captions, a judge, and the models trained on them."""
