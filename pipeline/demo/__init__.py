"""The demonstration's material: clips of a face that speaks, the truth about them, and a small BERT."""
