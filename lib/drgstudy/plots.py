"""The figures: counts, tables and fitted curves come in, and nothing is computed but layout.

Names, colours, markers and their order are the same in every figure. A figure says on its face whose data it shows.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from drgstudy.disclosure import few
from drgstudy.spline import SmoothingSpline
from drgstudy.study import atomic

_C = sns.color_palette("colorblind").as_hex()
MODELS = {  # run: name, colour, marker. Brightness and shape differ too, so that grey is enough
    "llama": ("DRG-LLaMA", _C[0], "o"),
    "llama-two": ("DRG-LLaMA, two labels", _C[5], "v"),
    "probe": ("Frozen probe", _C[1], "s"),
    "bert": ("BERT", _C[2], "^"),
    "caml": ("CAML", _C[3], "D"),
    "tfidf": ("TF-IDF + LR", _C[4], "P"),
    "lstm": ("LSTM", "0.35", "h"),
    "clinicalbert": ("ClinicalBERT", _C[9], "<"),
}
SYSTEMS = {"ms": "MS-DRG", "apr": "APR-DRG"}
# The paper's models, and the run whose look each gets.
PUBLISHED = {"DRG-LLaMA-7B": "llama", "ClinicalBERT": "bert", "CAML": "caml"}
METRICS = {"macro_f1": "macro-F1", "acc_at_1": "top-1 accuracy", "acc_at_5": "top-5 accuracy"}
METRICS |= {"acc_at_10": "top-10 accuracy", "macro_auc": "macro-AUC", "micro_auc": "micro-AUC"}
ACCURACY_RANGES = ("< 20", "20–40", "40–60", "60–80", "> 80")  # per cent, for Figure 2b
_INK, _FAINT, _PUBLISHED, _OURS = "0.15", "0.42", "#e9eef6", "#fdf3e1"  # the backgrounds are the report's too

plt.rcdefaults()  # a matplotlibrc of the user's has no say
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
    """Name, colour and marker of a run.

    A variant ("llama-64", "caml-ms") looks like its model ("llama") and says what it varies; what `MODELS` does not
    know at all keeps its own name and gets a grey cross.
    """
    model, *variant = run.split("-")
    if run not in MODELS and model in MODELS:
        name, *rest = MODELS[model]
        return f"{name} ({', '.join(SYSTEMS.get(word, word) for word in variant)})", *rest
    return MODELS.get(run, (run, "0.4", "X"))


def in_order(runs) -> list[str]:
    """The runs in the order in which they are always shown: that of `MODELS`, then the others by name."""
    return [run for run in MODELS if run in set(runs)] + sorted(set(runs) - set(MODELS))


def save(figure: Figure, folder: Path, name: str, dataset: str) -> Figure:
    """Write `name`.png and `name`.svg into `folder` and return the figure; equal figures are equal bytes.

    The dataset's name is in the metadata too, as `Source`.
    """
    _stamp(figure, dataset)
    for suffix, without in {"png": ("Software",), "svg": ("Date", "Creator")}.items():
        metadata = {"Source": dataset or None} | dict.fromkeys(without)
        with atomic(Path(folder) / f"{name}.{suffix}") as beside:
            figure.savefig(beside, metadata=metadata)
            _shrink(beside) if suffix == "png" else _renumber(beside)
    return figure


def _shrink(file: Path) -> None:
    """Store an image as 256 colours, in a third of the bytes; flat ones stay as they are, edges move less than one can see."""
    with Image.open(file) as image:
        about, dpi = PngInfo(), image.info["dpi"]
        for key, text in image.text.items():
            about.add_text(key, text)
        image = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=True, pnginfo=about, dpi=dpi)


def _renumber(file: Path) -> None:
    """Name an SVG's clip paths by their order: matplotlib names them by the last digits of a layout that is solved anew."""
    svg, order = file.read_text(encoding="utf-8"), {}
    named = re.sub(r"(?<=#)p[0-9a-f]{10}(?=\))", lambda found: order.setdefault(found[0], f"clip{len(order)}"), svg)
    for name, number in order.items():
        named = named.replace(f'id="{name}"', f'id="{number}"')
    file.write_text(named, encoding="utf-8")


