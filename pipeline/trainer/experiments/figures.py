"""The figures, drawn by matplotlib without a display, as the content of PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from triptych.pipeline.trainer.settings import TASKS, Task

# Colours that colour-blind readers can distinguish (Okabe and Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
OF_MODALITIES = (COLOURS[0], COLOURS[2], COLOURS[3])  # text, audio, vision
INK = "#333333"


def histograms(values: Mapping[str, NDArray[np.float64]], data: str) -> bytes:
    """Draw one histogram for each quantity, side by side."""
    figure = Figure(figsize=(4.5 * max(len(values), 1), 3.4), layout="constrained")
    for number, (name, numbers) in enumerate(values.items(), 1):
        axes = figure.add_subplot(1, len(values), number)
        axes.hist(numbers, bins=_bins(numbers), color=COLOURS[0], edgecolor="white", linewidth=0.4)
        axes.set_xlabel(name)
        axes.set_ylabel("clips")
        _plain(axes)
    return _png(figure, data)


def _bins(numbers: NDArray[np.float64]) -> Any:
    """Return one bin for each whole number, where these are not too many."""
    edges = np.arange(numbers.min(), numbers.max() + 2) - 0.5
    return edges if len(edges) <= 80 and (numbers == np.round(numbers)).all() else "auto"


def bars(groups: Mapping[str, Sequence[float]], names: Sequence[str], quantity: str, data: str) -> bytes:
    """Draw grouped bars: one colour for each group, one position for each name."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    _bars(figure.add_subplot(), groups, names, quantity)
    return _png(figure, data)


def heat_map(
    histogram: Mapping[Task, Sequence[float]],
    classes: Sequence[str],
    differences: NDArray[np.float64],
    data: str,
) -> bytes:
    """Draw Figure 2: classes by annotation, and the heat map of D_ij."""
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
    """Draw Acc-2, MAE and Corr by case, in hundredths: means, standard deviations as error bars.

    Each kind of case has its colour.
    """
    figure = Figure(figsize=(11, 0.34 * len(spreads) + 1.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    colours = {kind: COLOURS[index] for index, kind in enumerate(dict.fromkeys(kinds))}
    for axes, (metric, better) in zip(
        panels, (("Acc-2", "higher"), ("MAE", "lower"), ("Corr", "higher")), strict=True
    ):
        for kind, colour in colours.items():
            chosen = [index for index, own in enumerate(kinds) if own == kind]
            means, stds = np.array([list(spreads.values())[index][metric] for index in chosen]).T * 100
            axes.errorbar(
                means,
                chosen,
                xerr=np.nan_to_num(stds),
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
    """Draw points of two dimensions by modality, one panel for each system, three in a row."""
    rows = -(-len(points) // 3)
    figure = Figure(figsize=(10, 3.3 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).flat
    for axes, (name, by_modality) in zip(panels, points.items(), strict=False):
        for (modality, positions), colour in zip(by_modality.items(), OF_MODALITIES, strict=True):
            axes.scatter(
                *positions.T,
                s=np.clip(1500 / len(positions), 8, 40),
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


def _bars(axes: Any, groups: Mapping[Any, Sequence[float]], names: Sequence[str], quantity: str) -> None:
    width = 0.8 / max(len(groups), 1)
    positions = np.arange(len(names))
    for number, (group, values) in enumerate(groups.items()):
        axes.bar(
            positions + (number - (len(groups) - 1) / 2) * width,
            values,
            width * 0.92,
            label=group,
            color=COLOURS[number],
        )
    axes.set_xticks(positions, [name.replace(" ", "\n") for name in names])
    axes.set_ylabel(quantity)
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
