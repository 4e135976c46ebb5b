"""The study that compares quantization methods on the embedded model, and says what each technique is worth."""
