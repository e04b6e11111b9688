"""Feature extractors: arrays in, arrays out. Usable without the pipeline."""
