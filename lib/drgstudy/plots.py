"""The figures: counts, tables and fitted curves come in, and nothing is computed but layout.

Names, colours, markers and their order are the same in every figure. A figure says on its face whose data it shows.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from drgstudy.spline import SmoothingSpline
from drgstudy.study import atomic

_C = sns.color_palette("colorblind").as_hex()
MODELS = {  # run: name, colour, marker. Brightness and shape differ too, so that grey is enough
    "llama": ("DRG-LLaMA", _C[0], "o"),
    "probe": ("Frozen probe", _C[1], "s"),
    "bert": ("BERT", _C[2], "^"),
    "caml": ("CAML", _C[3], "D"),
    "tfidf": ("TF-IDF + LR", _C[4], "P"),
}
# The paper's models, and the run whose look each gets.
PUBLISHED = {"DRG-LLaMA-7B": "llama", "ClinicalBERT": "bert", "CAML": "caml"}
METRICS = {"macro_f1": "macro-F1", "acc_at_1": "top-1 accuracy", "acc_at_5": "top-5 accuracy"}
METRICS |= {"acc_at_10": "top-10 accuracy", "macro_auc": "macro-AUC", "micro_auc": "micro-AUC"}
ACCURACY_RANGES = ("< 20", "20–40", "40–60", "60–80", "> 80")  # per cent, for Figure 2b
_INK, _FAINT, _PUBLISHED, _OURS = "0.15", "0.42", "#e9eef6", "#fdf3e1"  # the backgrounds are the report's too

sns.set_theme(
    style="ticks",
    rc={
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters, hence the same bytes, everywhere
        "svg.hashsalt": "drgstudy",
        "figure.dpi": 90,
        "savefig.dpi": 150,
        "figure.constrained_layout.h_pad": 0.08,
        "figure.constrained_layout.w_pad": 0.08,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titleweight": "bold",
        **dict.fromkeys(["font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"], 10),
        **dict.fromkeys(["xtick.labelsize", "ytick.labelsize"], 9),
    },
)


def look(run: str) -> tuple[str, str, str]:
    """Name, colour and marker of a run; one that `MODELS` does not know keeps its own name and gets a grey cross."""
    return MODELS.get(run, (run, "0.4", "X"))


def in_order(runs) -> list[str]:
    """The runs in the order in which they are always shown: that of `MODELS`, then the others by name."""
    return [run for run in MODELS if run in set(runs)] + sorted(set(runs) - set(MODELS))


def save(figure: Figure, folder: Path, name: str, dataset: str) -> Figure:
    """Write `name`.png and `name`.svg into `folder` and return the figure; equal figures are equal bytes."""
    _stamp(figure, dataset)
    for suffix, metadata in {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}.items():
        with atomic(Path(folder) / f"{name}.{suffix}") as beside:
            figure.savefig(beside, metadata=metadata)
    return figure


def study_map() -> Figure:
    """The study as a chain of files: which notebook turns what into what."""
    figure, ax = _axes(10, 1.8)
    ax.axis("off")
    chain = {
        "01-hospital": "raw tables\nMIMIC-IV’s shape",
        "02-harmonization": "drgs.parquet\neach title in v34",
        "03-cohort": "stays.parquet\ntext, DRG, split",
        "05-train, once a model": "predictions.npz\nlogits",
        "06-results": "tables, figures\nnumbers.json",
    }
    for x, (notebook, file) in enumerate(chain.items()):
        if x:
            _arrow(ax, (x - 0.59, 0), (x - 0.41, 0))
        _box(ax, x, 0, file, _PUBLISHED, width=0.8)
        ax.text(x, 0.4, notebook, ha="center", va="bottom", color=_FAINT, fontsize=9)
    ax.set(xlim=(-0.45, 4.45), ylim=(-0.4, 0.75))
    return figure


def flow_diagram(flow: dict) -> Figure:
    """Figure 1: what each step kept of the notes and of the DRG rows, down to the training and the test stays.

    `flow` is as `cohort.build_cohort` returns it.
    """
    depth = max(len(flow["notes"]), len(flow["drg_rows"]))
    figure, ax = _axes(8.5, 0.72 * depth + 1.6)
    ax.axis("off")
    for side, align, chain in ((-1, "right", flow["notes"]), (1, "left", flow["drg_rows"])):
        gap = (depth - 1) / (len(chain) - 1)
        for i, step in enumerate(chain):
            y = -i * gap
            _box(ax, side, y, f"{step['step'][0].upper()}{step['step'][1:]}\n{step['kept']:,}", "white", width=1.3)
            if i:
                _arrow(ax, (side, y + gap - 0.28), (side, y + 0.28))
                removed = f"{step['removed']:,} left out"
                ax.text(side * 1.06, y + gap / 2, removed, ha=align, va="center", color=_FAINT, fontsize=9)
        _arrow(ax, (side, 0.72 - depth), (side * 0.3, 0.28 - depth))
    _box(ax, 0, -depth, f"Cohort\n{flow['stays']:,} stays, {flow['labels']:,} DRGs", _OURS, width=1.6)
    for x, part, name in ((-0.8, "train", "Training"), (0.8, "test", "Test")):
        stays, labels = (flow["splits"]["split"][f"{part}_{what}"] for what in ("stays", "labels"))
        _arrow(ax, (x / 3, -0.28 - depth), (x, -0.72 - depth))
        _box(ax, x, -1 - depth, f"{name}\n{stays:,} stays, {labels:,} DRGs", _OURS, width=1.4)
    ax.set(xlim=(-1.8, 1.8), ylim=(-1.3 - depth, 0.3))
    return figure


def bars(counts: pd.Series, xlabel: str, ylabel: str, dataset: str) -> Figure:
    """One bar for each entry of `counts`, in the order given."""
    figure, ax = _axes(max(5, 0.4 * len(counts)), 3.2)
    ax.bar(counts.index.astype(str), counts, color=_C[0], width=0.75)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return _stamp(figure, dataset)


def word_counts(stays: pd.DataFrame, dataset: str) -> Figure:
    """Words in the hospital courses of the training and of the test stays."""
    figure, ax = _axes(7, 3.4)
    for part, colour, style in (("train", _C[0], "-"), ("test", _C[1], "--")):
        words = stays.loc[stays["split"] == part, "words"]
        sns.kdeplot(words, ax=ax, color=colour, ls=style, lw=2, cut=0, label=f"{part}: {len(words):,} stays")
        ax.axvline(words.mean(), color=colour, ls=style, lw=1)
    ax.set(xlabel="words in the hospital course (thin lines: means)", ylabel="density")
    ax.set_xlim(right=stays["words"].quantile(0.99))
    ax.legend(frameon=False)
    return _stamp(figure, dataset)


def drg_frequencies(stays: pd.DataFrame, dataset: str) -> Figure:
    """Stays of each DRG, from the most frequent to the rarest, and their median."""
    figure, ax = _axes(7, 3.4)
    counts = stays["drg_v34"].value_counts()
    ax.plot(range(1, len(counts) + 1), counts, "o", ms=3.5, color=_C[0])
    ax.axhline(counts.median(), color=_INK, ls="--", lw=1.2, label=f"median: {counts.median():,g} stays")
    ax.legend(frameon=False)
    ax.set(xlabel="rank of the DRG by stays (1: most)", ylabel="stays (log scale)")
    _log_counts(ax)
    return _stamp(figure, dataset)


def learning_curve(histories: dict[str, list[dict]], dataset: str) -> Figure:
    """Training loss by step, a panel a run; validation accuracy too, dashed, where the run kept stays back for it.

    `histories` holds each run's ``cost["history"]``: entries {"step", "loss"} or {"step", "eval_accuracy"}.
    """
    figure, axes = _axes(max(5, 3.4 * len(histories)), 3, columns=len(histories), squeeze=False)
    for ax, run in zip(axes.flat, in_order(histories), strict=True):
        log = pd.DataFrame(histories[run]).set_index("step")
        log["loss"].dropna().plot(ax=ax, color=look(run)[1])
        ax.set(title=look(run)[0], xlabel="step", ylabel="training loss (nats)")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if "eval_accuracy" in log:
            right = ax.twinx()
            log["eval_accuracy"].dropna().plot(ax=right, color=_INK, ls="--", marker=".")
            right.set_ylabel("validation accuracy (dashed)")
            right.spines["right"].set_visible(True)
    return _stamp(figure, dataset)


def model_comparison(table: pd.DataFrame, published: pd.DataFrame, dataset: str) -> Figure:
    """Three metrics on all DRGs: the published models above, this run's below, each dataset on its own axes.

    `table` is as `report.table1` returns it, `published` as `report.published("Table 1")`.
    """
    reach = 1.96 * published["sd"]
    theirs = published.assign(run=published["model"].map(PUBLISHED))
    theirs = theirs.assign(lower=theirs["value"] - reach, upper=theirs["value"] + reach)
    bands = [
        (theirs, "MIMIC-IV (published); whiskers ± 1.96 SD", _PUBLISHED),
        (table, f"{dataset} (this run); whiskers 95 % interval", _OURS),
    ]
    heights = [1.3 + 0.32 * rows["run"].nunique() for rows, *_ in bands]
    figure = plt.figure(figsize=(9, sum(heights)), layout="constrained")
    plt.close(figure)
    for band, (rows, title, fill) in zip(figure.subfigures(2, 1, height_ratios=heights), bands, strict=True):
        band.set_facecolor(fill)
        band.suptitle(title, fontweight="bold", fontsize=10, x=0.01, ha="left")
        for ax, metric in zip(band.subplots(1, 3, sharey=True), ("macro_f1", "acc_at_1", "acc_at_5"), strict=True):
            chosen = (rows["drg_set"] == "All DRGs") & (rows["metric"] == metric)
            _dots(ax, rows[chosen], "value", "{:.3f}")
            ax.set(xlabel=METRICS[metric], facecolor=fill)
    return _stamp(figure, f"two datasets: MIMIC-IV and {dataset}")


def differences(table: pd.DataFrame, name: str, dataset: str) -> Figure:
    """The model called `name` minus every other one, a panel a metric; `table` is `report.differences`'s."""
    figure, grid = _axes(9, 2.4 + 0.55 * table["run"].nunique(), rows=2, columns=3, sharey=True)
    for ax, (metric, label) in zip(grid.flat, METRICS.items(), strict=True):
        ax.axvline(0, color=_FAINT, lw=1, ls="--")
        _dots(ax, table[table["metric"] == metric], "difference", "{:+.3f}")
        ax.set_title(label)
    figure.suptitle(f"{name} minus the other model, 95 % paired interval (right of 0: {name} is better)", fontsize=10)
    return _stamp(figure, dataset)


