"""Diagrams: which file is made from which, what each step of a cohort kept, and one label beside two."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from drgstudy.drgs import SYSTEMS
from drgstudy.plots.canvas import arrow, canvas, stamped, text_box
from drgstudy.plots.style import FAINT, INK, OURS, PALETTE, SMALL, THEIRS
from drgstudy.study import studies


def study_map() -> Figure:
    """Every study as a chain of files, each with the notebook that makes it, from the entries of ``studies.yaml``."""
    known = studies()
    figure, ax = canvas("two columns", 27 * len(known))
    ax.axis("off")
    for y, study in enumerate(known):
        ax.text(-0.4, 0.85 - 1.7 * y, study.name, va="bottom", weight="bold")
        for x, (notebook, file) in enumerate(study.map.items()):
            if x:
                arrow(ax, (x - 0.59, -1.7 * y), (x - 0.41, -1.7 * y))
            text_box(ax, x, -1.7 * y, file, THEIRS, width=0.8)
            ax.text(x, 0.4 - 1.7 * y, notebook, ha="center", va="bottom", color=FAINT, fontsize=SMALL)
    ax.set(xlim=(-0.45, 4.45), ylim=(1.3 - 1.7 * len(known), 1.15))
    return figure


def approaches() -> Figure:
    """Figure 3: one network, and two ways from its hidden state to a DRG; the example is DRGs 291 to 293."""
    figure, ax = canvas("two columns", 118)
    ax.axis("off")
    ax.set(xlim=(0, 9.5), ylim=(0, 6.4))
    trunk = {
        "Hospital course\n“… dyspnea, edema, BNP\n4,200: diuresed …”": "white",
        "Tokens\nthe first 512 at most": "white",
        "LLaMA, weights frozen,\nwith LoRA on q, k, v, o\nof the tuned layers": OURS,
        "Hidden state\nof the last token,\nor the tokens’ mean": "white",
    }
    for i, (text, fill) in enumerate(trunk.items()):
        text_box(ax, 1.15 + 2.4 * i, 5.85, text, fill, width=2, height=0.9)
        if i:
            arrow(ax, (2.4 * i - 0.25, 5.85), (2.4 * i + 0.15, 5.85))
    ax.plot([8.35, 8.35, 0.2, 0.2], [5.4, 5.15, 5.15, 1.65], color=FAINT, lw=0.7)
    for y, name, loss in ((4.8, "Single label", "CE(DRG)"), (3.3, "Two labels", "CE(base DRG) + ½ CE(CC/MCC label)")):
        ax.text(0.4, y, name, va="center", weight="bold", color=INK)
        ax.text(9.35, y, f"loss: {loss}", ha="right", va="center", color=FAINT)

    heads = {4.1: "One linear head\na logit for each DRG", 1.65: "One linear head\n340 + 5 logits"}
    for y, text in heads.items():
        arrow(ax, (0.2, y), (0.4, y))
        text_box(ax, 1.25, y, text, OURS, width=1.7)
    arrow(ax, (2.1, 4.1), (2.5, 4.1))
    arrow(ax, (2.1, 1.78), (2.5, 2.4))
    arrow(ax, (2.1, 1.52), (2.5, 1))
    # An invented example: the likeliest CC/MCC label is not one of this base DRG, so that the two rules differ.
    single = {"291 heart failure … with MCC": 0.5, "292 heart failure … with CC": 0.25, "193 pneumonia … with MCC": 0.1}
    bases = {"heart failure and shock": 0.7, "simple pneumonia and pleurisy": 0.15, "renal failure": 0.1}
    labels = {"without MCC": 0.35, "with MCC": 0.3, "with CC": 0.2, "without CC/MCC": 0.1, "not applicable": 0.05}
    for y, title, shares, own in (
        (4.1, "Softmax over all DRGs", single, single),
        (2.4, "Softmax over 340 base DRGs", bases, bases),
        (1, "Softmax over five CC/MCC labels", labels, ("with MCC", "with CC", "without CC/MCC")),
    ):
        height = 0.36 + 0.19 * len(shares)
        text_box(ax, 4.2, y, "", "white", width=3.4, height=height)
        for i, text in enumerate((title, *shares)):
            row = y + height / 2 - 0.17 - 0.19 * i
            fade = INK if i == 0 or text in own else FAINT
            ax.text(2.6, row, text, va="center", color=fade, fontsize=7 if i == 0 else SMALL)
            if i:
                style = {"color": PALETTE[0]} if text in own else {"fc": "white", "ec": FAINT, "hatch": "////"}
                ax.barh(row, 1.15 * shares[text], left=4.75, height=0.11, lw=0.6, **style)
    arrow(ax, (5.9, 4.1), (7.95, 4.1))
    ax.text(6.9, 4.17, "the likeliest", ha="center", va="bottom", color=FAINT, fontsize=SMALL)
    for y, text in (
        (2.4, "(a) likeliest label\nthat this base has\nin the training set"),
        (1, "(b) likeliest of all,\nmapped into the\nbase’s own labels"),
    ):
        text_box(ax, 6.98, y, text, "white", width=1.55, height=0.8)
        for start in (2.4, 1):
            arrow(ax, (5.9, start), (6.2, y + 0.1 * np.sign(start - y)))
        arrow(ax, (7.75, y), (7.95, y))
    for x, y, code, label in (
        (8.65, 4.1, 291, "with MCC"),
        (8.65, 2.4, 291, "with MCC"),
        (8.65, 1, 293, "without\nCC/MCC"),
    ):
        text_box(ax, x, y, f"DRG {code}\n{label}", THEIRS, width=1.4, height=0.8)
    note = "Coloured boxes: what is trained, and the answers. Probabilities are invented; hatched: not a label of this base DRG."
    figure.set_label(
        "One network and two ways from its hidden state to a DRG: one head over all DRGs, or a base DRG and a CC/MCC label."
    )
    ax.text(9.35, 0.1, note, ha="right", color=FAINT, fontsize=SMALL)
    return figure


def flow_diagram(flow: dict, dataset: str) -> Figure:
    """What each step kept: DRG-LLaMA's Figure 1, and the early-DRG study's Supplementary Figure 1.

    Parameters
    ----------
    flow : dict
        A list of {step, kept, removed} for each of two columns. These are either notes and DRG rows, which meet in the
        cohort and its parts (`cohort.build_cohort`), or the cohorts of the two DRG systems (`icu_cohort.build`).
    """
    chains = {name: flow[name] for name in ("notes", "drg_rows", *SYSTEMS) if name in flow}
    depth, meet = max(map(len, chains.values())), "splits" in flow
    figure, ax = canvas("two columns", 14 * depth + (30 if meet else 12))
    ax.axis("off")
    for (name, chain), side, align in zip(chains.items(), (-1, 1), ("right", "left"), strict=True):
        gap = (depth - 1) / (len(chain) - 1)
        for i, step in enumerate(chain):
            y, is_cohort = -i * gap, not meet and i == len(chain) - 1
            said = f"{step['step'][0].upper()}{step['step'][1:]}\n{step['kept']:,}"
            text_box(ax, side, y, said, OURS if is_cohort else "white", width=1.5)
            if i:
                arrow(ax, (side, y + gap - 0.28), (side, y + 0.28))
                change = f"{abs(step['removed']):,} {'left out' if step['removed'] >= 0 else 'added'}"
                ax.text(side * 1.06, y + gap / 2, change, ha=align, va="center", color=FAINT)
        if meet:
            arrow(ax, (side, 0.72 - depth), (side * 0.3, 0.28 - depth))
        else:
            ax.text(side, 0.42, f"{SYSTEMS[name]} cohort", ha="center", va="bottom", weight="bold")
    if meet:
        text_box(ax, 0, -depth, f"Cohort\n{flow['stays']:,} stays, {flow['labels']:,} DRGs", OURS, width=1.6)
        for x, part, name in ((-0.8, "train", "Training"), (0.8, "test", "Test")):
            stays, labels = (flow["splits"]["split"][f"{part}_{what}"] for what in ("stays", "labels"))
            arrow(ax, (x / 3, -0.28 - depth), (x, -0.72 - depth))
            text_box(ax, x, -1 - depth, f"{name}\n{stays:,} stays, {labels:,} DRGs", OURS, width=1.4)
    ax.set(xlim=(-1.8, 1.8), ylim=(-1.3 - depth, 0.3) if meet else (0.6 - depth, 0.8))
    if meet:
        kept = f"{flow['stays']:,} stays with {flow['labels']:,} DRGs"
    else:
        kept = "; ".join(f"{SYSTEMS[name]} {chain[-1]['kept']:,}" for name, chain in chains.items())
    return stamped(figure, dataset, f"What each step of the cohort kept. In the cohort: {kept}.")
