"""Hyperparameter search: a grid, or a tree of Parzen estimators."""
