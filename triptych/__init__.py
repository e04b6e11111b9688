"""Raw video clips in; text, audio and vision features out; sentiment models trained on them."""