def study_map() -> Figure:
    """Both studies as chains of files: which notebook turns what into what."""
    figure, ax = _axes(10, 3.2)
    ax.axis("off")
    first = {
        "01-hospital": "raw tables\nMIMIC-IV’s shape",
        "02-harmonization": "drgs.parquet\neach title in v34",
        "03-cohort": "stays.parquet\ntext, DRG, split",
        "05-train, once a model": "predictions.npz\nlogits",
        "06 to 12": "tables, figures\nnumbers.json",
    }
    early = {
        "20-icu": "raw tables\nMIMIC-III’s shape",
        "21-early-cohort": "stays by DRG system\nnotes by hour",
        "22-measurements": "104 groups\nby hour",
        "23-early-train, once a model": "a model a fold\nlogits by hour",
        "24 to 28": "tables, figures\nnumbers.json",
    }
    for y, (name, chain) in enumerate({"DRG-LLaMA": first, "Early DRG": early}.items()):
        ax.text(-0.4, 0.85 - 1.7 * y, name, va="bottom", weight="bold")
        for x, (notebook, file) in enumerate(chain.items()):
            if x:
                _arrow(ax, (x - 0.59, -1.7 * y), (x - 0.41, -1.7 * y))
            _box(ax, x, -1.7 * y, file, _PUBLISHED, width=0.8)
            ax.text(x, 0.4 - 1.7 * y, notebook, ha="center", va="bottom", color=_FAINT, fontsize=9)
    ax.set(xlim=(-0.45, 4.45), ylim=(-2.1, 1.15))
    return figure


