"""The feature folder: shards, index, ledger, and how they are read and written."""
