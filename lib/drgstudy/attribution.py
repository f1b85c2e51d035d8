"""Why did it say that: which places of a text moved a model's logit of one DRG, and the picture of it.

A model that can tell exactly (`attributions`) is asked. A language model is tried word by word: how far does the logit
fall when attention can't see the word (captum's feature ablation)? Integrated gradients, the usual choice, fail here.
Along the straight path from padding to the text, the logits of the demo's LLaMA are so rough that the gradients' sum
misses half of the logit's change, and the words that they name matter less (``benchmarks/attribution.py``).
"""

from __future__ import annotations

import html
import re
import string
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import drgs, models
from drgstudy.predictions import Predictions
from drgstudy.study import Paths, StudyError, atomic, read_json, write_json

FOR, AGAINST = (0, 114, 178), (213, 94, 0)  # red, green, blue of the two shades
Piece = tuple[int, int, float]


@dataclass(frozen=True)
class Explanation:
    """What moved one logit.

    Attributes
    ----------
    unit : str
        What the scores measure.
    pieces : list of (int, int, float)
        Start, end and score of places in the text: words, terms or n-grams. Positive scores speak for the DRG.
    """

    unit: str
    pieces: list[Piece]


def remembered(paths: Paths, folder: Path, made: Predictions, asked: str, ask: Callable):
    """What a trained model answers, from what was kept of it if only its released predictions lie here.

    Parameters
    ----------
    paths : Paths
    folder : Path
        Where the model lies.
    made : Predictions
        What it predicted.
    asked : str
        Names the question.
    ask : callable
        Is given the model, and returns the answer, as JSON can hold it.

    Raises
    ------
    StudyError
        If the run is a released one, and this was not asked when it was released; or as `models.load`.
    """
    file = paths.explained / f"{'-'.join(folder.relative_to(paths.runs).parts)}.json"
    kept = read_json(file) if file.is_file() else {}
    kept = kept if kept.get("predictions") == made.run["predictions"] else {"predictions": made.run["predictions"]}
    if "released" not in made.run:
        kept[asked] = ask(models.load(folder, made)[0])
        write_json(file, kept)
    elif asked not in kept:
        raise StudyError(
            f"run {made.run['run']} lies here by its released predictions alone, and they do not say what the model makes of "
            f"{asked}; train it to ask it that (make report PROFILE={paths.profile})"
        )
    return kept[asked]


def reasons(paths: Paths, made: Predictions, text: str, at: int, first: int) -> tuple[dict[str, Explanation], dict]:
    """What moved a run's logits of two DRGs of a test stay, and whether the words for the first matter.

    Parameters
    ----------
    text : str
        The stay's.
    at : int
        The stay's position among the test stays.
    first : int
        Index of a DRG; the second is the billed one, where it is another.

    Returns
    -------
    explanations : dict of str to Explanation
        By DRG, the first one first.
    falls : dict
        Of `check`, for the first.
    """
    wanted, folder = dict.fromkeys([first, int(made.truth[at])]), paths.runs / made.run["run"]

    def ask(model) -> list:
        said = [explain(model, text, label) for label in wanted]
        return [[vars(each) for each in said], check(model, text, said[0].pieces, first)]

    said, falls = remembered(paths, folder, made, f"stay {made.stay_ids[at]}", ask)
    return {str(made.labels[k]): Explanation(**each) for k, each in zip(wanted, said, strict=True)}, falls


def explain(model, text: str, label: int) -> Explanation:
    """Which places of `text` moved the trained model's logit of the DRG with index `label`.

    Raises
    ------
    StudyError
        If the text holds fewer than two words.
    """
    if len(text.split()) < 2:
        raise StudyError(f"the text to explain, {text!r}, holds fewer than two words; give a hospital course")
    if hasattr(model, "attributions"):
        return Explanation(model.attribution, model.attributions(text, int(label)))
    return Explanation("fall of the logit without the word", _without_each_word(model, text, int(label)))


