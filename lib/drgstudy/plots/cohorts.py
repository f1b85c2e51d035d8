"""Whom a study is about: words, notes, measurements and DRGs of its stays, and how hard the synthetic hospital is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

from drgstudy import disclosure
from drgstudy.plots.canvas import canvas, log_counts, minus, percent, stamped
from drgstudy.plots.style import FAINT, INK, LINES, PALETTE, in_order, style_of

_DIFFERENCE = ("difference", "difference_lower", "difference_upper")


def bars(counts: pd.Series, xlabel: str, ylabel: str, dataset: str) -> Figure:
    """One bar for each entry of `counts`, in the order given."""
    figure, ax = canvas("two columns" if len(counts) > 12 else "one column", 50)
    ax.bar(counts.index.astype(str), counts, color=PALETTE[0], width=0.75)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    most = f" Most: {counts.idxmax()}, {counts.max():,g}." if len(counts) else ""
    return stamped(figure, dataset, f"{ylabel[0].upper()}{ylabel[1:]} by {xlabel}.{most}")


def _reach(counts: pd.Series) -> float:
    """Where an axis may end so that the few largest counts do not spoil it: Tukey's outer fence, or the largest."""
    low, high = counts.quantile([0.25, 0.75])
    return max(1, min(counts.max(), high + 3 * (high - low)))


def _beyond(n: int, mask_below: int) -> str:
    """What an axis says of the stays that it leaves out."""
    said = disclosure.count(n, mask_below)
    return f"; {said} stay{'' if said == '1' else 's'} beyond the axis" if n else ""


