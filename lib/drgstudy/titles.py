"""The wording of a billed DRG title: standardised, as DRG-LLaMA's published code changes it, and mistyped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import drgs, sheets
from drgstudy.study import REFERENCE, StudyError, short_repr

NOT_PUBLISHED = "no title of v34 by the published rules, nor in the authors' table"

_SPELLING = [
    (re.compile(pattern), standard)
    for pattern, standard in [
        (r"\bW ?/ ?O\b", " WITHOUT "),
        (r"<=?", " UNDER "),
        (r">", " OVER "),
        (r"\+", " PLUS "),
        (r"\.", ""),
        (r"[^A-Z0-9]+", " "),
    ]
]
# "O.R." loses its dots above and becomes a connective: no two titles differ by it alone, and v35 dropped it from five.
_CONNECTIVES = {"AND", "OR", "OF", "THE"}
_PUBLISHED = [
    ("W/O", "WITHOUT"),
    (" W ", " WITH "),
    ("&", "AND"),
    (",", ""),
    (" CATH ", " CATHETERIZATION "),
    (" PROC ", " PROCEDURES "),
]
_BY_HAND = ["raw_description", "DRG_34_description"]


@cache
def _abbreviations() -> dict[str, str]:
    return pd.read_csv(REFERENCE / "abbreviations.csv", index_col=0)["standard"].to_dict()


@cache
def standardise(title: str) -> str:
    """A title in capitals, with abbreviations spelled out, without connectives, punctuation and plural s.

    The severity phrase stays readable (WITH MCC, WITHOUT CC/MCC, ...), and so do the signs that tell DRGs apart: > and
    < become words. For most v34 titles, the billed form and the manual's become equal.
    """
    title = title.upper()
    for pattern, standard in _SPELLING:
        title = pattern.sub(standard, title)
    words = (_abbreviations().get(word, word) for word in title.split())
    words = (re.sub(r"(?<=\w{3})S$", "", word) for word in words if word not in _CONNECTIVES)
    return " ".join(words).replace("CC MCC", "CC/MCC")


def signs(title: str) -> str:
    """The title's letters, digits and telling signs alone: as they are written, so a cut title's are its beginning."""
    return re.sub(r"[^A-Z0-9<>+]", "", title.upper())


def published_wording(title: str) -> str:
    """A billed title as DRG-LLaMA's published code words it, before it looks the title up."""
    for was, becomes in _PUBLISHED:
        title = title.replace(was, becomes)
    return title


def read_by_hand(path: Path) -> dict[str, str]:
    """Read the authors' table of titles made by hand: v34 titles by billed title, both as `published_wording` words them.

    Raises
    ------
    StudyError
        If the file is no CSV with the columns raw_description and DRG_34_description, or names two v34 titles for one
        billed title.
    """
    by_hand: dict[str, str] = {}
    for line, pair in enumerate(sheets.read(path, _BY_HAND)[_BY_HAND].itertuples(index=False), start=2):
        raw, theirs = (published_wording(text.strip()) for text in pair)
        if by_hand.setdefault(raw, theirs) != theirs:
            raise StudyError(
                f"{path}, line {line}, column DRG_34_description: {short_repr(theirs)}, but an earlier line names "
                f"{short_repr(by_hand[raw])} for this title; remove one of the two"
            )
    return by_hand


@cache
def _manual() -> tuple[dict[str, str], dict[str, str]]:
    """The v34 code of each title of the manual, as it stands there and as `published_wording` words it."""
    codes = {title: code for code, title in drgs.v34()["title"].items()}
    return codes, {published_wording(title): code for title, code in codes.items()}


def as_published(title: str, by_hand: dict[str, str] | None = None) -> dict[str, str]:
    """What DRG-LLaMA's published code makes of a billed title, without a look at its code.

    Returns
    -------
    dict
        drg_v34 and provenance: "title" if the title, as `published_wording` has it, is one of v34's manual, "by hand" if
        the authors' table leads to one. Otherwise reason.
    """
    (manual, worded), wording = _manual(), published_wording(title)
    if wording in manual:
        return {"drg_v34": manual[wording], "provenance": "title"}
    if not (theirs := (by_hand or {}).get(wording)):
        return {"reason": NOT_PUBLISHED}
    if theirs not in worded:
        return {"reason": f"the authors' table says {short_repr(theirs)}, which is no title of v34"}
    return {"drg_v34": worded[theirs], "provenance": "by hand"}


def mistyped(title: str, errors: int, rng: np.random.Generator) -> str:
    """The title with so many typing errors, each a letter left out, changed, doubled or swapped with the next.

    In addition, a title turns to lower case with probability 1/2, loses its commas with probability 1/2, and loses a
    piece of one to twelve characters with probability 1/4.
    """
    for _ in range(errors):
        place = rng.integers(len(title) - 1)
        here, after = title[place : place + 2]
        typed = [after, chr(ord("A") + rng.integers(26)) + after, here + here + after, after + here][rng.integers(4)]
        title = title[:place] + typed + title[place + 2 :]
    lower, no_commas, cut = rng.random(3) < (0.5, 0.5, 0.25)
    if cut:
        place = rng.integers(len(title))
        title = title[:place] + title[place + rng.integers(1, 13) :]
    title = title.lower() if lower else title
    return title.replace(",", "") if no_commas else title
