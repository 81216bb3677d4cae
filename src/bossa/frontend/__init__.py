"""From a Hugging Face model to a row program. The only rooms that import torch and transformers."""