def accuracy_by_rank(drgs: pd.DataFrame, spline: SmoothingSpline, dataset: str) -> Figure:
    """Figure 2a: top-5 accuracy of each DRG by its rank in training cases, with the smoothing spline and its band.

    `drgs` is as `report.by_drg` returns it; `spline` is fitted to its rank and acc_at_5.
    """
    figure, ax = _axes(7.5, 4.2)
    ax.fill_between(spline.x, spline.lower, spline.upper, color="0.82", lw=0, label="95 % Bayesian interval")
    ax.plot(drgs["rank"], drgs["acc_at_5"], "o", color=_INK, ms=3.5, mew=0, alpha=0.65, label="one DRG")
    x = np.linspace(spline.x[0], spline.x[-1], 400)
    ax.plot(x, spline.curve(x), color=_C[0], lw=2.2, label=f"spline: df {spline.df:.2f}, R² {spline.r2:.3f}")
    ax.set(xlabel="rank of the DRG by training cases (1: most)", ylabel="top-5 accuracy in the test stays (%)")
    ax.set_ylim(-0.04, 1.04)
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    return _stamp(figure, dataset)


def cases_by_accuracy(drgs: pd.DataFrame, dataset: str) -> Figure:
    """Figure 2b: training cases of the DRGs by range of top-5 accuracy; whiskers reach 1.5 interquartile ranges."""
    figure, ax = _axes(7.5, 3.8)
    groups = {name: drgs.loc[drgs["acc_range"] == name, "train_cases"] for name in ACCURACY_RANGES}
    names = [f"{name} %\n{len(cases)} DRG{'s' * (len(cases) != 1)}" for name, cases in groups.items()]
    box, median = {"facecolor": _PUBLISHED}, {"color": _C[2], "lw": 2.2}
    ax.boxplot(groups.values(), tick_labels=names, patch_artist=True, widths=0.55, boxprops=box, medianprops=median)
    ax.set(xlabel="top-5 accuracy of the DRG", ylabel="training cases of the DRG (log scale)")
    _log_counts(ax)
    return _stamp(figure, dataset)


