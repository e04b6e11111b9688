"""The demonstration's material: clips of a face that speaks, their truth, and a small BERT. No footage of people."""
