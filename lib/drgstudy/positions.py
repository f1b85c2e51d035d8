"""Where the word stands that says most for a note's DRG, and whether models miss it there: lost in the middle?

A model's own attribution can't tell, for it names the words that the model did use. So the word is found without any
model, by how much more often the training notes of its base DRG have it than others do. That works on any notes.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer
from statsmodels.stats.proportion import confint_proportions_2indep

from drgstudy import disclosure
from drgstudy.tables import signed

PARTS = ("first third", "middle third", "last third", "cut off", "no such word")
LEAST = 3  # notes that a word must occur in
SURE = 3.0  # standard errors that are taken off a word's log odds ratio: what is left must be above 0


def deciding(train: pd.DataFrame, test: pd.DataFrame) -> pd.Series:
    """Where the word that says most for a note's base DRG first stands in it.

    Parameters
    ----------
    train, test : DataFrame
        text and base (str); test is indexed by stay_id.

    Returns
    -------
    Series of float
        By stay_id, the place of the word's first letter in the text; NaN where the note has no word that says anything.

    Notes
    -----
    A word says as much as its log odds ratio, less `SURE` standard errors: that of notes of the base against the others, and
    of notes with the word against those without. Source: Woolf 1955, with Haldane's half a note in each cell.
    """
    counter = CountVectorizer(binary=True, min_df=LEAST, token_pattern=_word().pattern)
    counts = counter.fit_transform(train["text"])
    bases, base = np.unique(train["base"], return_inverse=True)
    of_base = csr_array((np.ones(len(base)), (base, np.arange(len(base)))), shape=(len(bases), len(base))) @ counts
    sizes, everywhere, starts = np.bincount(base), np.asarray(counts.sum(axis=0)).ravel(), {}
    for name, notes in test.groupby("base"):
        if name not in bases:  # no training note says what its words are
            continue
        at = np.searchsorted(bases, name)
        here = of_base[[at]].toarray().ravel()
        there = everywhere - here
        with_it, without = (
            np.array([here, there]) + 0.5,
            np.array([sizes[at] - here, len(base) - sizes[at] - there]) + 0.5,
        )
        odds = np.log(with_it / without)  # (base and others, words)
        says = odds[0] - odds[1] - SURE * np.sqrt((1 / with_it + 1 / without).sum(axis=0))
        score = dict(zip(counter.get_feature_names_out(), says, strict=True))
        for stay, text in notes["text"].items():
            words = [(score.get(word[0].lower(), 0.0), -word.start()) for word in _word().finditer(text)]
            best, start = max(words, default=(0.0, 0))
            starts[stay] = -start if best > 0 else np.nan
    return pd.Series(starts, dtype=float).reindex(test.index)


def read_until(model, texts: list[str]) -> list[int]:
    """How many characters of each text a trained model reads."""
    limit = getattr(model.settings, "max_tokens", 0)
    if not limit:
        return list(map(len, texts))
    if not hasattr(model, "tokenizer"):
        return [max([m.end() for m in _word().finditer(text)][:limit], default=0) for text in texts]
    room = limit - len(model.tokenizer(getattr(model.settings, "suffix", ""), add_special_tokens=False).input_ids)
    read = model.tokenizer(texts, truncation=True, max_length=room, return_offsets_mapping=True).offset_mapping
    return [max((end for _, end in spans), default=0) for spans in read]


def parts(starts: pd.Series, read: pd.Series) -> pd.DataFrame:
    """Which of `PARTS` each note's word stands in, one column (bool) for each; both by stay_id, `read` as of `read_until`."""
    third = np.floor(3 * starts / read.clip(lower=1))
    place = third.where(starts < read, 3).where(starts.notna(), 4)
    return pd.DataFrame({name: place == number for number, name in enumerate(PARTS)})


def told(table: pd.DataFrame, mask_below: int) -> pd.DataFrame:
    """The table of `comparisons.by_stratum` without the parts of which few stays are right, or wrong, in any run.

    All stays of all parts make up the first stratum, "all", of which it is told elsewhere how many are right.
    """
    of_parts, hidden = table[table["stratum"] != "all"], set()
    for _, rows in of_parts.groupby("run"):
        right = (rows["value"] * rows["stays"]).round().astype(int)
        for counts in (right, rows["stays"] - right):
            hidden |= {*rows["stratum"][disclosure.withheld(counts, mask_below, [np.ones(len(rows), bool)])]}
    return table[~table["stratum"].isin(hidden)].reset_index(drop=True)


def sentence(table: pd.DataFrame, run: str, name: str) -> str:
    """Whether `run`, called `name`, misses words in the middle of what it reads: a sentence, from the table of `told`."""
    rows = table[table["run"] == run].set_index("stratum")
    if not {*PARTS[:3]} <= {*rows.index}:
        return f"Whether {name} misses words in the middle is not shown: there are too few stays."
    stays = rows["stays"]
    right = (rows["value"] * stays).round()
    ends = [PARTS[0], PARTS[2]]
    counts = right[PARTS[1]], stays[PARTS[1]], right[ends].sum(), stays[ends].sum()
    low, high = (100 * end for end in confint_proportions_2indep(*counts, method="newcomb", compare="diff"))
    middle, end = (100 * hits / n for hits, n in (counts[:2], counts[2:]))
    verdict = f"It can’t be told whether {name} misses what stands in the middle"
    if not low <= 0 <= high:
        verdict = f"{name} {'misses' if high < 0 else 'does better with'} what stands in the middle"
    gone = f"; where it is cut off, {100 * rows.loc['cut off', 'value']:.0f} %" if "cut off" in rows.index else ""
    return (
        f"{verdict}: it names right {middle:.0f} % of the stays whose deciding word stands in the middle third of what it reads, "
        f"and {end:.0f} % where it stands before or after ({signed(middle - end, 1)} points, 95 % interval {signed(low, 1)} to "
        f"{signed(high, 1)}){gone}."
    )


def _word() -> re.Pattern:
    """What CAML takes for a word; asked for late, for its module brings PyTorch."""
    from drgstudy.models.caml import WORD

    return WORD
