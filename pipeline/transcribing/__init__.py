"""Transcripts of clips: by a recogniser, and in the files that people correct them in."""
