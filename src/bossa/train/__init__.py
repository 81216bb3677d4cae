"""Training: tokenized articles in, a checkpoint or a LoRA adapter out."""
