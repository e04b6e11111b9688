"""The demonstration: clips of a speaking face with their ground truth, a small BERT, and a run over them."""
