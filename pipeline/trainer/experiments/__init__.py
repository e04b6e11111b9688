"""The paper's tables and figures, each made by one command.

`labels` needs labels alone; the others need features, and models that `trainer.runs.jobs` trains.
"""
