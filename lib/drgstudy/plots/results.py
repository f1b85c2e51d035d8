"""How well the models name the DRG, compared with what is published and with each other."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from drgstudy.disclosure import masked_matrix
from drgstudy.metrics import METRICS
from drgstudy.plots.canvas import bands, canvas, dots, log_counts, stamped
from drgstudy.plots.style import ACCURACY_RANGES, FAINT, INK, PALETTE, THEIRS, in_order, style_of
from drgstudy.spline import SmoothingSpline

VERDICTS = {  # colour, and style of the marker
    "seen here": (PALETTE[2], {"marker": "o"}),
    "contradicted here": (PALETTE[3], {"marker": "X"}),
    "undecided": ("0.45", {"marker": "s", "mfc": "white"}),
}
CLAIM_AXES = {
    "score": "difference of the scores or shares",
    "stays": "difference in training stays",
    "points": "error of the case-mix index, percentage points",
    "weight": "mean absolute error, relative weight",
}


def learning_curve(histories: dict[str, list[dict]], dataset: str) -> Figure:
    """Training loss by step, one panel for each run; dashed, its score on the validation stays, if it has any.

    `histories` holds each run's ``cost["history"]``: entries {"step", "loss"} and {"step", "eval_accuracy"} (or
    "eval_mean_absolute_error").
    """
    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    figure, axes = canvas(max(5, 3.4 * columns), 3 * rows, rows=rows, columns=columns, squeeze=False)
    for ax in axes.flat[len(histories) :]:
        ax.axis("off")
    for ax, run in zip(axes.flat, in_order(histories), strict=False):
        log = pd.DataFrame(histories[run]).set_index("step")
        if "loss" in log:  # else too short a run to have logged any
            log["loss"].dropna().plot(ax=ax, color=style_of(run)[1])
        number = "eval_mean_absolute_error" in log
        loss = "mean squared error" if number else "nats"
        ax.set(title=style_of(run)[0], xlabel="step", ylabel=f"training loss ({loss})")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for judged in log.columns.intersection(["eval_accuracy", "eval_mean_absolute_error"]):
            right = ax.twinx()
            log[judged].dropna().plot(ax=right, color=INK, ls="--", marker=".")
            right.set_ylabel(f"validation {judged.removeprefix('eval_').replace('_', ' ')} (dashed)")
            right.spines["right"].set_visible(True)
    return stamped(figure, dataset)


def beside_published(
    theirs: pd.DataFrame, ours: pd.DataFrame, metrics: dict[str, str], titles: list[str], dataset: str
) -> Figure:
    """All models on all DRGs, one panel for each metric: published ones above, this run's below, on axes of their own.

    Parameters
    ----------
    theirs, ours : DataFrame
        run, model, drg_set, metric, value, lower and upper; models in the order in which they are shown.
    metrics : dict of str to str
        Names of the metrics that are shown.
    titles : two str
        For each band, whose models it shows and what the whiskers are.
    """
    tables = [rows[rows["drg_set"] == "All DRGs"] for rows in (theirs, ours)]
    heights = [1.3 + 0.32 * rows["run"].nunique() for rows in tables]
    figure, parts = bands(6 + len(metrics), heights, titles)
    for band, rows in zip(parts, tables, strict=True):
        for ax, (metric, name) in zip(band.subplots(1, len(metrics), sharey=True), metrics.items(), strict=True):
            dots(ax, rows[rows["metric"] == metric], "value", "{:.3f}", list(rows["run"].unique()))
            ax.set(xlabel=name, facecolor=band.get_facecolor())
    return stamped(figure, f"two datasets: {titles[0].split(' (')[0]} and {dataset}")


def differences(table: pd.DataFrame, name: str, dataset: str) -> Figure:
    """The model `name` minus each other one, one panel for each metric; `table` is from `comparisons.differences`."""
    figure, grid = canvas(9, 2.4 + 0.55 * table["run"].nunique(), rows=2, columns=3, sharey=True)
    for ax, (metric, label) in zip(grid.flat, METRICS.items(), strict=True):
        ax.axvline(0, color=FAINT, lw=1, ls="--")
        dots(ax, table[table["metric"] == metric], "difference", "{:+.3f}")
        ax.set_title(label)
    figure.suptitle(f"{name} minus the other model, 95 % paired interval (right of 0: {name} is better)", fontsize=10)
    return stamped(figure, dataset)


def claims(table: pd.DataFrame, dataset: str) -> Figure:
    """Each claim that has an interval, as a difference from what it is compared with, beside the published size.

    `table` is from `claims.judge`. Claims of one unit share a panel; a grey beam is what counts as level.
    """
    rows = table[table["lower"].notna()]
    parts = {unit: rows[rows["unit"] == unit] for unit in CLAIM_AXES if unit in set(rows["unit"])}
    heights = [0.42 * len(part) + 0.7 for part in parts.values()]
    figure, grid = canvas(9, sum(heights) + 0.6, rows=len(parts), squeeze=False, height_ratios=heights)
    for ax, (unit, part) in zip(grid.flat, parts.items(), strict=True):
        ax.axvline(0, color=FAINT, lw=1, ls="--")
        for y, row in enumerate(part.itertuples()):
            colour, style = VERDICTS[row.verdict]
            if row.direction == "level":
                ax.barh(y, 2 * row.margin, 0.7, -row.margin, color="0.9")
            ax.plot(row.published - row.bound, y, "|", color=PALETTE[0], ms=15, mew=2)
            ax.plot([row.lower - row.bound, row.upper - row.bound], [y, y], color=colour, lw=1.8)
            ax.plot(row.value - row.bound, y, color=colour, ms=6.5, ls="", **style)
        ax.set_yticks(range(len(part)), [textwrap.fill(claim, 52) for claim in part["claim"]], fontsize=8)
        ax.set_ylim(len(part) - 0.4, -0.6)
        ax.set_xlabel(CLAIM_AXES[unit] + (", minus the bound where one is claimed" if part["bound"].any() else ""))
    keys = [Line2D([], [], color=c, ms=6.5, label=name, **style) for name, (c, style) in VERDICTS.items()]
    keys.append(Line2D([], [], color=PALETTE[0], marker="|", ms=13, mew=2, ls="", label="published"))
    figure.legend(handles=keys, frameon=False, loc="outside upper center", ncols=4)
    theirs = {"DRG-LLaMA": "MIMIC-IV", "early DRG": "MIMIC-III"}[table["paper"].iloc[0]]
    return stamped(figure, f"two datasets: {theirs} (published) and {dataset}")


def severity_confusion(counts: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Stays by true (rows) and predicted CC/MCC label (columns), shaded by share of the row, small counts masked."""
    figure, ax = canvas(6.6, 3.9)
    shown, share = masked_matrix(counts, mask_below)
    numbers = shown.fillna(f"< {mask_below}").mask(shown.isna() & (counts >= mask_below), "–")
    sns.heatmap(share, ax=ax, cmap="Blues", vmin=0, vmax=1, annot=numbers, fmt="", cbar=False, linewidths=0.5)
    ax.set(xlabel="predicted CC/MCC label", ylabel="true CC/MCC label")
    ax.tick_params(axis="x", rotation=20)
    return stamped(figure, dataset)


