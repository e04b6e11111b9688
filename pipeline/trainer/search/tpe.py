"""Settings proposed by optuna's tree-structured Parzen estimator: a search beyond a grid's points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triptych.pipeline.errors import InputError
from triptych.pipeline.trainer.search.grid import Axes, Point, Search, Tried, diverged, mean

AT_ONCE = 8  # points of one proposal: the same for any number of processes
LOG_FROM = 10  # ratio of the largest to the smallest value from which an axis is searched on a log scale


def by_tpe(axes: Axes, trials: int) -> Search:
    """Search points that earlier results make likely to be better (Bergstra et al. 2011), from a fixed seed.

    On an axis of fractions, every value between the smallest and the largest may be tried; on other axes only
    the given ones. A point's score is Acc-2 of M; MAE decides between equal ones.

    Parameters
    ----------
    trials
        Number of points in all.

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

    description = (
        "Points were proposed by optuna's TPE, between the smallest and the largest value of each axis."
    )
    return Search(axes, propose, trials, description)


def _short(value: Any) -> Any:
    """Round a fraction to three digits: more have no meaning."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
