"""A run of `extract`: the plan, the workers, the engines, recovery from dead workers."""