def sweep(table: pd.DataFrame, published: pd.DataFrame, dataset: str) -> Figure:
    """Table 2 as lines: three metrics by maximum input tokens, a line for each model size, each dataset on its axes.

    Both tables have size, max_tokens, metric, value and sd.
    """
    titles = [f"{whose}; whiskers ± 1.96 SD" for whose in ("MIMIC-IV (published)", f"{dataset} (this run)")]
    figure, parts = bands(9, [3, 3], titles)
    for band, rows in zip(parts, (published, table), strict=True):
        for ax, metric in zip(band.subplots(1, 3), ("macro_f1", "acc_at_1", "acc_at_5"), strict=True):
            for i, (size, line) in enumerate(rows[rows["metric"] == metric].groupby("size", sort=False)):
                line = line.sort_values("max_tokens")
                style = {"color": PALETTE[2 * i], "marker": "os^D"[i], "ls": ["-", "--", "-.", ":"][i], "capsize": 3}
                ax.errorbar(line["max_tokens"], line["value"], 1.96 * line["sd"], lw=1.8, label=size, **style)
            ax.set_xscale("log")
            ticks = sorted(set(rows["max_tokens"]))
            ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set(xlabel="maximum input tokens", title=METRICS[metric], facecolor=band.get_facecolor())
        band.legend(*ax.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    return stamped(figure, f"two datasets: MIMIC-IV and {dataset}")


def by_share(table: pd.DataFrame, n: int, dataset: str) -> Figure:
    """Top-1 accuracy of models trained on parts of the training stays: a point each training, a line through the means.

    `table` has model, share and value; `n` is the number of training stays.
    """
    figure, ax = canvas(6.4, 4)
    for model in in_order(table["model"].unique()):
        name, colour, marker = style_of(model)
        rows = table[table["model"] == model]
        ax.scatter(rows["share"] * n, rows["value"], color=colour, marker=marker, s=22, alpha=0.6, lw=0)
        mean = rows.groupby("share")["value"].mean()
        ax.plot(mean.index * n, mean, color=colour, marker=marker, label=name)
    ticks = sorted(table["share"].unique())
    ax.set(xscale="log", xlabel="training stays (logarithmic)", ylabel="top-1 accuracy")
    ax.set_xticks([share * n for share in ticks], [f"{share * n:,.0f}\n({100 * share:.0f} %)" for share in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(frameon=False)
    return stamped(figure, dataset)


def split_effect(table: pd.DataFrame, dataset: str) -> Figure:
    """Each model's scores in three metrics, trained with the test patients' other stays (filled) and without them (open).

    `table` is as `comparisons.split_effect` returns it.
    """
    figure, grid = canvas(9, 1.5 + 0.5 * table["run"].nunique(), columns=3, sharey=True)
    runs = in_order(table["run"].unique())
    for ax, metric in zip(grid, ("macro_f1", "acc_at_1", "acc_at_5"), strict=True):
        rows = table[table["metric"] == metric].set_index("run").reindex(runs)
        for y, (run, row) in enumerate(rows.iterrows()):
            _, colour, marker = style_of(run)
            ax.plot([row["together"], row["apart"]], [y, y], color=colour, lw=1.5)
            ax.plot(row["together"], y, marker, color=colour, ms=8)
            ax.plot(row["apart"], y, marker, color=colour, ms=8, mfc="white", mew=1.6)
        ax.set_yticks(range(len(rows)), rows["model"])
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=METRICS[metric])
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    figure.suptitle("filled: other stays of the patients were trained on; open: they were not", fontsize=10)
    return stamped(figure, dataset)


def accuracy_by_rank(drgs: pd.DataFrame, spline: SmoothingSpline, weighted: Callable, dataset: str) -> Figure:
    """Figure 2a: top-5 accuracy of each DRG by its rank in training cases, with the smoothing spline and its interval.

    `drgs` is as `results.by_drg` returns it; `spline` is fitted to its columns rank and acc_at_5, and `weighted`, the second
    line, to the stays behind them (`spline.binomial_curve`).
    """
    figure, ax = canvas(7.5, 4.2)
    ax.fill_between(spline.x, spline.lower, spline.upper, color="0.82", lw=0, label="95 % Bayesian interval")
    ax.plot(drgs["rank"], drgs["acc_at_5"], "o", color=INK, ms=3.5, mew=0, alpha=0.65, label="one DRG")
    x = np.linspace(spline.x[0], spline.x[-1], 400)
    ax.plot(x, spline.curve(x), color=PALETTE[0], lw=2.2, label=f"spline: df {spline.df:.2f}, R² {spline.r2:.3f}")
    ax.plot(x, weighted(x), color=PALETTE[2], lw=2.2, ls="--", label="each test stay counts as one")
    ax.set(xlabel="rank of the DRG by training cases (1: most)", ylabel="top-5 accuracy in the test stays (%)")
    ax.set_ylim(-0.04, 1.04)
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    return stamped(figure, dataset)


def cases_by_accuracy(drgs: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Figure 2b: training cases of the DRGs by range of top-5 accuracy; whiskers reach 1.5 interquartile ranges.

    `drgs` is as `results.by_drg` returns it; those with fewer cases than `mask_below` are left out.
    """
    drgs = drgs[drgs["train_cases"] >= mask_below]
    figure, ax = canvas(7.5, 3.8)
    groups = {name: drgs.loc[drgs["acc_range"] == name, "train_cases"] for name in ACCURACY_RANGES}
    names = [f"{name} %\n{len(cases)} DRG{'s' * (len(cases) != 1)}" for name, cases in groups.items()]
    box, median = {"facecolor": THEIRS}, {"color": PALETTE[2], "lw": 2.2}
    ax.boxplot(groups.values(), tick_labels=names, patch_artist=True, widths=0.55, boxprops=box, medianprops=median)
    ax.set(xlabel="top-5 accuracy of the DRG", ylabel="training cases of the DRG (log scale)")
    log_counts(ax)
    return stamped(figure, dataset)


def case_density(cases: pd.Series, dataset: str, mask_below: int = 0) -> Figure:
    """Supplementary Figure 1: density of the DRGs' training cases, their median, and how many DRGs exceed 2,000.

    DRGs with fewer cases than `mask_below` are not drawn.
    """
    figure, ax = canvas(7.5, 3.6)
    drawn = cases[cases >= mask_below]
    sns.kdeplot(drawn, ax=ax, cut=0, fill=True, color=PALETTE[0], lw=1.8)
    sns.rugplot(drawn, ax=ax, color=INK, height=0.03, lw=0.7)
    if cases.median() >= mask_below:
        ax.axvline(cases.median(), color=INK, ls="--", lw=1.3, label=f"median: {cases.median():,g} cases")
    ax.plot([], [], " ", label=f"above 2,000 cases: {(cases > 2000).sum()} of {len(cases)} DRGs")
    ax.set(xlabel="training cases of the DRG", ylabel="density", xlim=(0, None))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.legend(frameon=False)
    return stamped(figure, dataset)