def case_density(cases: pd.Series, dataset: str) -> Figure:
    """Supplementary Figure 1: density of the training cases per DRG, their median, and how many DRGs exceed 2,000."""
    figure, ax = _axes(7.5, 3.6)
    sns.kdeplot(cases, ax=ax, cut=0, fill=True, color=_C[0], lw=1.8)
    sns.rugplot(cases, ax=ax, color=_INK, height=0.03, lw=0.7)
    ax.axvline(cases.median(), color=_INK, ls="--", lw=1.3, label=f"median: {cases.median():,g} cases")
    ax.plot([], [], " ", label=f"above 2,000 cases: {(cases > 2000).sum()} of {len(cases)} DRGs")
    ax.set(xlabel="training cases of the DRG", ylabel="density", xlim=(0, None))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.legend(frameon=False)
    return _stamp(figure, dataset)


def dials(by_tail: dict[float, pd.Series], by_words: dict[int, pd.Series], dataset: str) -> Figure:
    """What two dials of the synthetic hospital do.

    `by_tail` holds the stays of each DRG for values of `tail`, `by_words` the words of each hospital course for values of
    `course_words`.
    """
    figure, (left, right) = _axes(10, 3.6, columns=2)
    styles = ["-", "--", "-.", ":"]
    for (tail, stays), colour, style in zip(by_tail.items(), _C, styles, strict=False):
        share = stays.sort_values(ascending=False).cumsum() / stays.sum()
        left.plot(range(1, len(share) + 1), share, style, color=colour, lw=2, label=f"tail {tail:g}: {len(share)} DRGs")
    left.set(xlabel="DRGs, the most frequent first", ylabel="share of the stays (%)", ylim=(0, 1.02), xscale="log")
    left.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    left.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    left.legend(frameon=False)
    for (target, words), colour, style in zip(by_words.items(), _C, styles, strict=False):
        label = f"course_words {target}: mean {words.mean():.0f}"
        sns.kdeplot(words, ax=right, color=colour, ls=style, lw=2, cut=0, label=label)
    right.set(xlabel="words in the hospital course", ylabel="density", xlim=(0, None))
    right.legend(frameon=False)
    return _stamp(figure, dataset)


