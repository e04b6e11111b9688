"""The paper's tables and figures, each made by one command.

`labels` needs labels alone; `tables` and `figures` need features, and models that `runner` trains.
"""