def approaches() -> Figure:
    """Figure 3: one network and two ways from its hidden state to a DRG, told on the DRGs 291 to 293."""
    figure, ax = _axes(9.5, 6.4)
    ax.axis("off")
    ax.set(xlim=(0, 9.5), ylim=(0, 6.4))
    trunk = {
        "Hospital course\n“… dyspnea, edema, BNP\n4,200: diuresed …”": "white",
        "Tokens\nthe first 512 at most": "white",
        "LLaMA, weights frozen,\nwith LoRA on q, k, v, o\nof every layer": _OURS,
        "Hidden state\nof the last token,\nor the tokens’ mean": "white",
    }
    for i, (text, fill) in enumerate(trunk.items()):
        _box(ax, 1.15 + 2.4 * i, 5.85, text, fill, width=2, height=0.9)
        if i:
            _arrow(ax, (2.4 * i - 0.25, 5.85), (2.4 * i + 0.15, 5.85))
    ax.plot([8.35, 8.35, 0.2, 0.2], [5.4, 5.15, 5.15, 1.65], color=_FAINT, lw=1.1)
    for y, name, loss in ((4.8, "Single label", "CE(DRG)"), (3.3, "Two labels", "CE(base DRG) + ½ CE(CC/MCC label)")):
        ax.text(0.4, y, name, va="center", weight="bold", color=_INK, fontsize=10)
        ax.text(9.35, y, f"loss: {loss}", ha="right", va="center", color=_FAINT, fontsize=9)

    heads = {4.1: "One linear head\na logit for each DRG", 1.65: "One linear head\n340 + 5 logits"}
    for y, text in heads.items():
        _arrow(ax, (0.2, y), (0.4, y))
        _box(ax, 1.25, y, text, _OURS, width=1.7)
    _arrow(ax, (2.1, 4.1), (2.5, 4.1))
    _arrow(ax, (2.1, 1.78), (2.5, 2.4))
    _arrow(ax, (2.1, 1.52), (2.5, 1))
    # An invented example: the likeliest CC/MCC label is none of this base DRG's own, so that the rules part.
    single = {"291 heart failure … with MCC": 0.5, "292 heart failure … with CC": 0.25, "193 pneumonia … with MCC": 0.1}
    bases = {"heart failure and shock": 0.7, "simple pneumonia and pleurisy": 0.15, "renal failure": 0.1}
    labels = {"without MCC": 0.35, "with MCC": 0.3, "with CC": 0.2, "without CC/MCC": 0.1, "not applicable": 0.05}
    for y, title, shares, own in (
        (4.1, "Softmax over all DRGs", single, single),
        (2.4, "Softmax over 340 base DRGs", bases, bases),
        (1, "Softmax over five CC/MCC labels", labels, ("with MCC", "with CC", "without CC/MCC")),
    ):
        height = 0.36 + 0.19 * len(shares)
        _box(ax, 4.2, y, "", "white", width=3.4, height=height)
        for i, text in enumerate((title, *shares)):
            row = y + height / 2 - 0.17 - 0.19 * i
            fade = _INK if i == 0 or text in own else _FAINT
            ax.text(2.6, row, text, va="center", color=fade, fontsize=9 if i == 0 else 8)
            if i:
                style = {"color": _C[0]} if text in own else {"fc": "white", "ec": _FAINT, "hatch": "////"}
                ax.barh(row, 1.15 * shares[text], left=4.75, height=0.11, lw=0.6, **style)
    _arrow(ax, (5.9, 4.1), (7.95, 4.1))
    ax.text(6.9, 4.17, "the likeliest", ha="center", va="bottom", color=_FAINT, fontsize=9)
    for y, text in (
        (2.4, "(a) likeliest label\nthat this base has\nin the training set"),
        (1, "(b) likeliest of all,\nmapped into the\nbase’s own labels"),
    ):
        _box(ax, 6.98, y, text, "white", width=1.55, height=0.8)
        for start in (2.4, 1):
            _arrow(ax, (5.9, start), (6.2, y + 0.1 * np.sign(start - y)))
        _arrow(ax, (7.75, y), (7.95, y))
    for x, y, code, label in (
        (8.65, 4.1, 291, "with MCC"),
        (8.65, 2.4, 291, "with MCC"),
        (8.65, 1, 293, "without\nCC/MCC"),
    ):
        _box(ax, x, y, f"DRG {code}\n{label}", _PUBLISHED, width=1.4, height=0.8)
    note = "Coloured boxes: what is trained, and the answers. Probabilities are invented; hatched: not a label of this base DRG."
    ax.text(9.35, 0.1, note, ha="right", color=_FAINT, fontsize=8)
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
    """Training loss by step, a panel a run; dashed, by what the run was judged on stays kept back, where it was.

    `histories` holds each run's ``cost["history"]``: entries {"step", "loss"} or {"step", "eval_accuracy"} (or
    "eval_mean_absolute_error").
    """
    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    figure, axes = _axes(max(5, 3.4 * columns), 3 * rows, rows=rows, columns=columns, squeeze=False)
    for ax in axes.flat[len(histories) :]:
        ax.axis("off")
    for ax, run in zip(axes.flat, in_order(histories), strict=False):
        log = pd.DataFrame(histories[run]).set_index("step")
        if "loss" in log:  # else too short a run to have logged any
            log["loss"].dropna().plot(ax=ax, color=look(run)[1])
        number = "eval_mean_absolute_error" in log
        loss = "mean squared error" if number else "nats"
        ax.set(title=look(run)[0], xlabel="step", ylabel=f"training loss ({loss})")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for judged in log.columns.intersection(["eval_accuracy", "eval_mean_absolute_error"]):
            right = ax.twinx()
            log[judged].dropna().plot(ax=right, color=_INK, ls="--", marker=".")
            right.set_ylabel(f"validation {judged.removeprefix('eval_').replace('_', ' ')} (dashed)")
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


def severity_confusion(counts: pd.DataFrame, dataset: str, below: int = 0) -> Figure:
    """True CC/MCC label (rows) by predicted label (columns): stays (under `below` masked), shaded by their share of the row."""
    figure, ax = _axes(6.6, 3.9)
    share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).mask(few(counts, below), 0)
    numbers = counts.astype(object).mask(few(counts, below), f"< {below}")
    sns.heatmap(share, ax=ax, cmap="Blues", vmin=0, vmax=1, annot=numbers, fmt="", cbar=False, linewidths=0.5)
    ax.set(xlabel="predicted CC/MCC label", ylabel="true CC/MCC label")
    ax.tick_params(axis="x", rotation=20)
    return _stamp(figure, dataset)


