"""The text stage: token embeddings of a language model."""
