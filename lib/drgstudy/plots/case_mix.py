"""What errors cost: the case-mix index, its payment, and the relative weight of single stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator, StrMethodFormatter

from drgstudy.drgs import SYSTEMS
from drgstudy.plots.canvas import bands, canvas, dots, minus, stamped
from drgstudy.plots.style import FAINT, INK, SYSTEM_STYLES


def case_mix(table: pd.DataFrame, dataset: str) -> Figure:
    """What each model's errors cost in total and in a single stay; a row of panels for each way to predict the weight.

    `table` has run, model, way, measure ("error_percent" and "mae_dollars" are shown), value, lower and upper.
    """
    ways = table["way"].unique()
    measures = {"error_percent": ("error of the case-mix index (%)", "{:+.1f}")}
    measures["mae_dollars"] = ("mean error of a single stay ($)", "{:,.0f}")
    height = 8 + len(ways) * (9 + 4.4 * table["run"].nunique())
    shape = {"rows": len(ways), "columns": 2, "squeeze": False}
    figure, grid = canvas("two columns", height, sharex="col", sharey=True, **shape)
    for panels, way in zip(grid, ways, strict=True):
        for ax, (measure, (label, form)) in zip(panels, measures.items(), strict=True):
            ax.axvline(0, color=FAINT, lw=0.8, ls="--", zorder=0)
            dots(ax, table[(table["way"] == way) & (table["measure"] == measure)], "value", form)
            ax.set_title(f"{way} weight")
            ax.set_xlabel(label if way == ways[-1] else "")
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    off = table[(table["way"] == ways[0]) & (table["measure"] == "error_percent") & table["value"].notna()]
    said = ", ".join(f"{row.model} {minus(f'{row.value:+.1f}')} %" for row in off.itertuples())
    caption = f"Error of the case-mix index by the {ways[0]} weight: {said}. Right: the mean error of a single stay."
    return stamped(figure, dataset, caption)


def cmi_by_hour(errors: pd.DataFrame, published: pd.DataFrame, mean_guess: dict[str, float], dataset: str) -> Figure:
    """Early DRG, Figure 1: error of the case-mix index by hour, mean and standard deviation over the fold models.

    `errors` has system, hour, mean and sd; `published` has system, hour, value and sd. `mean_guess` holds for each system
    the error of a guess that reads nothing. All errors are in per cent. The bands share their axes.
    """
    titles = ["MIMIC-III (published); whiskers ± SD", f"{dataset} (this run); bands ± SD"]
    figure, parts = bands([46, 52], titles)
    systems = list(dict.fromkeys(errors["system"]))
    top = 1.05 * np.nanmax(
        [*(errors["mean"] + errors["sd"].fillna(0)), *(published["value"] + published["sd"]), *mean_guess.values()]
    )
    hours = pd.concat([errors["hour"], published["hour"]])
    for band, ours in zip(parts, (False, True), strict=True):
        for ax, system in zip(band.subplots(1, len(systems), squeeze=False)[0], systems, strict=True):
            colour, style = SYSTEM_STYLES[system]
            if ours:
                rows = errors[errors["system"] == system]
                spread = rows["sd"].fillna(0)
                lowest = (rows["mean"] - spread).clip(lower=0)
                ax.fill_between(rows["hour"], lowest, rows["mean"] + spread, color=colour, alpha=0.18, lw=0)
                ax.plot(rows["hour"], rows["mean"], color=colour, label="this run, ± SD", **style)
                ax.axhline(mean_guess[system], color=INK, lw=0.9, ls=":", label="a guess that reads nothing")
            else:
                rows = published[published["system"] == system]
                mark = {"fmt": "D", "mfc": "white", "ms": 5, "capsize": 2, "color": INK}
                ax.errorbar(rows["hour"], rows["value"], rows["sd"], label="published, ± SD", **mark)
            _hours(ax, SYSTEMS[system])
            ax.yaxis.set_major_locator(MaxNLocator(5))
            ax.set(ylim=(0, top), xlim=(hours.min() - 3, hours.max() + 3), facecolor=band.get_facecolor())
        band.axes[0].set_ylabel("error of the case-mix index (%)")
    last = errors.sort_values("hour").groupby("system", sort=False).tail(1)
    said = [
        f"{SYSTEMS[row.system]} {row.mean:.1f} % (a guess that reads nothing: {mean_guess[row.system]:.1f} %)"
        for row in last.itertuples(index=False)
    ]
    caption = f"Error of the case-mix index by hour. In this run, at the last hour: {'; '.join(said)}."
    return stamped(figure, f"two datasets: MIMIC-III and {dataset}", caption)


def cmi_by_size(sizes: pd.DataFrame, published: dict[str, float], dataset: str) -> Figure:
    """Early DRG, Figure 2: error of the case-mix index by the population's size, with 95 % bootstrap intervals.

    `sizes` has system, hour, size, cohort (the stays that are drawn from; NaN: not told), mean, lower and upper; markers of
    the later hour are filled, and populations larger than the cohort are shaded. `published` holds for each system the bound
    below which the paper's errors stay; the titles tell it. All errors are in per cent.
    """
    figure, panels = _systems(sizes)
    for ax, (system, rows) in panels.items():
        colour, style = SYSTEM_STYLES[system]
        looks = ["-", colour], ["--", "white"]  # the later hour, the earlier
        for (hour, part), (ls, fill) in zip(reversed(list(rows.groupby("hour"))), looks, strict=False):
            error = part["mean"] - part["lower"], part["upper"] - part["mean"]
            mark = style | {"ls": ls, "mfc": fill}
            ax.errorbar(part["size"], part["mean"], error, color=colour, capsize=2, label=f"at {hour} hours", **mark)
        title = f"{SYSTEMS[system]}\n(published, of MIMIC-III: under {published[system]:g} %)"
        ax.set(title=title, xlabel="stays in the population")
        cohort, largest = rows["cohort"].iloc[0], rows["size"].max()
        if largest > cohort:
            ax.axvspan(cohort, 1.03 * largest, color="0.93", lw=0, zorder=0)
            ax.set_xlabel(f"stays in the population (shaded: more than the cohort’s {cohort:,.0f})")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.legend()
    figure.axes[0].set_ylabel("error of the case-mix index (%)")
    figure.axes[0].set_ylim(0, None)
    least, most = sizes["size"].min(), sizes["size"].max()
    caption = f"Error of the case-mix index of {least:,} to {most:,} stays, by system and hour, with 95 % bootstrap intervals."
    return stamped(figure, dataset, caption)


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
        ax.plot(rows["hour"], rows["cmi_true"], color=INK, label=label)
        ax.fill_between(rows["hour"], rows["lowest"], rows["highest"], color=colour, alpha=0.18, lw=0)
        ax.plot(rows["hour"], rows["cmi_predicted"], color=colour, label="predicted", **style)
        _hours(ax, SYSTEMS[system])
        millions = rows["stays"].iloc[0] * base_payment / 1e6
        right = ax.secondary_yaxis("right", functions=(lambda y, m=millions: y * m, lambda y, m=millions: y / m))
        right.spines["right"].set_visible(True)
        right.set_ylabel("payment (million $)" if ax is list(panels)[-1] else "")
    figure.axes[0].set_ylabel("case-mix index")
    last = table.sort_values("hour").groupby("system", sort=False).tail(1)
    said = [f"{SYSTEMS[row.system]} {row.cmi_predicted:.2f} (true: {row.cmi_true:.2f})" for row in last.itertuples()]
    return stamped(figure, dataset, f"Predicted case-mix index by hour. At the last hour: {'; '.join(said)}.")


def weight_scatter(weights: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]], dataset: str) -> Figure:
    """Predicted against true relative weight of each stay.

    There is a row of panels for each key of `weights`, a model or a DRG system, and a column for each way to predict
    the weight. `weights` holds for each row the true weights, and a dict of the predicted ones by way. A weight below
    the axis, which a regression may predict, is drawn at the axis's lower end.
    """
    ways = list(next(iter(weights.values()))[1])
    shape = {"rows": len(weights), "columns": len(ways)}
    width, height = ("one column", 40) if len(ways) < 3 else ("two columns", 58)
    figure, grid = canvas(width, height * len(weights) + 14, **shape, sharex=True, sharey=True, squeeze=False)
    true = np.concatenate([values for values, _ in weights.values()])
    guesses = np.concatenate([guess for _, by_way in weights.values() for guess in by_way.values()])
    low, high = true[true > 0].min() / 1.3, max(true.max(), guesses.max()) * 1.3
    for axes, (name, (values, by_way)) in zip(grid, weights.items(), strict=True):
        colour, style = SYSTEM_STYLES.get(name, SYSTEM_STYLES["ms"])
        mark = {"marker": style["marker"], "mfc": style["mfc"], "mec": colour, "ms": 2.6, "mew": 0.5, "alpha": 0.4}
        for ax, guess in zip(axes, by_way.values(), strict=True):
            ax.plot([low, high], [low, high], color=FAINT, ls="--", lw=0.8)
            ax.plot(values.clip(low), guess.clip(low), ls="none", clip_on=False, **mark)
            ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axis.set_minor_locator(NullLocator())
        axes[0].set_ylabel(f"{SYSTEMS.get(name, name)}: predicted weight")
    for top, bottom, way in zip(grid[0], grid[-1], ways, strict=True):
        top.set_title(way)
        bottom.set_xlabel("true relative weight (log)")
    caption = f"Predicted against true relative weight: {', '.join(ways)}. On the dashed line the payment is right."
    return stamped(figure, dataset, caption)


def _systems(table: pd.DataFrame) -> tuple[Figure, dict[Axes, tuple[str, pd.DataFrame]]]:
    """A figure with a panel for each DRG system in the table; by panel, the system and its rows."""
    parts = list(table.groupby("system", sort=False))
    figure, grid = canvas("two columns", 68, columns=len(parts), sharey=True, squeeze=False)
    return figure, dict(zip(grid.flat, parts, strict=True))


def _hours(ax: Axes, name: str) -> None:
    """Label hours on the x axis, draw a line at ICU admission, and add title and legend."""
    ax.axvline(0, color=FAINT, lw=0.6)
    ax.xaxis.set_major_locator(MultipleLocator(12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: minus(f"{x:+.0f}") if x else "0"))
    ax.set(title=name, xlabel="hours from ICU admission")
    ax.legend()