def sweep(table: pd.DataFrame, published: pd.DataFrame, dataset: str) -> Figure:
    """Table 2 as lines: three metrics by maximum input tokens, a line a model size, each dataset on its own axes.

    Both tables have size, max_tokens, metric, value and sd.
    """
    figure = plt.figure(figsize=(9, 6), layout="constrained")
    plt.close(figure)
    bands = [(published, "MIMIC-IV (published)", _PUBLISHED), (table, f"{dataset} (this run)", _OURS)]
    for band, (rows, title, fill) in zip(figure.subfigures(2, 1), bands, strict=True):
        band.set_facecolor(fill)
        band.suptitle(f"{title}; whiskers ± 1.96 SD", fontweight="bold", fontsize=10, x=0.01, ha="left")
        for ax, metric in zip(band.subplots(1, 3), ("macro_f1", "acc_at_1", "acc_at_5"), strict=True):
            for i, (size, line) in enumerate(rows[rows["metric"] == metric].groupby("size", sort=False)):
                line = line.sort_values("max_tokens")
                style = {"color": _C[2 * i], "marker": "os^D"[i], "ls": ["-", "--", "-.", ":"][i], "capsize": 3}
                ax.errorbar(line["max_tokens"], line["value"], 1.96 * line["sd"], lw=1.8, label=size, **style)
            ax.set_xscale("log")
            ticks = sorted(set(rows["max_tokens"]))
            ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set(xlabel="maximum input tokens", title=METRICS[metric], facecolor=fill)
        band.legend(*ax.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    return _stamp(figure, f"two datasets: MIMIC-IV and {dataset}")


def split_effect(table: pd.DataFrame, dataset: str) -> Figure:
    """Each model's scores with patients on both sides of the split (filled) and apart (open), three metrics."""
    figure, grid = _axes(9, 1.5 + 0.5 * table["run"].nunique(), columns=3, sharey=True)
    runs = in_order(table["run"].unique())
    for ax, metric in zip(grid, ("macro_f1", "acc_at_1", "acc_at_5"), strict=True):
        rows = table[table["metric"] == metric].set_index("run").loc[runs]
        for y, (run, row) in enumerate(rows.iterrows()):
            _, colour, marker = look(run)
            ax.plot([row["together"], row["apart"]], [y, y], color=colour, lw=1.5)
            ax.plot(row["together"], y, marker, color=colour, ms=8)
            ax.plot(row["apart"], y, marker, color=colour, ms=8, mfc="white", mew=1.6)
        ax.set_yticks(range(len(rows)), rows["model"])
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=METRICS[metric])
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    figure.suptitle("filled: the same patient may train and be tested; open: patients apart", fontsize=10)
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


def error_classes(table: pd.DataFrame, dataset: str) -> Figure:
    """How far off the wrong predictions are: `errors.tally` of `errors.CLASSES`, a colour each for base and MDC.

    What is masked for print, as "< 11", has no bar.
    """
    figure, ax = _axes(8.5, 3.2)
    _counted(ax, table, [_C[0], *[_C[1]] * 3, *["0.25"] * 3])
    ax.set(xlabel="wrong predictions, and their share")
    return _stamp(figure, dataset)


def error_categories(published: pd.DataFrame, ours: dict[str, pd.DataFrame], dataset: str) -> Figure:
    """The categories of Table 4: the paper's ten errors, and sets of ours by name; each a table of `errors.tally`."""
    figure, panels = _axes(3.4 + 2.5 * (1 + len(ours)), 2.9, columns=1 + len(ours), sharey=True)
    shown = {"MIMIC-IV (published)": published} | ours
    for ax, (title, table) in zip(panels, shown.items(), strict=True):
        theirs = table is published
        _counted(ax, table, _C[7] if theirs else _C[0])
        ax.set(title=f"{title}\n{table['errors'].sum():,} errors", xlabel="errors, and their share")
        ax.set_facecolor(_PUBLISHED if theirs else _OURS)
    return _stamp(figure, f"two datasets: MIMIC-IV and {dataset}")


def mdc_confusion(counts: pd.DataFrame, dataset: str, below: int = 0) -> Figure:
    """Stays by true and predicted MDC, as `errors.by_mdc` returns them; shaded by their share of the true MDC.

    Counts under `below` are masked.
    """
    n = len(counts)
    figure, ax = _axes(3.2 + 0.34 * n, 2.3 + 0.3 * n)
    share = counts.div(counts.sum(axis=1).replace(0, 1), axis=0).mask(few(counts, below), 0)
    numbers = counts.astype(object).where(counts > 0, "").mask(few(counts, below), f"<{below}")
    bar = {"label": "share of the row (%)", "format": PercentFormatter(1, symbol=""), "shrink": 0.7}
    style = {"cmap": "Blues", "vmin": 0, "vmax": 1, "linewidths": 0.5, "linecolor": "0.9"}
    sns.heatmap(share, annot=numbers, fmt="", annot_kws={"fontsize": 7.5}, cbar_kws=bar, ax=ax, **style)
    for i in range(n):
        ax.add_patch(Rectangle((i, i), 1, 1, fill=False, ec=_INK, lw=0.9))
    ax.set_xticks(np.arange(n) + 0.5, counts.columns, rotation=50, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(n) + 0.5, counts.index, rotation=0)
    ax.tick_params(length=0)
    return _stamp(figure, dataset)


