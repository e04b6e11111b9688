"""Which clips there are: sources, tables, transcripts, splits."""
