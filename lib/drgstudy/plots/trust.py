"""Whether a model knows when it is wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from drgstudy.plots.canvas import canvas, stamped
from drgstudy.plots.style import FAINT, in_order, style_of


def reliability(tables: dict[str, pd.DataFrame], errors: dict[str, float], dataset: str) -> Figure:
    """Accuracy by stated confidence, one panel for each run. On the diagonal, a model is right as often as it says.

    `tables` holds each run's `calibration.reliability`, `errors` its expected calibration error.
    """
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, grid = canvas(max(4.5, 3.1 * columns), 2.95 * rows + 0.2, rows=rows, columns=columns, squeeze=False)
    for ax in grid.flat[len(tables) :]:
        ax.remove()
    for ax, run in zip(grid.flat, in_order(tables), strict=False):
        (name, colour, marker), table = style_of(run), tables[run]
        ax.plot([0, 1], [0, 1], color=FAINT, ls="--", lw=1)
        ax.vlines(table["confidence"], table["lower"], table["upper"], color=colour, lw=1.4, alpha=0.6, clip_on=False)
        ax.plot(table["confidence"], table["accuracy"], marker, color=colour, ms=5.5, clip_on=False)
        ax.text(0.03, 0.97, "too modest", va="top", fontsize=8.5, color=FAINT)
        ax.text(0.99, 0.03, "overconfident", ha="right", fontsize=8.5, color=FAINT)
        shown = f": error {errors[run]:.2f}" if errors[run] == errors[run] else ""  # masked
        ax.set(title=f"{name}{shown}", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(PercentFormatter(1, symbol=""))
    stays = pd.concat(tables.values())["stays"]
    size = "–".join(f"{n:,}" for n in sorted({stays.min(), stays.max()}))
    figure.supxlabel(f"mean confidence of {size} stays (%)", fontsize=10)
    figure.supylabel("their accuracy (%), 95 % interval", fontsize=10)
    return stamped(figure, dataset)


def coverage(curves: dict[str, pd.DataFrame], targets: list[float], dataset: str) -> Figure:
    """Accuracy on the stays that a model answers, by their share; `curves` holds each run's `calibration.coverage`."""
    figure, ax = canvas(7.5, 4.2)
    for target in targets:
        ax.axhline(target, color=FAINT, lw=1, ls="--")
    for style, run in enumerate(in_order(curves)):
        name, colour, marker = style_of(run)
        curve = curves[run]
        ends = np.searchsorted(curve["coverage"], np.linspace(0.1, 1, 10) - 1e-9)
        line = {"color": colour, "ls": ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), ":")[style % 5], "lw": 1.8}
        ax.plot(
            curve["coverage"],
            curve["accuracy"],
            marker=marker,
            ms=5,
            markevery=ends[ends < len(curve)].tolist(),
            label=name,
            **line,
        )
    ax.set(xlabel="stays that the model answers, the most confident first (%)", ylabel="accuracy among them (%)")
    ax.set(xlim=(0, 1.02), ylim=(None, 1.02))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=""))
    figure.legend(frameon=False, loc="outside upper center", ncols=5)
    return stamped(figure, dataset)