def _counted(ax: Axes, table: pd.DataFrame, colour) -> None:
    """A bar for each row of an `errors.tally`, the first on top, with its number and share."""
    long = pd.to_numeric(table["errors"], errors="coerce").fillna(0)
    ax.barh(table["name"], long, color=colour, height=0.7)
    for y, row in enumerate(table.itertuples()):
        said = row.errors if isinstance(row.errors, str) else f"{row.errors:,} ({100 * row.share:.0f} %)"
        ax.text(long[y], y, f" {said}", va="center", fontsize=9, color=_INK)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(0, 1.35 * max(long.max(), 1))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def reliability(tables: dict[str, pd.DataFrame], errors: dict[str, float], dataset: str) -> Figure:
    """Accuracy by stated confidence, a panel a run; on the diagonal a model is as often right as it says.

    `tables` holds each run's `calibration.reliability`, `errors` its expected calibration error.
    """
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, grid = _axes(max(4.5, 3.1 * columns), 2.95 * rows + 0.2, rows=rows, columns=columns, squeeze=False)
    for ax in grid.flat[len(tables) :]:
        ax.remove()
    for ax, run in zip(grid.flat, in_order(tables), strict=False):
        (name, colour, marker), table = look(run), tables[run]
        ax.plot([0, 1], [0, 1], color=_FAINT, ls="--", lw=1)
        ax.vlines(table["confidence"], table["lower"], table["upper"], color=colour, lw=1.4, alpha=0.6, clip_on=False)
        ax.plot(table["confidence"], table["accuracy"], marker, color=colour, ms=5.5, clip_on=False)
        ax.text(0.03, 0.97, "too modest", va="top", fontsize=8.5, color=_FAINT)
        ax.text(0.99, 0.03, "overconfident", ha="right", fontsize=8.5, color=_FAINT)
        ax.set(title=f"{name}: error {errors[run]:.2f}", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(PercentFormatter(1, symbol=""))
    stays = pd.concat(tables.values())["stays"]
    size = "–".join(f"{n:,}" for n in sorted({stays.min(), stays.max()}))
    figure.supxlabel(f"mean confidence of {size} stays (%)", fontsize=10)
    figure.supylabel("their accuracy (%), 95 % interval", fontsize=10)
    return _stamp(figure, dataset)


def coverage(curves: dict[str, pd.DataFrame], targets: list[float], dataset: str) -> Figure:
    """Accuracy on the stays that a model answers, by the share that it answers; `curves` as `calibration.coverage`."""
    figure, ax = _axes(7.5, 4.2)
    for target in targets:
        ax.axhline(target, color=_FAINT, lw=1, ls="--")
    for style, run in enumerate(in_order(curves)):
        name, colour, marker = look(run)
        curve = curves[run]
        ends = np.searchsorted(curve["coverage"], np.linspace(0.1, 1, 10) - 1e-9)
        line = {"color": colour, "ls": ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), ":")[style % 5], "lw": 1.8}
        ax.plot(curve["coverage"], curve["accuracy"], marker=marker, ms=5, markevery=ends.tolist(), label=name, **line)
    ax.set(xlabel="stays that the model answers, the most confident first (%)", ylabel="accuracy among them (%)")
    ax.set(xlim=(0, 1.02), ylim=(None, 1.02))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=""))
    figure.legend(frameon=False, loc="outside upper center", ncols=5)
    return _stamp(figure, dataset)


