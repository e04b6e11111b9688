"""Before the first run: what a source holds, and a recipe and a manifest to start from."""