def _without_each_word(model, text: str, label: int) -> list[Piece]:
    """Each word that was read: its start and end, and how far the logit falls when attention can't see it."""
    import torch
    from captum.attr import FeatureAblation

    suffix = model.tokenizer(getattr(model.settings, "suffix", ""), add_special_tokens=False).input_ids
    room = model.settings.max_tokens - len(suffix)
    tokens = model.tokenizer(text, truncation=True, max_length=room, return_offsets_mapping=True).offset_mapping
    words = [m.span() for m in re.finditer(r"\S+", text)]
    ends = [end for _, end in words]
    # Which word each token belongs to. A blank goes with the word after it; tokens without text make one more group.
    owner = [bisect_left(ends, end) if end > start else len(words) for start, end in tokens] + [len(words)] * len(
        suffix
    )
    found, features = np.unique(owner, return_inverse=True)
    batch = model.collate([{"input_ids": model.tokens([text])[0]}])
    ids, mask = (part.to(model.net.device) for part in batch.values())  # (1, tokens) each

    model.net.eval()
    with torch.no_grad():
        falls = FeatureAblation(
            lambda mask, ids: model.net(input_ids=ids, attention_mask=mask)["logits"].float()
        ).attribute(
            mask,
            0,
            label,
            (ids,),
            feature_mask=torch.as_tensor(features, device=ids.device)[None],
            perturbations_per_eval=8,
        )
    score = dict(zip(owner, falls[0].tolist(), strict=True))  # falls is (1, tokens), equal for the tokens of a word
    return [(*words[i], score[i]) for i in found if i < len(words)]


def check(model, text: str, pieces: list[Piece], label: int, n: int = 5, draws: int = 10) -> dict[str, float]:
    """Do these words matter? How far the logit falls without the `n` strongest words, and without `n` random ones.

    Returns
    -------
    dict of str to float
        ``strongest`` and ``random``, the falls of the logit. The second is the mean of `draws` draws, with seed 0, from
        all words up to the last that a piece touches.
    """
    words, rng = by_word(text, pieces), np.random.default_rng(0)
    n = min(n, len(words))
    cuts = [np.argsort([-score for *_, score in words], kind="stable")[:n]]
    cuts += [rng.choice(len(words), n, replace=False) for _ in range(draws)]
    shorter = []
    for cut in cuts:
        kept = text
        for i in sorted(cut, reverse=True):
            kept = kept[: words[i][0]] + kept[words[i][1] :]
        shorter.append(kept)
    whole, strongest, *others = model.predict([text, *shorter])[:, label].tolist()
    return {"strongest": whole - strongest, "random": whole - float(np.mean(others))}


def by_word(text: str, pieces: list[Piece]) -> list[Piece]:
    """Start, end and score of each word (a run of visible characters) up to the last that a piece touches.

    A piece's score is shared evenly among the words that it touches, so the sum of the scores stays the same.
    """
    spans = [m.span() for m in re.finditer(r"\S+", text)]
    starts, ends, scores = np.array(spans)[:, 0], np.array(spans)[:, 1], np.zeros(len(spans))
    last = 0
    for start, end, score in pieces:
        touched = slice(np.searchsorted(ends, start, side="right"), np.searchsorted(starts, end))
        scores[touched] += score / max(1, touched.stop - touched.start)
        last = max(last, touched.stop)
    return [(*span, score) for span, score in zip(spans[:last], scores.tolist(), strict=False)]


def strongest(text: str, pieces: list[Piece], n: int) -> pd.Series:
    """Total score of the `n` phrases for which it is largest, whatever its sign; none overlaps a stronger one.

    Phrases with less than a hundredth of the strongest one's score are left out. The phrases are the index.
    """
    places: dict[str, list[Piece]] = {}
    for start, end, score in pieces:
        phrase = " ".join(text[start:end].lower().split()).strip(string.punctuation + " ")
        if phrase and score:
            places.setdefault(phrase, []).append((start, end, score))
    totals, taken = {}, np.zeros(len(text), dtype=bool)
    for phrase, spots in sorted(places.items(), key=lambda item: -abs(sum(score for *_, score in item[1]))):
        if len(totals) < n and not any(taken[start:end].any() for start, end, _ in spots):
            totals[phrase] = sum(score for *_, score in spots)
            for start, end, _ in spots:
                taken[start:end] = True
    series = pd.Series(totals, dtype=float)
    return series[series.abs() >= series.abs().max() / 100]


def top_ngrams(model, text: str, label: int, k: int = 3) -> list[tuple[str, float]]:
    """The `k` n-grams that `label`'s query attends to most, with their attention, strongest first.

    Notes repeat one another. Of two n-grams that read the same, or that share more than half of the shorter one's words
    (runs of visible characters), only the stronger is given. Runs of white space become one blank.

    Notes
    -----
    Source: early-DRG paper, Table 3.
    """
    found: list[tuple[set[int], str, float]] = []
    starts, ends = np.array([m.span() for m in re.finditer(r"\S+", text)]).reshape(-1, 2).T
    for start, end, weight in sorted(model.attributions(text, label), key=lambda piece: -piece[2]):
        words = set(range(np.searchsorted(ends, start, side="right"), np.searchsorted(starts, end)))
        phrase = " ".join(text[start:end].split())
        apart = all(2 * len(words & other) <= min(len(words), len(other)) for other, *_ in found)
        if len(found) < k and apart and phrase.lower() not in (known.lower() for _, known, _ in found):
            found.append((words, phrase, weight))
    return [(phrase, weight) for _, phrase, weight in found]