def case_mix(table: pd.DataFrame, dataset: str) -> Figure:
    """What each model's errors cost in total and in a single stay; above by the top-1 weight, below by the expected one.

    `table` has run, model, way, measure ("error_percent" and "mae_dollars" are shown), value, lower and upper.
    """
    ways = table["way"].unique()
    measures = {"error_percent": ("error of the case-mix index (%)", "{:+.1f}")}
    measures["mae_dollars"] = ("mean error of a single stay ($)", "{:,.0f}")
    height = len(ways) * (0.9 + 0.36 * table["run"].nunique())
    figure, grid = _axes(9, height, rows=len(ways), columns=2, sharex="col", sharey=True, squeeze=False)
    for panels, way in zip(grid, ways, strict=True):
        for ax, (measure, (label, form)) in zip(panels, measures.items(), strict=True):
            ax.axvline(0, color=_FAINT, lw=1, ls="--")
            _dots(ax, table[(table["way"] == way) & (table["measure"] == measure)], "value", form)
            ax.set_title(f"{way} weight")
            ax.set_xlabel(label if way == ways[-1] else "")
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    return _stamp(figure, dataset)


def stay_weights(true: np.ndarray, ways: dict[str, np.ndarray], name: str, dataset: str) -> Figure:
    """Predicted against true relative weight of each stay, a panel for each way to predict it."""
    figure, axes = _axes(9, 4.4, columns=len(ways), sharex=True, sharey=True)
    positive = [values[values > 0] for values in (true, *ways.values())]
    ends = min(v.min() for v in positive) / 1.15, max(v.max() for v in positive) * 1.15
    for ax, (way, predicted) in zip(axes, ways.items(), strict=True):
        ax.plot(ends, ends, color=_FAINT, ls="--", lw=1)
        ax.plot(true, predicted, "o", color=_C[0], ms=4.5, mew=0, alpha=0.35)
        ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal", title=f"{way} weight")
        ax.set_xlabel("true relative weight (log scale)")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
    axes[0].set_ylabel(f"predicted by {name}")
    return _stamp(figure, dataset)


def strongest_words(panels: dict[str, tuple[str, str, pd.Series]], dataset: str) -> Figure:
    """The phrases that moved one stay's prediction, a panel a run: blue speaks for the DRG, hatched orange against it.

    `panels` holds for each run the panel's subtitle, the scores' unit and the scores by phrase, as
    `attribution.strongest` returns them.
    """
    rows = -(-len(panels) // 2)
    figure, grid = _axes(10, 3.1 * rows, rows=rows, columns=min(2, len(panels)), squeeze=False)
    for ax in grid.flat[len(panels) :]:
        ax.axis("off")
    for ax, run in zip(grid.flat, in_order(panels), strict=False):
        subtitle, unit, scores = panels[run]
        for y, score in enumerate(scores):
            style = {"color": _C[0]} if score > 0 else {"facecolor": "white", "edgecolor": _C[3], "hatch": "////"}
            ax.barh(y, score, height=0.65, **style)
        ax.axvline(0, color=_FAINT, lw=1)
        ax.set_yticks(range(len(scores)), [_plain(phrase, 32) for phrase in scores.index])
        ax.set(ylim=(len(scores) - 0.4, -0.6), xlabel=unit)
        title = _plain(f"{look(run)[0]}: {subtitle}", 68)
        ax.set_title(textwrap.fill(title, 36), loc="left", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    return _stamp(figure, dataset)


def _plain(text: str, width: int) -> str:
    """The text, cut to so many characters, for matplotlib to draw as it is: two dollars are no formula."""
    return textwrap.shorten(text, width, placeholder=" …").replace("$", r"\$")


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


def _dots(ax: Axes, rows: pd.DataFrame, column: str, form: str, order: list[str] | None = None) -> None:
    """A dot with its interval and its number for each run, the first on top."""
    rows = rows.set_index("run").loc[order or in_order(rows["run"])]
    for y, (run, row) in enumerate(rows.iterrows()):
        _, colour, marker = look(run)
        ax.plot([row["lower"], row["upper"]], [y, y], color=colour, lw=1.8)
        ax.plot(row[column], y, marker, color=colour, ms=6.5)
        ax.text(row[column], y - 0.2, form.format(row[column]), ha="center", va="bottom", fontsize=8, color=_INK)
    ax.set_yticks(range(len(rows)), rows["model"])
    ax.set_ylim(len(rows) - 0.5, -0.85)
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _box(ax: Axes, x: float, y: float, text: str, fill: str, width: float, height: float = 0.56) -> None:
    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, style, fc=fill, ec=_FAINT))
    ax.text(x, y, text, ha="center", va="center", color=_INK, fontsize=9, linespacing=1.4)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": _FAINT, "shrinkA": 0, "shrinkB": 0})
