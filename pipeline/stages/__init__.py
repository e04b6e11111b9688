"""The recipe, and the fingerprints of the settings, models and code that compute a feature."""