def hardness(hardness: dict, dataset: str) -> Figure:
    """Top-1 accuracy of TF-IDF by training stays, beside the documentation ceiling and the inversion attack.

    `hardness` holds ``ceiling`` and ``attack``, each {"value", "lower", "upper"}, and ``curve``, a list of the same with
    "train_stays".
    """
    figure, ax = _axes(7.5, 4)
    for key, name, colour, style in (
        ("ceiling", "documentation ceiling: the codes that were written down", _C[2], "--"),
        ("attack", "inversion attack: a dictionary of the notes’ own words", _C[3], "-."),
    ):
        band = hardness[key]
        ax.axhspan(band["lower"], band["upper"], color=colour, alpha=0.15, lw=0)
        ax.axhline(band["value"], color=colour, ls=style, lw=1.8, label=f"{name} ({band['value']:.2f})")
    curve = pd.DataFrame(hardness["curve"])
    if len(curve):
        _, colour, marker = look("tfidf")
        reach = [curve["value"] - curve["lower"], curve["upper"] - curve["value"]]
        ax.errorbar(curve["train_stays"], curve["value"], reach, color=colour, marker=marker, capsize=3, label="TF-IDF")
        ax.set_xscale("log")
        ax.set_xticks(curve["train_stays"], [f"{n:,}" for n in curve["train_stays"]])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("training stays (log scale)")
    else:
        ax.set_xticks([])
    ax.set(ylabel="top-1 accuracy (%)", ylim=(0, 1))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    figure.legend(frameon=False, loc="outside upper center", ncols=1)
    return _stamp(figure, dataset)


