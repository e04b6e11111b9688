"""The clips of a run: sources, CSV tables, transcripts and splits."""
