"""Trainings as files: run folders, checkpoints, parallel jobs, prediction."""
