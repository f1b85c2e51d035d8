"""How well the models name the DRG, compared with what is published and with each other."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from drgstudy.disclosure import masked_matrix
from drgstudy.metrics import METRICS
from drgstudy.plots.canvas import bands, canvas, dots, log_counts, minus, percent, stamped
from drgstudy.plots.style import ACCURACY_RANGES, FAINT, INK, LINES, OURS, PALETTE, SMALL, THEIRS, in_order, style_of
from drgstudy.spline import SmoothingSpline

VERDICTS = {  # colour, and style of the marker
    "seen here": (PALETTE[2], {"marker": "o"}),
    "contradicted here": (PALETTE[3], {"marker": "X"}),
    "undecided": ("0.45", {"marker": "s", "mfc": "white"}),
}
CLAIM_AXES = {
    "score": "difference of the scores or shares",
    "stays": "difference in training stays",
    "points": "error of the case-mix index, points",
    "weight": "mean absolute error, relative weight",
}


def learning_curve(histories: dict[str, list[dict]], dataset: str, names: dict | None = None) -> Figure:
    """Training loss by step, one panel for each run; dashed, its score on the validation stays, if it has any.

    `histories` holds each run's ``cost["history"]``: entries {"step", "loss"} and {"step", "eval_accuracy"} (or
    "eval_mean_absolute_error").
    """
    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    figure, axes = canvas(
        "one column" if columns == 1 else "two columns", 4 + 42 * rows, rows=rows, columns=columns, squeeze=False
    )
    for ax in axes.flat[len(histories) :]:
        ax.remove()
    for ax, run in zip(axes.flat, in_order(histories), strict=False):
        log = pd.DataFrame(histories[run]).set_index("step")
        if "loss" in log:  # else too short a run to have logged any
            log["loss"].dropna().plot(ax=ax, color=style_of(run)[1], marker=".")
        else:
            ax.set_yticks([])
        number = "eval_mean_absolute_error" in log
        loss = "mean squared error" if number else "nats"
        ax.set(title=style_of(run, names)[0], xlabel="step", ylabel=f"training loss ({loss})")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for judged in log.columns.intersection(["eval_accuracy", "eval_mean_absolute_error"]):
            right = ax.twinx()
            log[judged].dropna().plot(ax=right, color=INK, ls="--", marker=".")
            right.set_ylabel(f"validation {judged.removeprefix('eval_').replace('_', ' ')} (dashed)")
            right.spines["right"].set_visible(True)
    said = ", ".join(style_of(run, names)[0] for run in in_order(histories))
    return stamped(figure, dataset, f"Training loss by step, and dashed the score on the validation stays: {said}.")


def forest(table: pd.DataFrame, reference: str, dataset: str) -> Figure:
    """Top-1 accuracy and macro-F1 of all models on all DRGs, with 95 % intervals; a line goes through one of them.

    `table` is as `results.table1` returns it. `reference` is the run at which the line stands, the plainest model;
    there is none if it did not run.
    """
    rows = table[table["drg_set"] == "All DRGs"]
    figure, axes = canvas("two columns", 13 + 4.8 * rows["run"].nunique(), columns=2, sharey=True)
    line = f" (dashed: {style_of(reference)[0]})" if reference in set(rows["run"]) else ""
    for ax, metric in zip(axes, ("acc_at_1", "macro_f1"), strict=True):
        shown = rows[rows["metric"] == metric]
        for value in shown.loc[shown["run"] == reference, "value"]:
            ax.axvline(value, color=FAINT, lw=0.8, ls="--", zorder=0)
        dots(ax, shown, "value", "{:.3f}")
        ax.set(xlabel=f"{METRICS[metric]}{line}")
    return stamped(figure, dataset, f"{_ranked(rows, 'acc_at_1')} {_ranked(rows, 'macro_f1')} Bars: 95 % intervals.")


def _ranked(rows: pd.DataFrame, metric: str) -> str:
    """A sentence that names all models by their values in a metric, the highest first."""
    shown = rows[(rows["metric"] == metric) & rows["value"].notna()].sort_values(
        "value", ascending=False, kind="stable"
    )
    name = METRICS.get(metric, metric)
    return f"{name[0].upper()}{name[1:]}: {', '.join(f'{row.model} {row.value:.3f}' for row in shown.itertuples())}."


def beside_published(
    theirs: pd.DataFrame, ours: pd.DataFrame, metrics: dict[str, str], titles: list[str], dataset: str
) -> Figure:
    """All models on all DRGs, one panel for each metric: published ones above, this run's below, on equal axes.

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
    ends = pd.concat(tables).groupby("metric")[["value", "lower", "upper"]]
    reach = pd.concat([ends.min().min(axis=1), ends.max().max(axis=1)], axis=1)
    figure, parts = bands([13 + 4.4 * rows["run"].nunique() for rows in tables], titles)
    for band, rows in zip(parts, tables, strict=True):
        for ax, (metric, name) in zip(band.subplots(1, len(metrics), sharey=True), metrics.items(), strict=True):
            dots(ax, rows[rows["metric"] == metric], "value", "{:.3f}", list(rows["run"].unique()))
            low, high = reach.loc[metric]
            pad = 0.06 * (high - low) or 0.05
            ax.set(xlabel=name, facecolor=band.get_facecolor(), xlim=(low - pad, high + pad))
    first = next(iter(metrics))
    caption = f"Published, above: {_ranked(tables[0], first)} This run, below: {_ranked(tables[1], first)}"
    return stamped(figure, f"two datasets: {titles[0].split(' (')[0]} and {dataset}", caption)


