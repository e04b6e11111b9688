"""A run of `extract`: the plan, the workers, the engines, and recovery after a worker's exit."""