def word_counts(stays: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Density of the words in the hospital courses of the training and of the test stays; means are of all of them."""
    figure, ax = canvas("one column", 58)
    top, said = _reach(stays["words"]), []
    for part, colour, style in (("train", PALETTE[0], "-"), ("test", PALETTE[1], "--")):
        words = stays.loc[stays["split"] == part, "words"]
        said.append(f"{part}: {len(words):,} stays, mean {words.mean():,.0f}")
        sns.kdeplot(words[words <= top], ax=ax, color=colour, ls=style, cut=0, label=said[-1])
        ax.axvline(words.mean(), color=colour, ls=style, lw=0.8)
    beyond = _beyond((stays["words"] > top).sum(), mask_below)
    ax.set(xlabel=f"words in the hospital course (thin lines: means{beyond})", ylabel="density", xlim=(0, 1.02 * top))
    ax.legend()
    return stamped(figure, dataset, f"Words in the hospital courses; {'; '.join(said)}.")


def drg_frequencies(stays: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Stays of each DRG, from the most frequent to the rarest, and their median; DRGs of few stays are not drawn."""
    figure, ax = canvas("one column", 58)
    every = stays["drg_v34"].value_counts()
    counts = every[disclosure.in_all(every, mask_below) > 0]
    ax.plot(range(1, len(counts) + 1), counts, "o", ms=2.5, color=PALETTE[0])
    if every.median() >= mask_below:
        ax.axhline(every.median(), color=INK, ls="--", lw=1, label=f"median: {every.median():,g} stays")
    if len(counts) < len(every):
        ax.plot([], [], " ", label=f"not drawn: {len(every) - len(counts)} DRGs with the fewest stays")
    ax.legend()
    ax.set(xlabel="rank of the DRG by stays (1: most)", ylabel="stays (log scale)")
    log_counts(ax)
    return stamped(figure, dataset, f"Stays of {len(counts)} DRGs, from the most frequent to the rarest.")


def words_known(words: dict[int, pd.Series], dataset: str, mask_below: int = 0) -> Figure:
    """How many words are known of a stay at each hour in `words`, the first drawn filled; vertical lines are means."""
    figure, ax = canvas("one column", 58)
    top = max(map(_reach, words.values()))
    for i, (hour, counts) in enumerate(words.items()):
        style = (
            {"histtype": "stepfilled", "color": PALETTE[0], "alpha": 0.35}
            if not i
            else {"histtype": "step", "color": PALETTE[1]}
        )
        heights, edges = np.histogram(counts, bins=40, range=(0, top))
        heights = disclosure.in_all(heights, mask_below)
        ax.hist(edges[:-1], edges, weights=heights, label=f"hour {hour}: {counts.mean():,.0f} on average", **style)
        ax.axvline(counts.mean(), color=PALETTE[i], ls="-" if i else "--", lw=0.8)
    beyond = _beyond(max((counts > top).sum() for counts in words.values()), mask_below)
    ax.set(xlabel=f"words known of a stay{beyond}", ylabel="stays", xlim=(0, 1.02 * top))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.legend()
    said = ", ".join(f"{counts.mean():,.0f} at hour {hour}" for hour, counts in words.items())
    return stamped(figure, dataset, f"Words known of a stay, on average: {said}.")


def note_hours(notes: pd.DataFrame, dataset: str, mask_below: int = 0) -> Figure:
    """Notes charted in each hour around ICU admission, one panel for each of the four most frequent categories.

    `notes` has hours (after ICU admission) and category. Notes from more than a day before admission are not drawn.
    """
    figure, axes = canvas("two columns", 84, rows=2, columns=2, sharex=True)
    common = notes["category"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    bins = np.arange(-24, max(1, np.ceil(notes["hours"].max())) + 1)
    for ax, category in zip(axes.flat, common, strict=False):
        hours = notes.loc[notes["category"] == category, "hours"]
        heights = disclosure.in_all(np.histogram(hours, bins)[0], mask_below)
        ax.hist(bins[:-1], bins, weights=heights, color=PALETTE[0])
        ax.axvline(0, color=INK, lw=0.8)
        ax.set(
            title=f"{category}: {disclosure.count(len(hours), mask_below)}",
            xticks=np.arange(-24, bins[-1] + 1, 12),
            xlim=(bins[0], bins[-1]),
        )
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for ax in axes.flat[len(common) :]:
        ax.remove()
    for ax in axes[1]:
        ax.set_xlabel("hours after ICU admission")
    for ax in axes[:, 0]:
        ax.set_ylabel("notes in an hour")
    kinds = ", ".join(common[:4])
    return stamped(figure, dataset, f"Notes by hour around ICU admission, of the most frequent kinds: {kinds}.")


def measured_by_hour(shares: pd.DataFrame, dataset: str) -> Figure:
    """Share of stays with a value in each hour; `shares` (0 to 1) has a row for each group, a column for each hour."""
    figure, ax = canvas("two columns", 22 + 3.4 * len(shares))
    bar = {"label": "stays with a value (%)", "shrink": 0.6, "pad": 0.01}
    sns.heatmap(shares, cmap="Blues", vmin=0, vmax=1, yticklabels=True, xticklabels=6, cbar_kws=bar, ax=ax)
    percent(ax.collections[0].colorbar.ax.yaxis)
    ax.set_xticks(np.arange(0, 49, 6), np.arange(0, 49, 6), rotation=0)
    ax.set(xlabel="hours after ICU admission", ylabel="")
    ax.tick_params(length=0)
    often = shares.mean(axis=1)
    most = (
        f" Most often: {often.idxmax()}, in {100 * often.max():.0f} % of the stays’ hours."
        if often.notna().any()
        else ""
    )
    return stamped(figure, dataset, f"Share of the stays with a value, by group and hour.{most}")


def course(stay: pd.DataFrame, units: pd.Series, dataset: str) -> Figure:
    """One stay, hour by hour: one panel for each group, a dot for each measured value, and a line at the latest one.

    `stay` has a row for each hour and a column for each group, NaN where it was not measured. `units` is by group.
    """
    figure, axes = canvas("two columns", 14 + 14 * stay.shape[1], rows=stay.shape[1], sharex=True, squeeze=False)
    for ax, (name, values) in zip(axes[:, 0], stay.items(), strict=True):
        ax.step(stay.index, values.ffill(), where="post", color=PALETTE[0], lw=0.8)
        ax.plot(stay.index, values, "o", color=INK, ms=2.2)
        ax.set_title(f"{name} ({units[name]})", loc="left", fontweight="normal", color=FAINT, pad=2)
        ax.margins(y=0.2)
    axes[-1, 0].set(xlabel="hours after ICU admission", xlim=(-0.5, 48), xticks=np.arange(0, 49, 6))
    return stamped(figure, dataset, f"One stay, hour by hour: {', '.join(stay)}; a line holds the latest value.")


def threshold_curve(evidence: pd.DataFrame, scorer: str, threshold: int, dataset: str) -> Figure:
    """Titles matched rightly, wrongly or not at all, by threshold and scorer; the chosen ones of both are marked.

    `evidence` is as `harmonize.evidence` returns it; each kind of held-out titles gets a row of panels.
    """
    kinds = evidence["held_out"].unique()[::-1]
    figure, grid = canvas("two columns", 42 * len(kinds) + 12, rows=len(kinds), columns=3, sharex=True, squeeze=False)
    for panels, kind in zip(grid, kinds, strict=True):
        for ax, count in zip(panels, ("right", "wrong", "excluded"), strict=True):
            rows = evidence[evidence["held_out"] == kind].pivot(index="threshold", columns="scorer", values=count)
            for i, name in enumerate(evidence["scorer"].unique()):
                style = {"color": PALETTE[i], "marker": "os^DP"[i], "ms": 3.5, "markevery": (2 * i, 10)}
                style |= {"lw": 2, "label": f"{name} (chosen)"} if name == scorer else {"lw": 0.9, "label": name}
                ax.plot(rows.index, rows[name], **style)
            ax.axvline(threshold, color=INK, ls="--", lw=0.9)
            ax.set(title=f"{kind}: {count}", ylabel="titles")
            ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.set_ylim(bottom=0)
    for ax in grid[-1]:
        ax.set_xlabel(f"threshold (score; dashed: {threshold})")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    caption = (
        f"Held-out titles matched rightly, wrongly or not at all, by threshold; chosen: {scorer} from {threshold} on."
    )
    return stamped(figure, dataset, caption)


def dials(by_tail: dict[float, pd.Series], by_words: dict[int, pd.Series], dataset: str) -> Figure:
    """What two parameters of the synthetic hospital do, ``tail`` and ``course_words``.

    `by_tail` holds for values of the first the stays of each DRG, `by_words` for values of the second the words of each
    hospital course.
    """
    figure, (left, right) = canvas("two columns", 66, columns=2)
    for (tail, stays), colour, style in zip(by_tail.items(), PALETTE, LINES, strict=False):
        share = stays.sort_values(ascending=False).cumsum() / stays.sum()
        left.plot(range(1, len(share) + 1), share, ls=style, color=colour, label=f"tail {tail:g}: {len(share)} DRGs")
    left.set(xlabel="DRGs, the most frequent first", ylabel="share of the stays (%)", ylim=(0, 1.02), xscale="log")
    left.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    left.xaxis.set_minor_locator(NullLocator())
    percent(left.yaxis)
    left.legend()
    for (target, words), colour, style in zip(by_words.items(), PALETTE, LINES, strict=False):
        label = f"course_words {target}: mean {words.mean():.0f}"
        sns.kdeplot(words, ax=right, color=colour, ls=style, cut=0, label=label)
    right.set(xlabel="words in the hospital course", ylabel="density", xlim=(0, None))
    right.legend()
    return stamped(
        figure,
        dataset,
        "What two parameters of the synthetic hospital do: more DRGs by tail, longer courses by course_words.",
    )


def hardness(hardness: dict, dataset: str) -> Figure:
    """Top-1 accuracy of TF-IDF by number of training stays, beside grouped documentation and inversion attack.

    Without a curve, the two stand on an axis of accuracy.

    `hardness` holds ``documented`` and ``attack``, each a dict of value, lower and upper; and ``curve``, a list of such
    dicts that also have train_stays.
    """
    levels = {
        "documented": ("grouped documentation: the grouper, told all codes that were written down", PALETTE[2], "--"),
        "attack": ("inversion attack: a dictionary of the notes’ own words", PALETTE[3], "-."),
    }
    curve = pd.DataFrame(hardness["curve"])
    figure, ax = canvas("two columns", 72 if len(curve) else 30)
    for y, (key, (name, colour, style)) in enumerate(levels.items()):
        value, lower, upper = (hardness[key][end] for end in ("value", "lower", "upper"))
        if len(curve):
            ax.axhspan(lower, upper, color=colour, alpha=0.15, lw=0)
            ax.axhline(value, color=colour, ls=style, label=f"{name} ({value:.2f})")
        else:
            ax.errorbar(value, y, xerr=[[value - lower], [upper - value]], fmt="os"[y], color=colour)
    if len(curve):
        _, colour, marker = style_of("tfidf")
        reach = [curve["value"] - curve["lower"], curve["upper"] - curve["value"]]
        ax.errorbar(curve["train_stays"], curve["value"], reach, color=colour, marker=marker, capsize=2, label="TF-IDF")
        ax.set(xscale="log", xlabel="training stays (log scale)", ylabel="top-1 accuracy (%)", ylim=(0, 1))
        ax.set_xticks(curve["train_stays"], [f"{n:,}" for n in curve["train_stays"]])
        ax.xaxis.set_minor_locator(NullLocator())
        figure.legend(loc="outside upper center", ncols=1)
    else:
        ax.set_yticks(
            range(2), [f"{name.split(':')[0]} ({hardness[key]['value']:.2f})" for key, (name, *_) in levels.items()]
        )
        ax.set(xlabel="top-1 accuracy (%)", xlim=(0, 1), ylim=(1.5, -0.5))
    percent(ax.yaxis if len(curve) else ax.xaxis)
    said = [f"{name.split(':')[0]} {hardness[key]['value']:.2f}" for key, (name, *_) in levels.items()]
    said += [f"TF-IDF {last.value:.2f} with {last.train_stays:,} training stays" for last in curve.tail(1).itertuples()]
    return stamped(figure, dataset, f"Top-1 accuracy: {', '.join(said)}.")


def strata(table: pd.DataFrame, dataset: str, names: dict | None = None) -> Figure:
    """Accuracy of each run in each stratum, and how much better than the first run each other one is.

    `table` is from `comparisons.by_stratum`.
    """
    strata, runs = list(dict.fromkeys(table["stratum"])), in_order(table["run"])
    figure, (left, right) = canvas("two columns", 20 + 6.4 * len(strata), columns=2, sharey=True)
    for number, run in enumerate(runs):
        rows = table[table["run"] == run].set_index("stratum").loc[strata]
        name, colour, marker = style_of(run, names)
        at = [y + 0.16 * (number - (len(runs) - 1) / 2) for y in range(len(strata))]
        for ax, value, low, high in ((left, "value", "lower", "upper"), (right, *_DIFFERENCE)):
            if rows[value].notna().any():
                reach = [rows[value] - rows[low], rows[high] - rows[value]]
                ax.errorbar(rows[value], at, xerr=reach, fmt=marker, color=colour, label=name)
    stays = table.groupby("stratum")["stays"].first()
    left.set_yticks(range(len(strata)), [f"{name} ({stays[name]:,})" for name in strata])
    left.set_ylim(len(strata) - 0.5, -0.5)
    left.set(xlabel="top-1 accuracy (%)", xlim=(-0.02, 1.02))
    first = style_of(table["run"].iloc[0], names)[0]
    right.axvline(0, color=FAINT, lw=0.8, ls="--")
    right.set(xlabel=f"difference from {first} (points)")
    percent(left.xaxis, right.xaxis)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(runs))
    whole = table[(table["stratum"] == strata[0]) & table["difference"].notna()]
    form = "{0:+.1f} points ({1:+.1f} to {2:+.1f})"
    told = [
        f"{style_of(row['run'], names)[0]} {minus(form.format(*(100 * row[list(_DIFFERENCE)])))}"
        for _, row in whole.iterrows()
    ]
    caption = (
        f"Top-1 accuracy by stratum of the test stays. {strata[0]}, against {first}: {'; '.join(told) or 'not shown'}."
    )
    return stamped(figure, dataset, caption)