def differences(table: pd.DataFrame, name: str, dataset: str) -> Figure:
    """The model `name` minus each other one, one panel for each metric; `table` is from `comparisons.differences`."""
    height = 20 + 2 * 4.4 * table["run"].nunique()
    figure, grid = canvas("two columns", height, rows=2, columns=3, sharey=True)
    for ax, (metric, label) in zip(grid.flat, METRICS.items(), strict=True):
        ax.axvline(0, color=FAINT, lw=0.8, ls="--", zorder=0)
        dots(ax, table[table["metric"] == metric], "difference", "{:+.3f}")
        ax.set_title(label)
    figure.suptitle(f"{name} minus the other model, 95 % paired interval (right of 0: {name} is better)")
    top1 = _intervals(table[table["metric"] == "acc_at_1"].itertuples())
    caption = f"{name} minus each other model in six metrics. In top-1 accuracy: {top1}."
    return stamped(figure, dataset, caption)


def _intervals(rows: Iterable) -> str:
    """Each row's model with its difference and interval, where these are shown."""
    told = [row for row in rows if row.difference == row.difference]
    numbers = [minus(f"{row.difference:+.3f} ({row.lower:+.3f} to {row.upper:+.3f})") for row in told]
    return "; ".join(f"{row.model} {said}" for row, said in zip(told, numbers, strict=True)) or "none is shown"


