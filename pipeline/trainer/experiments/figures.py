"""The figures, drawn by matplotlib without a display, as the content of PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from triptych.pipeline.trainer.settings import TASKS, Task

# Colours that the colour-blind tell apart (Okabe and Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
OF_MODALITIES = (COLOURS[0], COLOURS[2], COLOURS[3])  # text, audio, vision
INK = "#333333"


def histograms(values: Mapping[str, NDArray[np.float64]], data: str) -> bytes:
    """One histogram a quantity, side by side."""
    figure = Figure(figsize=(4.5 * max(len(values), 1), 3.4), layout="constrained")
    for place, (name, numbers) in enumerate(values.items(), 1):
        axes = figure.add_subplot(1, len(values), place)
        axes.hist(numbers, bins=_bins(numbers), color=COLOURS[0], edgecolor="white", linewidth=0.4)
        axes.set_xlabel(name)
        axes.set_ylabel("clips")
        _plain(axes)
    return _png(figure, data)


def _bins(numbers: NDArray[np.float64]) -> Any:
    """Whole numbers get a bin each, as long as there are not too many."""
    whole = np.arange(numbers.min(), numbers.max() + 2) - 0.5
    return whole if len(whole) <= 80 and (numbers == np.round(numbers)).all() else "auto"


def bars(groups: Mapping[str, Sequence[float]], names: Sequence[str], what: str, data: str) -> bytes:
    """Groups of bars: a colour a group, a place a name."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    _bars(figure.add_subplot(), groups, names, what)
    return _png(figure, data)


def heat_map(
    histogram: Mapping[Task, Sequence[float]],
    classes: Sequence[str],
    differences: NDArray[np.float64],
    data: str,
) -> bytes:
    """Figure 2: classes by annotation, and the heat map of D_ij."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    _bars(left, histogram, classes, "clips")
    shown = right.imshow(differences, cmap="Blues", vmin=0)
    right.set_xticks(range(len(TASKS)), TASKS)
    right.set_yticks(range(len(TASKS)), TASKS)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    highest = np.nanmax(differences) if np.isfinite(differences).any() else 1.0
    for (row, column), value in np.ndenumerate(differences):
        colour = "white" if value > 0.6 * highest else INK
        right.text(
            column, row, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", color=colour
        )
    right.set_title("$D_{ij}$, mean of $(A_i - A_j)^2$", fontsize=10)
    figure.colorbar(shown, ax=right, shrink=0.85).outline.set_visible(False)  # type: ignore[operator]
    return _png(figure, data)


def measures(
    spreads: Mapping[str, Mapping[str, tuple[float, float]]], kinds: Sequence[str], data: str
) -> bytes:
    """Acc-2, MAE and Corr by case, means with deviations as bars, in hundredths; a colour a kind of case."""
    figure = Figure(figsize=(11, 0.34 * len(spreads) + 1.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    colours = {kind: COLOURS[place] for place, kind in enumerate(dict.fromkeys(kinds))}
    for axes, (metric, better) in zip(
        panels, (("Acc-2", "higher"), ("MAE", "lower"), ("Corr", "higher")), strict=True
    ):
        for kind, colour in colours.items():
            chosen = [place for place, own in enumerate(kinds) if own == kind]
            means, deviations = np.array([list(spreads.values())[place][metric] for place in chosen]).T * 100
            axes.errorbar(
                means,
                chosen,
                xerr=np.nan_to_num(deviations),
                fmt="o",
                markersize=5,
                capsize=2,
                color=colour,
                label=kind,
            )
        axes.set_title(f"{metric}, {better} is better", fontsize=10)
        axes.set_yticks(range(len(spreads)), list(spreads))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].invert_yaxis()
    if len(colours) > 1:
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(colours),
            frameon=False,
        )
    return _png(figure, data)


def scatter(points: Mapping[str, Mapping[str, NDArray[np.float64]]], data: str) -> bytes:
    """Points of two dimensions by modality, a panel a system, three in a row."""
    rows = -(-len(points) // 3)
    figure = Figure(figsize=(10, 3.3 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).flat
    for axes, (name, by_modality) in zip(panels, points.items(), strict=False):
        for (modality, places), colour in zip(by_modality.items(), OF_MODALITIES, strict=True):
            axes.scatter(
                *places.T,
                s=np.clip(1500 / len(places), 8, 40),
                alpha=0.75,
                color=colour,
                label=modality,
                linewidths=0,
            )
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#cccccc")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return _png(figure, data)


def _bars(axes: Any, groups: Mapping[Any, Sequence[float]], names: Sequence[str], what: str) -> None:
    width = 0.8 / max(len(groups), 1)
    places = np.arange(len(names))
    for number, (group, values) in enumerate(groups.items()):
        axes.bar(
            places + (number - (len(groups) - 1) / 2) * width,
            values,
            width * 0.92,
            label=group,
            color=COLOURS[number],
        )
    axes.set_xticks(places, [name.replace(" ", "\n") for name in names])
    axes.set_ylabel(what)
    axes.legend(frameon=False)
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _png(figure: Figure, data: str) -> bytes:
    figure.supxlabel(f"Data: {data}", fontsize=7, color="#777777")
    content = io.BytesIO()
    figure.savefig(content, dpi=150, metadata={"Software": None})
    return content.getvalue()
