"""The recipe, and the fingerprints that say which settings, models and code made a feature."""
