"""Whether a model knows when it is wrong."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from drgstudy.plots.canvas import canvas, percent, stamped
from drgstudy.plots.style import FAINT, in_order, style_of


def reliability(
    tables: dict[str, pd.DataFrame], errors: dict[str, float], dataset: str, names: dict | None = None
) -> Figure:
    """Accuracy by stated confidence, one panel for each run. On the diagonal, a model is right as often as it says.

    `tables` holds each run's `calibration.reliability`, `errors` its expected calibration error.
    """
    figure, panels = _a_panel_each(tables)
    for run, ax in panels.items():
        (name, colour, marker), table = style_of(run, names), tables[run]
        ax.plot([0, 1], [0, 1], color=FAINT, ls="--", lw=0.8)
        ax.vlines(table["confidence"], table["lower"], table["upper"], color=colour, lw=1, alpha=0.6, clip_on=False)
        ax.plot(table["confidence"], table["accuracy"], marker, color=colour, clip_on=False)
        shown = f"\nerror {errors[run]:.2f}" if errors[run] == errors[run] else ""  # masked
        ax.set(title=f"{name}{shown}", xlim=(0, 1), ylim=(0, 1))
    stays = pd.concat(tables.values())["stays"]
    size = "–".join(f"{n:,}" for n in sorted({stays.min(), stays.max()}))
    figure.suptitle("above the dashed line: too modest; below it: overconfident")
    figure.supxlabel(f"mean confidence of {size} stays (%)", fontsize=7)
    figure.supylabel("accuracy (%), 95 % interval", fontsize=7)
    said = ", ".join(f"{style_of(run, names)[0]} {errors[run]:.2f}" for run in panels if errors[run] == errors[run])
    return stamped(
        figure, dataset, f"Accuracy by stated confidence. Expected calibration error: {said or 'not shown'}."
    )


def coverage(curves: dict[str, pd.DataFrame], targets: list[float], dataset: str, names: dict | None = None) -> Figure:
    """Accuracy on the stays that a model answers, by their share, one panel for each run; grey: the other runs.

    `curves` holds each run's `calibration.coverage`, with the interval of `calibration.coverage_interval`.
    """
    figure, panels = _a_panel_each(curves)
    for run, ax in panels.items():
        (name, colour, _), curve = style_of(run, names), curves[run]
        for target in targets:
            ax.axhline(target, color=FAINT, lw=0.8, ls="--")
        for other in in_order(curves.keys() - {run}):
            ax.plot(curves[other]["coverage"], curves[other]["accuracy"], color="0.8", lw=0.7, zorder=0)
        ax.fill_between(curve["coverage"], curve["lower"], curve["upper"], color=colour, alpha=0.25, lw=0)
        ax.plot(curve["coverage"], curve["accuracy"], color=colour, lw=1.4)
        ax.set(title=name, xlim=(0, 1.02), ylim=(0, 1.02))
    figure.supxlabel("stays that the model answers, the most confident first (%)", fontsize=7)
    figure.supylabel("accuracy (%), 95 % interval", fontsize=7)
    said = [
        f"{style_of(run, names)[0]} {100 * curves[run]['accuracy'].iloc[-1]:.0f} %"
        for run in panels
        if len(curves[run])
    ]
    return stamped(
        figure,
        dataset,
        f"Accuracy by the share of the stays that a model answers. If it answers the most: {', '.join(said)}.",
    )


def _a_panel_each(runs: dict) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a square panel for each run, at most five in a row, and shares from 0 to 1 on both axes."""
    rows = -(-len(runs) // 5)
    columns = -(-len(runs) // rows)
    width = "one column" if columns < 3 else "two columns"
    side = {1: 68, 2: 33, 3: 48, 4: 35, 5: 27}[columns]
    shape = {"rows": rows, "columns": columns, "squeeze": False}
    figure, grid = canvas(width, 15 + (side + 11) * rows, sharex=True, sharey=True, **shape)
    for ax in grid.flat[len(runs) :]:
        ax.remove()
    for ax in grid.flat[: len(runs)]:
        ax.set_box_aspect(1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        percent(ax.xaxis, ax.yaxis)
    return figure, dict(zip(in_order(runs), grid.flat, strict=False))