def top(logits: np.ndarray, labels: np.ndarray, n: int = 5) -> pd.DataFrame:
    """The `n` DRGs with the largest of the logits (float, shape (labels,)); `labels` are their v34 codes.

    Returns
    -------
    DataFrame
        drg, title, relative_weight, label (index) and probability (softmax over all labels), the likeliest first.
    """
    p = np.exp(logits - logits.max(), dtype=np.float64)
    order = np.argsort(-p, kind="stable")[:n]
    table = drgs.v34().loc[labels[order], ["title", "relative_weight"]].rename_axis("drg").reset_index()
    return table.assign(title=table["title"].map(drgs.readable), label=order, probability=p[order] / p.sum())


def bars(table: pd.DataFrame, truth: str = "", heading: str = "") -> str:
    """The table of `top` as HTML, with a bar for each probability; the DRG with code `truth` is marked."""
    rows = [
        f'<div style="margin:.35em 0"><b>{row.drg}</b> {html.escape(row.title)}{" ✓ billed" * (row.drg == truth)}<br>'
        f'<span style="display:inline-block;height:.7em;width:{60 * row.probability:.1f}%;background:rgb{FOR}"></span> '
        f"{100 * row.probability:.1f} % · weight {row.relative_weight:.2f}</div>"
        for row in table.itertuples()
    ]
    return _sheet("".join([f"<b>{html.escape(heading)}</b>" * bool(heading), *rows]))


def picture(text: str, explanation: Explanation, title: str) -> str:
    """The text as HTML that stands alone, each word shaded by its score, under `title`.

    Blue words speak for the DRG, orange ones against it. From half of the largest score on, words are bold and have a
    line under them, solid for the DRG and dotted against it. What the model did not read is grey.
    """
    words = by_word(text, explanation.pieces)
    largest = max((abs(score) for *_, score in words), default=0) or 1
    parts, end = [], 0
    for start, stop, score in words:
        share, colour, line = abs(score) / largest, FOR if score > 0 else AGAINST, "solid" if score > 0 else "dotted"
        style = f"background:rgba({','.join(map(str, colour))},{0.6 * share:.2f})"
        style += f";font-weight:bold;text-decoration:underline {line}" * (share >= 0.5)
        word = html.escape(text[start:stop])
        shaded = f'<span style="{style}" title="{score:+.3f}">{word}</span>' if share >= 0.05 else word
        parts.append(html.escape(text[end:start]) + shaded)
        end = stop
    unread = f'<span style="color:#767676">{html.escape(text[end:])}</span>'
    key = f"Shade: {html.escape(explanation.unit)}. Blue, underlined: for. Orange, dotted: against. Grey: not read."
    body = f'<div style="white-space:pre-wrap;margin:.5em 0">{"".join(parts)}{unread}</div>'
    return _sheet(f'<b>{html.escape(title)}</b>{body}<div style="color:#555;font-size:.85em">{key}</div>')


def _sheet(body: str) -> str:
    style = "background:#fff;color:#1d2330;padding:.7em .9em;max-width:46em;overflow-wrap:anywhere;line-height:1.6"
    return f'<div style="{style};font-family:sans-serif;border:1px solid #ccc;border-radius:4px;margin:.5em 0">{body}</div>'


def stay_to_explain(predictions: Predictions) -> int:
    """Position of a stay worth looking at: the top DRG is wrong, but the billed one is among the top five.

    Of these stays, or of all if there are none, it is the one of median confidence (the lower of two medians), that is,
    of median probability of the top DRG.
    """
    logits, rows = predictions.logits.astype(np.float64), np.arange(len(predictions.truth))
    above = (logits > logits[rows, predictions.truth][:, None]).sum(1)
    confidence = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
    near = np.flatnonzero((above >= 1) & (above < 5))
    near = near if len(near) else rows
    return int(near[np.argsort(confidence[near], kind="stable")[(len(near) - 1) // 2]])


def page(parts: list[str], file: Path, credentialed: bool):
    """The parts as HTML for a notebook to show; of credentialed data they go to `file`, and only its path is shown."""
    from IPython.display import HTML

    if not credentialed:
        return HTML("".join(parts))
    head = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Why</title>'
    head += """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
    with atomic(file) as beside:
        beside.write_text(head + "".join(parts), encoding="utf-8")
    return f"Text of credentialed data is not shown here; open {Path(*file.parts[-4:])}"
