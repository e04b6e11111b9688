"""Settings proposed by optuna's tree-structured Parzen estimator: a search beyond a grid's points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.search.grid import Axes, Point, Search, Tried, diverged, mean

AT_ONCE = 8  # points between two looks at the results: the same for any number of processes
LOG_FROM = 10  # how many times the smallest value the largest is, from where orders of magnitude count


def by_tpe(axes: Axes, trials: int) -> Search:
    """Points that the results before them make likely to be better (Bergstra et al. 2011), from a fixed seed.

    Between the smallest and the largest of an axis of fractions, every value may be tried; of other axes,
    those given. A point's worth is Acc-2 of M; MAE decides between equal ones.

    Parameters
    ----------
    trials
        Points in all.

    Raises
    ------
    InputError
        optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("optuna is not installed; pip install 'triptych[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True)
    )
    waiting: list[Any] = []  # the trials whose results come next

    def distribution(values: Sequence[Any]) -> Any:
        low, high = min(values), max(values)
        if low < high and all(isinstance(value, float) for value in values):
            return optuna.distributions.FloatDistribution(low, high, log=0 < low * LOG_FROM <= high)
        return optuna.distributions.CategoricalDistribution(values)

    space = {name: distribution(values) for name, values in axes.items()}

    def propose(tried: Sequence[Tried]) -> list[Point]:
        for trial, (_, results) in zip(waiting, tried[len(tried) - len(waiting) :], strict=True):
            if diverged(results):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, mean(results, "Acc-2") - 1e-3 * mean(results, "MAE"))
        waiting[:] = [study.ask(space) for _ in range(min(AT_ONCE, trials - len(tried)))]
        return [{name: _short(trial.params[name]) for name in axes} for trial in waiting]

    how = "Points were proposed by optuna's TPE, from the axes' least to their largest values."
    return Search(axes, propose, trials, how)


def _short(value: Any) -> Any:
    """Three digits of a fraction: no more are of any meaning."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
