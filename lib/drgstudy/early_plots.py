"""The figures of the early-DRG study, drawn as those of `plots` are: nothing is computed but layout."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullLocator,
    PercentFormatter,
    StrMethodFormatter,
)

from drgstudy.early_tables import METRICS
from drgstudy.plots import _C, _FAINT, _INK, _OURS, _PUBLISHED, SYSTEMS, _arrow, _axes, _box, _dots, _stamp

_SYSTEMS = {  # DRG system: colour, and how its markers and lines look
    "ms": (_C[0], {"marker": "o", "ls": "-", "mfc": _C[0]}),
    "apr": (_C[3], {"marker": "s", "ls": "--", "mfc": "white"}),
}


def flow_diagram(flow: dict[str, list[dict]], dataset: str) -> Figure:
    """The early-DRG study's Supplementary Figure 1: what each step kept of the stays, a column a DRG system.

    `flow` has a list of {step, kept, removed}, as `early.build` returns it, for "ms" and for "apr".
    """
    depth = max(map(len, flow.values()))
    figure, ax = _axes(8.5, 0.66 * depth + 0.7)
    ax.axis("off")
    for side, system, align in ((-1, "ms", "right"), (1, "apr", "left")):
        for i, step in enumerate(flow[system]):
            fill = _OURS if i == depth - 1 else _PUBLISHED if i == 0 else "white"
            _box(ax, side, -i, f"{step['step'][0].upper()}{step['step'][1:]}\n{step['kept']:,}", fill, width=1.5)
            if i:
                _arrow(ax, (side, 0.72 - i), (side, 0.28 - i))
                removed = f"{step['removed']:,} left out"
                ax.text(side * 1.06, 0.5 - i, removed, ha=align, va="center", color=_FAINT, fontsize=9)
        ax.text(side, 0.42, f"{system.upper()}-DRG cohort", ha="center", va="bottom", weight="bold")
    ax.set(xlim=(-1.8, 1.8), ylim=(-depth + 0.6, 0.8))
    return _stamp(figure, dataset)


def words_known(words: dict[int, pd.Series], dataset: str) -> Figure:
    """How many words are known of a stay at each hour in `words`, the earliest drawn filled; vertical lines: means."""
    figure, ax = _axes(7, 3.2)
    top = max(counts.quantile(0.99) for counts in words.values())
    for i, (hour, counts) in enumerate(words.items()):
        look = (
            {"histtype": "stepfilled", "color": _C[0], "alpha": 0.35}
            if not i
            else {"histtype": "step", "color": _C[1], "lw": 1.8}
        )
        ax.hist(counts, bins=40, range=(0, top), label=f"hour {hour}: {counts.mean():,.0f} on average", **look)
        ax.axvline(counts.mean(), color=_C[i], ls="-" if i else "--", lw=1.2)
    ax.set(xlabel="words known of a stay (the longest 1 % lie beyond)", ylabel="stays")
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.legend(frameon=False)
    return _stamp(figure, dataset)


def note_hours(notes: pd.DataFrame, dataset: str) -> Figure:
    """Notes charted in each hour around ICU admission, a panel for each of the four most frequent categories.

    `notes` has hours and category; what was charted more than a day before admission is not drawn.
    """
    figure, axes = _axes(8, 4.2, rows=2, columns=2, sharex=True)
    common = notes["category"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    bins = np.arange(-24, max(1, np.ceil(notes["hours"].max())) + 1)
    for ax, category in zip(axes.flat, common, strict=False):
        hours = notes.loc[notes["category"] == category, "hours"]
        ax.hist(hours, bins, color=_C[0])
        ax.axvline(0, color=_INK, lw=1)
        ax.set(title=f"{category}: {len(hours):,}", xticks=np.arange(-24, bins[-1] + 1, 12), xlim=(bins[0], bins[-1]))
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for ax in axes.flat[len(common) :]:
        ax.axis("off")
    for ax in axes[1]:
        ax.set_xlabel("hours after ICU admission")
    for ax in axes[:, 0]:
        ax.set_ylabel("notes in an hour")
    return _stamp(figure, dataset)


def measured_by_hour(shares: pd.DataFrame, dataset: str) -> Figure:
    """The share of stays with a value in each hour: a row a group, a column an hour after ICU admission."""
    figure, ax = _axes(10, 1.4 + 0.21 * len(shares))
    bar = {"label": "stays with a value (%)", "format": PercentFormatter(1, symbol=""), "shrink": 0.6, "pad": 0.01}
    sns.heatmap(shares, cmap="Blues", vmin=0, vmax=1, yticklabels=True, xticklabels=6, cbar_kws=bar, ax=ax)
    ax.set_xticks(np.arange(0, 49, 6), np.arange(0, 49, 6), rotation=0)
    ax.set(xlabel="hours after ICU admission", ylabel="")
    ax.tick_params(length=0)
    return _stamp(figure, dataset)


def course(stay: pd.DataFrame, units: pd.Series, dataset: str) -> Figure:
    """One stay, hour by hour: a panel a group, dots where it was measured, a line where a value still stands.

    `stay` has an hour a row and a group a column, NaN where not measured; `units` is by group.
    """
    figure, axes = _axes(10, 0.7 + 1.05 * stay.shape[1], rows=stay.shape[1], sharex=True, squeeze=False)
    for ax, (name, values) in zip(axes[:, 0], stay.items(), strict=True):
        ax.step(stay.index, values.ffill(), where="post", color=_C[0], lw=1)
        ax.plot(stay.index, values, "o", color=_INK, ms=3.5)
        ax.set_title(f"{name} ({units[name]})", loc="left", fontsize=9, fontweight="normal", color=_FAINT, pad=2)
        ax.margins(y=0.2)
    axes[-1, 0].set(xlabel="hours after ICU admission", xlim=(-0.5, 48), xticks=np.arange(0, 49, 6))
    return _stamp(figure, dataset)


def models(table: pd.DataFrame, published: pd.DataFrame, dataset: str) -> Figure:
    """Table 2 on all DRGs: the published models above, this run's below, a panel a metric; whiskers are ± SD.

    `table` is as `early_tables.table2` returns it, `published` as `early_tables.published("Table 2")`.
    """
    theirs = published.assign(run=published["model"].str.lower().str.split().str[0] + "-" + published["system"])
    ours = table.assign(run=table["run"] + [f"-{h}" if h != 48 else "" for h in table["hours"]])
    bands = [(theirs, "MIMIC-III (published)", _PUBLISHED), (ours, f"{dataset} (this run)", _OURS)]
    heights = [1.2 + 0.3 * rows["run"].nunique() for rows, *_ in bands]
    figure = plt.figure(figsize=(10, sum(heights)), layout="constrained")
    plt.close(figure)
    for band, (rows, title, fill) in zip(figure.subfigures(2, 1, height_ratios=heights), bands, strict=True):
        reach = rows["sd"].fillna(0)
        name = rows["system"].map(SYSTEMS) + ": " + rows["model"]
        rows = rows.assign(lower=rows["value"] - reach, upper=rows["value"] + reach, model=name)
        rows = rows[rows["drg_set"] == "All DRGs"].sort_values("system", ascending=False, kind="stable")
        band.set_facecolor(fill)
        band.suptitle(f"{title}; whiskers ± SD over the models", fontweight="bold", fontsize=10, x=0.01, ha="left")
        for ax, (metric, label) in zip(band.subplots(1, 4, sharey=True), METRICS.items(), strict=True):
            _dots(ax, rows[rows["metric"] == metric], "value", "{:.3f}", list(rows["run"].unique()))
            ax.set(xlabel=label, facecolor=fill)
    return _stamp(figure, f"two datasets: MIMIC-III and {dataset}")


def cmi_by_hour(errors: pd.DataFrame, published: pd.DataFrame, blind: dict[str, float], dataset: str) -> Figure:
    """Early DRG, Figure 1: error of the case-mix index by hour, mean and standard deviation over the fold models.

    `errors` has system, hour, mean and sd; `published` system, hour, value and sd; `blind` holds each system's error of a
    guess that reads nothing.
    """
    figure, panels = _systems(errors)
    for ax, (system, rows) in panels.items():
        colour, style = _SYSTEMS[system]
        spread = rows["sd"].fillna(0)
        band = (rows["mean"] - spread).clip(lower=0), rows["mean"] + spread
        ax.fill_between(rows["hour"], *band, color=colour, alpha=0.18, lw=0)
        ax.plot(rows["hour"], rows["mean"], color=colour, ms=5.5, label="this run, ± SD", **style)
        ax.axhline(blind[system], color=_INK, lw=1.2, ls=":", label="a guess that reads nothing")
        theirs = published[published["system"] == system]
        paper = {"fmt": "D", "mfc": "white", "ms": 7, "capsize": 3, "color": _FAINT, "zorder": 3}
        ax.errorbar(theirs["hour"], theirs["value"], theirs["sd"], label="published, ± SD", **paper)
        _hours(ax, SYSTEMS[system])
    figure.axes[0].set_ylabel("error of the case-mix index (%)")
    figure.axes[0].set_ylim(0, None)
    return _stamp(figure, dataset)


def cmi_by_size(sizes: pd.DataFrame, published: dict[str, float], dataset: str) -> Figure:
    """Early DRG, Figure 2: error of the case-mix index by the population's size, with 95 % bootstrap intervals.

    `sizes` has system, hour (the later one filled), size, mean, lower and upper; `published`
    holds the bound under which each system's errors stay in the paper.
    """
    figure, panels = _systems(sizes)
    for ax, (system, rows) in panels.items():
        colour, style = _SYSTEMS[system]
        looks = ["-", colour], ["--", "white"]  # the later hour, the earlier
        for (hour, part), (ls, fill) in zip(reversed(list(rows.groupby("hour"))), looks, strict=False):
            error = part["mean"] - part["lower"], part["upper"] - part["mean"]
            mark = style | {"ls": ls, "mfc": fill}
            ax.errorbar(part["size"], part["mean"], error, color=colour, capsize=3, label=f"at {hour} hours", **mark)
        bound = published[system]
        ax.axhline(bound, color=_FAINT, lw=1.4, ls="-.", label=f"published: under {bound:g} %")
        ax.set(title=SYSTEMS[system], xlabel="stays in the population")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.legend(frameon=False)
    figure.axes[0].set_ylabel("error of the case-mix index (%)")
    figure.axes[0].set_ylim(0, None)
    return _stamp(figure, dataset)


def cmi_payments(table: pd.DataFrame, base: float, dataset: str) -> Figure:
    """Early DRG, Figure 3: true and predicted case-mix index of sampled stays, and what they are paid at `base` dollars.

    `table` has system and the columns of `casemix.payments`; the band spans the fold models.
    """
    figure, panels = _systems(table)
    for ax, (system, rows) in panels.items():
        colour, style = _SYSTEMS[system]
        label = f"true, {rows['stays'].iloc[0]:,} stays"
        ax.plot(rows["hour"], rows["cmi_true"], color=_INK, lw=1.6, label=label)
        ax.fill_between(rows["hour"], rows["lowest"], rows["highest"], color=colour, alpha=0.18, lw=0)
        ax.plot(rows["hour"], rows["cmi_predicted"], color=colour, ms=5.5, label="predicted", **style)
        _hours(ax, SYSTEMS[system])
        millions = rows["stays"].iloc[0] * base / 1e6
        right = ax.secondary_yaxis("right", functions=(lambda y, m=millions: y * m, lambda y, m=millions: y / m))
        right.spines["right"].set_visible(True)
        right.set_ylabel("payment (million $)" if ax is list(panels)[-1] else "")
    figure.axes[0].set_ylabel("case-mix index")
    return _stamp(figure, dataset)


def regression_scatter(weights: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]], dataset: str) -> Figure:
    """Predicted against true relative weight of each stay: a row a system, a column a way to predict it.

    `weights` holds for each system the true weights and the predicted ones by way. A weight below the axis, as a
    regression may predict it, is drawn at its lower end.
    """
    ways = list(next(iter(weights.values()))[1])
    shape = {"rows": len(weights), "columns": len(ways)}
    figure, grid = _axes(3 * len(ways), 3.1 * len(weights) + 0.2, **shape, sharex=True, sharey=True, squeeze=False)
    true = np.concatenate([values for values, _ in weights.values()])
    guesses = np.concatenate([guess for _, by_way in weights.values() for guess in by_way.values()])
    low, high = true[true > 0].min() / 1.3, max(true.max(), guesses.max()) * 1.3
    for axes, (system, (values, by_way)) in zip(grid, weights.items(), strict=True):
        colour, style = _SYSTEMS[system]
        for ax, guess in zip(axes, by_way.values(), strict=True):
            ax.plot([low, high], [low, high], color=_FAINT, ls="--", lw=1)
            mark = {"marker": style["marker"], "mfc": style["mfc"], "mec": colour}
            ax.plot(values.clip(low), guess.clip(low), ls="none", ms=3.5, alpha=0.35, clip_on=False, **mark)
            ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axis.set_minor_locator(NullLocator())
        axes[0].set_ylabel(f"{SYSTEMS[system]}: predicted weight")
    for top, bottom, way in zip(grid[0], grid[-1], ways, strict=True):
        top.set_title(way)
        bottom.set_xlabel("true relative weight (log scale)")
    return _stamp(figure, dataset)


def _systems(table: pd.DataFrame) -> tuple[Figure, dict[Axes, tuple[str, pd.DataFrame]]]:
    """A panel for each DRG system in the table, with its rows."""
    parts = list(table.groupby("system", sort=False))
    figure, grid = _axes(1 + 4.2 * len(parts), 3.9, columns=len(parts), sharey=True, squeeze=False)
    return figure, dict(zip(grid.flat, parts, strict=True))


def _hours(ax: Axes, name: str) -> None:
    """Hours on the x axis, a line at ICU admission, the legend."""
    ax.axvline(0, color=_FAINT, lw=0.8)
    ax.xaxis.set_major_locator(MultipleLocator(12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+.0f}".replace("-", "−") if x else "0"))
    ax.set(title=name, xlabel="hours from ICU admission")
    ax.legend(frameon=False)
