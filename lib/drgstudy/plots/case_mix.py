"""What errors cost: the case-mix index, its payment, and the relative weight of single stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullLocator, StrMethodFormatter

from drgstudy.drgs import SYSTEMS
from drgstudy.plots.canvas import canvas, dots, stamped
from drgstudy.plots.style import FAINT, INK, SYSTEM_STYLES


def case_mix(table: pd.DataFrame, dataset: str) -> Figure:
    """What each model's errors cost in total and in a single stay; a row of panels for each way to predict the weight.

    `table` has run, model, way, measure ("error_percent" and "mae_dollars" are shown), value, lower and upper.
    """
    ways = table["way"].unique()
    measures = {"error_percent": ("error of the case-mix index (%)", "{:+.1f}")}
    measures["mae_dollars"] = ("mean error of a single stay ($)", "{:,.0f}")
    height = len(ways) * (0.9 + 0.36 * table["run"].nunique())
    figure, grid = canvas(9, height, rows=len(ways), columns=2, sharex="col", sharey=True, squeeze=False)
    for panels, way in zip(grid, ways, strict=True):
        for ax, (measure, (label, form)) in zip(panels, measures.items(), strict=True):
            ax.axvline(0, color=FAINT, lw=1, ls="--")
            dots(ax, table[(table["way"] == way) & (table["measure"] == measure)], "value", form)
            ax.set_title(f"{way} weight")
            ax.set_xlabel(label if way == ways[-1] else "")
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    return stamped(figure, dataset)


def cmi_by_hour(errors: pd.DataFrame, published: pd.DataFrame, mean_guess: dict[str, float], dataset: str) -> Figure:
    """Early DRG, Figure 1: error of the case-mix index by hour, mean and standard deviation over the fold models.

    `errors` has system, hour, mean and sd; `published` has system, hour, value and sd. `mean_guess` holds for each system
    the error of a guess that reads nothing. All errors are in per cent.
    """
    figure, panels = _systems(errors)
    for ax, (system, rows) in panels.items():
        colour, style = SYSTEM_STYLES[system]
        spread = rows["sd"].fillna(0)
        band = (rows["mean"] - spread).clip(lower=0), rows["mean"] + spread
        ax.fill_between(rows["hour"], *band, color=colour, alpha=0.18, lw=0)
        ax.plot(rows["hour"], rows["mean"], color=colour, ms=5.5, label="this run, ± SD", **style)
        ax.axhline(mean_guess[system], color=INK, lw=1.2, ls=":", label="a guess that reads nothing")
        theirs = published[published["system"] == system]
        paper = {"fmt": "D", "mfc": "white", "ms": 7, "capsize": 3, "color": FAINT, "zorder": 3}
        ax.errorbar(theirs["hour"], theirs["value"], theirs["sd"], label="published, ± SD", **paper)
        _hours(ax, SYSTEMS[system])
    figure.axes[0].set_ylabel("error of the case-mix index (%)")
    figure.axes[0].set_ylim(0, None)
    return stamped(figure, dataset)


def cmi_by_size(sizes: pd.DataFrame, published: dict[str, float], dataset: str) -> Figure:
    """Early DRG, Figure 2: error of the case-mix index by the population's size, with 95 % bootstrap intervals.

    `sizes` has system, hour, size, cohort (the stays that are drawn from; NaN: not told), mean, lower and upper; markers of
    the later hour are filled, and populations larger than the cohort are shaded. `published` holds for each system the bound
    below which the paper's errors stay. All errors are in per cent.
    """
    figure, panels = _systems(sizes)
    for ax, (system, rows) in panels.items():
        colour, style = SYSTEM_STYLES[system]
        looks = ["-", colour], ["--", "white"]  # the later hour, the earlier
        for (hour, part), (ls, fill) in zip(reversed(list(rows.groupby("hour"))), looks, strict=False):
            error = part["mean"] - part["lower"], part["upper"] - part["mean"]
            mark = style | {"ls": ls, "mfc": fill}
            ax.errorbar(part["size"], part["mean"], error, color=colour, capsize=3, label=f"at {hour} hours", **mark)
        bound = published[system]
        ax.axhline(bound, color=FAINT, lw=1.4, ls="-.", label=f"published: under {bound:g} %")
        cohort, largest = rows["cohort"].iloc[0], rows["size"].max()
        if largest > cohort:
            label = f"more than the cohort’s {cohort:,.0f} stays"
            ax.axvspan(cohort, 1.03 * largest, color="0.93", lw=0, zorder=0, label=label)
        ax.set(title=SYSTEMS[system], xlabel="stays in the population")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.legend(frameon=False)
    figure.axes[0].set_ylabel("error of the case-mix index (%)")
    figure.axes[0].set_ylim(0, None)
    return stamped(figure, dataset)


def cmi_payments(table: pd.DataFrame, base_payment: float, dataset: str) -> Figure:
    """Early DRG, Figure 3: true and predicted case-mix index of sampled stays, and what is paid for them.

    `table` has system and the columns of `casemix.payments`; the band spans the fold models. `base_payment` is in dollars for a
    relative weight of 1.
    """
    figure, panels = _systems(table)
    for ax, (system, rows) in panels.items():
        colour, style = SYSTEM_STYLES[system]
        stays, cohort = rows[["stays", "cohort"]].iloc[0]
        label = f"true, {stays:,} " + ("stays" if stays <= cohort else f"draws of {cohort:,} stays")
        ax.plot(rows["hour"], rows["cmi_true"], color=INK, lw=1.6, label=label)
        ax.fill_between(rows["hour"], rows["lowest"], rows["highest"], color=colour, alpha=0.18, lw=0)
        ax.plot(rows["hour"], rows["cmi_predicted"], color=colour, ms=5.5, label="predicted", **style)
        _hours(ax, SYSTEMS[system])
        millions = rows["stays"].iloc[0] * base_payment / 1e6
        right = ax.secondary_yaxis("right", functions=(lambda y, m=millions: y * m, lambda y, m=millions: y / m))
        right.spines["right"].set_visible(True)
        right.set_ylabel("payment (million $)" if ax is list(panels)[-1] else "")
    figure.axes[0].set_ylabel("case-mix index")
    return stamped(figure, dataset)


def weight_scatter(weights: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]], dataset: str) -> Figure:
    """Predicted against true relative weight of each stay.

    There is a row of panels for each key of `weights`, a model or a DRG system, and a column for each way to predict
    the weight. `weights` holds for each row the true weights, and a dict of the predicted ones by way. A weight below
    the axis, which a regression may predict, is drawn at the axis's lower end.
    """
    ways = list(next(iter(weights.values()))[1])
    shape = {"rows": len(weights), "columns": len(ways)}
    figure, grid = canvas(3.2 * len(ways), 3.2 * len(weights) + 0.3, **shape, sharex=True, sharey=True, squeeze=False)
    true = np.concatenate([values for values, _ in weights.values()])
    guesses = np.concatenate([guess for _, by_way in weights.values() for guess in by_way.values()])
    low, high = true[true > 0].min() / 1.3, max(true.max(), guesses.max()) * 1.3
    for axes, (name, (values, by_way)) in zip(grid, weights.items(), strict=True):
        colour, style = SYSTEM_STYLES.get(name, SYSTEM_STYLES["ms"])
        mark = {"marker": style["marker"], "mfc": style["mfc"], "mec": colour, "ms": 3.5, "alpha": 0.35}
        for ax, guess in zip(axes, by_way.values(), strict=True):
            ax.plot([low, high], [low, high], color=FAINT, ls="--", lw=1)
            ax.plot(values.clip(low), guess.clip(low), ls="none", clip_on=False, **mark)
            ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axis.set_minor_locator(NullLocator())
        axes[0].set_ylabel(f"{SYSTEMS.get(name, name)}: predicted weight")
    for top, bottom, way in zip(grid[0], grid[-1], ways, strict=True):
        top.set_title(way)
        bottom.set_xlabel("true relative weight (log scale)")
    return stamped(figure, dataset)


def _systems(table: pd.DataFrame) -> tuple[Figure, dict[Axes, tuple[str, pd.DataFrame]]]:
    """A figure with a panel for each DRG system in the table; by panel, the system and its rows."""
    parts = list(table.groupby("system", sort=False))
    figure, grid = canvas(1 + 4.2 * len(parts), 3.9, columns=len(parts), sharey=True, squeeze=False)
    return figure, dict(zip(grid.flat, parts, strict=True))


def _hours(ax: Axes, name: str) -> None:
    """Label hours on the x axis, draw a line at ICU admission, and add title and legend."""
    ax.axvline(0, color=FAINT, lw=0.8)
    ax.xaxis.set_major_locator(MultipleLocator(12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+.0f}".replace("-", "−") if x else "0"))
    ax.set(title=name, xlabel="hours from ICU admission")
    ax.legend(frameon=False)
