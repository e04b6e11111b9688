"""Common parts of worker processes: one thread each, and their end with the parent process."""