def claims(table: pd.DataFrame, dataset: str) -> Figure:
    """Each claim that has an interval, as a difference from its reference: left the published size, right ours.

    `table` is from `claims.judge`. Claims of one unit share an axis; a grey beam is what counts as level.
    """
    rows = table[table["lower"].notna()]
    parts = {unit: rows[rows["unit"] == unit] for unit in CLAIM_AXES if unit in set(rows["unit"])}
    heights = [len(part) for part in parts.values()]
    shape = {"rows": len(parts), "columns": 2, "squeeze": False, "height_ratios": heights}
    figure, grid = canvas("two columns", 6 * sum(heights) + 15 * len(parts) + 12, sharex="row", sharey="row", **shape)
    theirs = {"DRG-LLaMA": "MIMIC-IV", "early DRG": "MIMIC-III"}[table["paper"].iloc[0]]
    for (left, right), (unit, part) in zip(grid, parts.items(), strict=True):
        for ax, fill in ((left, THEIRS), (right, OURS)):
            ax.set_facecolor(fill)
            ax.axvline(0, color=FAINT, lw=0.8, ls="--", zorder=0)
        for y, row in enumerate(part.itertuples()):
            colour, style = VERDICTS[row.verdict]
            if row.direction == "level":
                right.barh(y, 2 * row.margin, 0.7, -row.margin, color="0.85")
            left.plot(row.published - row.bound, y, "|", color=PALETTE[0], ms=8, mew=1.6)
            right.plot([row.lower - row.bound, row.upper - row.bound], [y, y], color=colour)
            right.plot(row.value - row.bound, y, color=colour, ms=4.5, ls="", **style)
        left.set_yticks(range(len(part)), [textwrap.fill(claim, 60) for claim in part["claim"]], fontsize=SMALL)
        left.set_ylim(len(part) - 0.4, -0.6)
        minus_bound = "\nminus the bound where one is claimed" if part["bound"].any() else ""
        for ax in (left, right):
            ax.set_xlabel(CLAIM_AXES[unit] + minus_bound)
    grid[0, 0].set_title(f"published: {theirs}")
    grid[0, 1].set_title(f"this run: {dataset}")
    keys = [Line2D([], [], color=c, ms=4.5, label=name, **style) for name, (c, style) in VERDICTS.items()]
    keys.append(Line2D([], [], color=PALETTE[0], marker="|", ms=8, mew=1.6, ls="", label="published"))
    figure.legend(handles=keys, loc="outside upper center", ncols=4)
    said = ", ".join(
        f"{n} {verdict}" for verdict, n in rows["verdict"].value_counts().reindex(VERDICTS).dropna().astype(int).items()
    )
    caption = f"The paper’s claims that have an interval, beside their published sizes: {said}."
    return stamped(figure, f"two datasets: {theirs} (published) and {dataset}", caption)


