"""The embedded world: ray-traced scenes with exact ground truth, their captions, a judge, and the models trained on them."""
