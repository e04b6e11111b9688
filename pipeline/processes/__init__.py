"""What every worker process needs: one thread each, and an end with its parent."""