def threshold_curve(evidence: pd.DataFrame, scorer: str, threshold: int, dataset: str) -> Figure:
    """Titles matched rightly, wrongly or not at all, by threshold and scorer; the chosen ones are marked.

    `evidence` is as `harmonize.evidence` returns it: a row of panels for each kind of held-out titles.
    """
    kinds = evidence["held_out"].unique()[::-1]
    figure, grid = _axes(9.5, 2.4 * len(kinds) + 0.7, rows=len(kinds), columns=3, sharex=True, squeeze=False)
    for panels, kind in zip(grid, kinds, strict=True):
        for ax, count in zip(panels, ("right", "wrong", "excluded"), strict=True):
            rows = evidence[evidence["held_out"] == kind].pivot(index="threshold", columns="scorer", values=count)
            for i, name in enumerate(evidence["scorer"].unique()):
                style = {"color": _C[i], "marker": "os^DP"[i], "ms": 4.5, "markevery": (2 * i, 10)}
                style |= {"lw": 2.8, "label": f"{name} (chosen)"} if name == scorer else {"lw": 1.2, "label": name}
                ax.plot(rows.index, rows[name], **style)
            ax.axvline(threshold, color=_INK, ls="--", lw=1.2)
            ax.set(title=f"{kind}: {count}", ylabel="titles")
            ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.set_ylim(bottom=0)
    for ax in grid[-1]:
        ax.set_xlabel(f"threshold (score; dashed: {threshold})")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside upper center", ncols=len(names))
    return _stamp(figure, dataset)


def _axes(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, Axes | np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)
    plt.close(figure)  # a notebook would show an open figure a second time
    return figure, axes


def _stamp(figure: Figure, dataset: str) -> Figure:
    """Write the dataset's name, once, into the lower right corner, on a strip that the layout leaves free."""
    if not any(text.get_gid() == "dataset" for text in figure.texts):
        inch = 1 / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, 0.22 * inch, 1, 1 - 0.22 * inch))
        place = {"ha": "right", "va": "bottom", "fontsize": 8, "color": _FAINT, "gid": "dataset"}
        figure.text(0.99, 0.06 * inch, dataset, **place)
    return figure


def _log_counts(ax: Axes) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.yaxis.set_minor_locator(NullLocator())


def _dots(ax: Axes, rows: pd.DataFrame, column: str, form: str) -> None:
    """A dot with its interval and its number for each run, the first on top."""
    rows = rows.set_index("run").loc[in_order(rows["run"])]
    for y, (run, row) in enumerate(rows.iterrows()):
        _, colour, marker = look(run)
        ax.plot([row["lower"], row["upper"]], [y, y], color=colour, lw=1.8)
        ax.plot(row[column], y, marker, color=colour, ms=6.5)
        ax.text(row[column], y - 0.2, form.format(row[column]), ha="center", va="bottom", fontsize=8, color=_INK)
    ax.set_yticks(range(len(rows)), rows["model"])
    ax.set_ylim(len(rows) - 0.5, -0.85)
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _box(ax: Axes, x: float, y: float, text: str, fill: str, width: float) -> None:
    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - 0.28), width, 0.56, style, fc=fill, ec=_FAINT))
    ax.text(x, y, text, ha="center", va="center", color=_INK, fontsize=9, linespacing=1.4)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": _FAINT, "shrinkA": 0, "shrinkB": 0})