def severity_confusion(counts: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Stays by true (rows) and predicted CC/MCC label (columns), shaded by share of the row, small counts masked."""
    figure, ax = canvas("one column", 62)
    shown, share = masked_matrix(counts, mask_below)
    numbers = shown.fillna(f"< {mask_below}").mask(shown.isna() & (counts >= mask_below), "–")
    sns.heatmap(share, ax=ax, cmap="Blues", vmin=0, vmax=1, annot=numbers, fmt="", cbar=False, linewidths=0.5)
    ax.set(xlabel="predicted CC/MCC label", ylabel="true CC/MCC label")
    ax.tick_params(axis="x", rotation=20)
    return stamped(
        figure, dataset, "Test stays by true (rows) and predicted (columns) CC/MCC label; the diagonal is right."
    )


def sweep(table: pd.DataFrame, published: pd.DataFrame, dataset: str) -> Figure:
    """Table 2 as lines: three metrics by maximum input tokens, a line for each model size, each dataset on its axes.

    Both tables have size, max_tokens, metric, value and sd.
    """
    titles = [
        f"{whose}; whiskers ± 1.96 SD; axes of its own" for whose in ("MIMIC-IV (published)", f"{dataset} (this run)")
    ]
    figure, parts = bands([52, 52], titles)
    for band, rows in zip(parts, (published, table), strict=True):
        for ax, metric in zip(band.subplots(1, 3), ("macro_f1", "acc_at_1", "acc_at_5"), strict=True):
            for i, (size, line) in enumerate(rows[rows["metric"] == metric].groupby("size", sort=False)):
                line = line.sort_values("max_tokens")
                style = {"color": PALETTE[2 * i], "marker": "os^D"[i], "ls": LINES[i], "capsize": 2}
                ax.errorbar(line["max_tokens"], line["value"], 1.96 * line["sd"], label=size, **style)
            ax.set_xscale("log")
            ticks = sorted(set(rows["max_tokens"]))
            ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set(xlabel="maximum input tokens (log scale)", title=METRICS[metric], facecolor=band.get_facecolor())
        band.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    best = table[table["metric"] == "acc_at_1"].sort_values("value").iloc[-1]
    caption = (
        "Macro-F1, top-1 and top-5 accuracy by maximum input tokens and size of the model, published and in this run. "
        f"Here top-1 accuracy is highest, {best['value']:.3f}, with {best['size']} at {best['max_tokens']:,} tokens."
    )
    return stamped(figure, f"two datasets: MIMIC-IV and {dataset}", caption)


def by_share(table: pd.DataFrame, n: int, dataset: str, names: dict | None = None) -> Figure:
    """Top-1 accuracy of models trained on parts of the training stays: a point each training, a line through the means.

    `table` has model, share and value; `n` is the number of training stays.
    """
    figure, ax = canvas("one column", 62)
    said = []
    for style, model in enumerate(in_order(table["model"].unique())):
        name, colour, marker = style_of(model, names)
        rows = table[table["model"] == model]
        ax.scatter(rows["share"] * n, rows["value"], color=colour, marker=marker, s=10, alpha=0.6, lw=0)
        mean = rows.groupby("share")["value"].mean()
        ax.plot(mean.index * n, mean, color=colour, marker=marker, ls=LINES[style % 5], label=name)
        said.append(f"{name} {100 * mean.iloc[0]:.0f} to {100 * mean.iloc[-1]:.0f} %")
    ticks = sorted(table["share"].unique())
    ax.set(xscale="log", xlabel="training stays (log scale), and their share", ylabel="top-1 accuracy (%)")
    ax.set_xticks([share * n for share in ticks], [f"{share * n:,.0f}\n({100 * share:.0f} %)" for share in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    percent(ax.yaxis)
    figure.legend(loc="outside upper center", ncols=3)
    shares = f"{ticks[0] * n:,.0f} to {ticks[-1] * n:,.0f}"
    return stamped(figure, dataset, f"Top-1 accuracy from {shares} training stays: {', '.join(said)}.")


def split_effect(table: pd.DataFrame, dataset: str, names: dict | None = None) -> Figure:
    """By how much each model scores higher where it knows the test patients, in three metrics, with 95 % intervals.

    `table` is as `comparisons.split_effect` returns it. What is not in it, for small counts would follow, is not drawn.
    """
    runs = in_order(table["run"].unique())
    rows = table.set_index(["metric", "run"])
    figure, grid = canvas("two columns", 20 + 4.8 * len(runs), columns=3, sharey=True)
    for ax, metric in zip(grid, ("macro_f1", "acc_at_1", "acc_at_5"), strict=True):
        shown = rows.reindex([(metric, run) for run in runs]).reset_index()
        ax.axvline(0, color=FAINT, lw=0.8, ls="--", zorder=0)
        dots(ax, shown.assign(model=[style_of(run, names)[0] for run in runs]), "difference", "{:+.3f}", runs)
        ax.set(xlabel=f"difference in {METRICS[metric]}")
    figure.suptitle("known minus new patients, 95 % paired interval (right of 0: knowing the patients helps)")
    top1 = _intervals(table[table["metric"] == "acc_at_1"].itertuples())
    caption = f"What the test patients’ other stays add to each model’s scores. In top-1 accuracy: {top1}."
    return stamped(figure, dataset, caption)


def accuracy_by_rank(drgs: pd.DataFrame, spline: SmoothingSpline, weighted: Callable, dataset: str) -> Figure:
    """Figure 2a: top-5 accuracy of each DRG by its rank in training cases, with the smoothing spline and its interval.

    `drgs` is as `results.by_drg` returns it, and a dot's area is proportional to its column test_cases. `spline` is fitted
    to its columns rank and acc_at_5, and `weighted`, the second line, to the stays behind them (`spline.binomial_curve`).
    """
    figure, ax = canvas("two columns", 80)
    drgs = drgs[drgs["rank"].notna()]
    tests = drgs["test_cases"].astype(float)
    area = 45 / max(tests.max(), 1)  # pt² a stay
    ax.fill_between(spline.x, spline.lower, spline.upper, color="0.85", lw=0, label="95 % Bayesian interval")
    ax.scatter(drgs["rank"], drgs["acc_at_5"], np.maximum(area * tests, 1), color=INK, alpha=0.6, lw=0)
    x = np.linspace(spline.x[0], spline.x[-1], 400)
    ax.plot(x, spline.curve(x), color=PALETTE[0], lw=1.6, label=f"spline: df {spline.df:.2f}, R² {spline.r2:.3f}")
    ax.plot(x, weighted(x), color=PALETTE[2], lw=1.6, ls="--", label="each test stay counts as one")
    for n in sorted({int(tests.min()), int(tests.median()), int(tests.max())}) if len(tests) else ():
        label = f"DRG of {n:,} test stay{'s' * (n != 1)}"
        ax.scatter([], [], max(area * n, 1), color=INK, alpha=0.6, lw=0, label=label)
    ax.set(xlabel="rank of the DRG by training cases (1: most)", ylabel="top-5 accuracy in the test stays (%)")
    ax.set_ylim(-0.04, 1.04)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent(ax.yaxis)
    figure.legend(loc="outside upper center", ncols=3)
    ends = spline.curve(np.array([spline.x[0], spline.x[-1]])).clip(0, 1)
    caption = (
        f"Top-5 accuracy of {len(drgs):,} DRGs by rank in training cases. The spline goes from {100 * ends[0]:.0f} % "
        f"at the most frequent DRG to {100 * ends[1]:.0f} % at the rarest (df {spline.df:.2f}, R² {spline.r2:.3f})."
    )
    return stamped(figure, dataset, caption)


def cases_by_accuracy(drgs: pd.DataFrame, dataset: str) -> Figure:
    """Figure 2b: training cases of the DRGs by range of top-5 accuracy: a dot each, and a box for at least five of them.

    `drgs` is as `results.by_drg` returns it, or `results.masked_by_drg`: a DRG without numbers is not drawn. Whiskers
    reach 1.5 interquartile ranges.
    """
    figure, ax = canvas("one column", 66)
    groups = {name: drgs.loc[drgs["acc_range"] == name, "train_cases"].astype(float) for name in ACCURACY_RANGES}
    boxes = {at: cases for at, cases in enumerate(groups.values()) if len(cases) >= 5}
    style = {"boxprops": {"facecolor": THEIRS}, "medianprops": {"color": PALETTE[2], "lw": 1.8}, "showfliers": False}
    if boxes:
        cases = list(boxes.values())
        ax.boxplot(cases, positions=list(boxes), patch_artist=True, widths=0.6, manage_ticks=False, **style)
    for at, cases in enumerate(groups.values()):
        aside = (np.arange(len(cases)) * 0.618) % 1 - 0.5  # spread evenly, and the same in every run
        ax.plot(at + 0.4 * aside * (len(cases) > 1), cases, "o", color=INK, ms=2.2, mew=0, alpha=0.6, zorder=3)
    names = [f"{name} %\n{len(cases)} DRG{'s' * (len(cases) != 1)}" for name, cases in groups.items()]
    ax.set_xticks(range(len(names)), names)
    ax.set(
        xlabel="top-5 accuracy of the DRG",
        ylabel="training cases of the DRG (log scale)",
        xlim=(-0.5, len(names) - 0.5),
    )
    log_counts(ax)
    medians = [f"{name} %: {cases.median():,g}" for name, cases in groups.items() if len(cases)]
    return stamped(
        figure, dataset, f"Median training cases of the DRGs, by their top-5 accuracy: {'; '.join(medians)}."
    )


def case_density(cases: pd.Series, dataset: str, mask_below: int = 0) -> Figure:
    """Supplementary Figure 1: density of the DRGs' training cases, their median, and how many DRGs exceed 2,000.

    DRGs with fewer cases than `mask_below` are not drawn.
    """
    figure, ax = canvas("one column", 58)
    drawn = cases[cases >= mask_below]
    sns.kdeplot(drawn, ax=ax, cut=0, fill=True, color=PALETTE[0])
    sns.rugplot(drawn, ax=ax, color=INK, height=0.03, lw=0.5)
    median = f"median: {cases.median():,g} cases" if cases.median() >= mask_below else ""
    above = f"above 2,000 cases: {(cases > 2000).sum()} of {len(cases)} DRGs"
    if median:
        ax.axvline(cases.median(), color=INK, ls="--", lw=1, label=median)
    ax.plot([], [], " ", label=above)
    ax.set(xlabel="training cases of the DRG", ylabel="density", xlim=(0, None))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.legend()
    return stamped(
        figure,
        dataset,
        f"Density of the training cases of {len(cases)} DRGs; {'; '.join(filter(None, [median, above]))}.",
    )
