"""Features to and from the files of other programs. docs/tables.md describes the formats."""
