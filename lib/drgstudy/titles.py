"""The known titles of MS-DRGs of all years, each with the v34 DRG that it is, and how a title's spelling is evened out.

The titles are those of v34, as billed and as the manual words them, and those of fiscal years 2008 to 2025 in
``data/reference/crosswalk.csv``, each with its v34 code and what CMS did to the group (`KINDS`). Beside them stands how
DRG-LLaMA's published code finds a title (`as_published`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from drgstudy import drgs, sheets
from drgstudy.study import REFERENCE, StudyError, short_repr

KINDS = {
    "reworded": "the same group in other words",
    "misprinted": "one year's table has a misprint",
    "renumbered": "the same group under another code",
    "widened": "cases were added to the group",
    "narrowed": "cases were taken from the group",
    "merged": "groups became one",
    "divided": "the group became several",
    "regrouped": "groups were divided along other lines",
    "dropped": "the title went out of use",
}
"""What CMS did to the group of a crosswalk title between the title's years and v34, or between v34 and them."""

SURE = {
    "tables": "CMS's yearly tables show it",
    "published": "an article on that year's rule says so too",
    "unchecked": "from knowledge of the rule, not checked against its text",
}
"""How sure the outcome of a crosswalk title is."""

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

NOT_PUBLISHED = "no title of v34 by the published rules, nor in the authors' table"
_PUBLISHED = [
    ("W/O", "WITHOUT"),
    (" W ", " WITH "),
    ("&", "AND"),
    (",", ""),
    (" CATH ", " CATHETERIZATION "),
    (" PROC ", " PROCEDURES "),
]
_BY_HAND = ["raw_description", "DRG_34_description"]


class Known(NamedTuple):
    """A title of some year and its outcome: a v34 code, or None and the reason."""

    code: str
    title: str
    drg_v34: str | None
    reason: str


class Index(NamedTuple):
    """Known titles by (code, standard title), by standard title alone and, for matching, by severity and by code."""

    by_pair: dict
    by_title: dict
    by_severity: dict
    by_code: dict


@cache
def abbreviations() -> dict[str, str]:
    """How billed titles abbreviate, and the words meant."""
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
    words = (abbreviations().get(word, word) for word in title.split())
    words = (re.sub(r"(?<=\w{3})S$", "", word) for word in words if word not in _CONNECTIVES)
    return " ".join(words).replace("CC MCC", "CC/MCC")


def signs(title: str) -> str:
    """The title's letters, digits and telling signs alone: as they are written, so a cut title's are its beginning."""
    return re.sub(r"[^A-Z0-9<>+]", "", title.upper())


def bare(standard_title: str) -> str:
    """A standard title without its severity phrase."""
    return drgs.SEVERITY.sub("", standard_title)


@cache
def entries() -> list[Known]:
    """The titles of v34, as billed and as the manual words them, and those of the crosswalk."""
    crosswalk = pd.read_csv(REFERENCE / "crosswalk.csv", dtype=str, keep_default_na=False)
    v34 = drgs.v34()
    known = [Known(code, title, code, "") for code, title in [*v34["title"].items(), *v34["billed_title"].items()]]
    return known + [
        Known(row.code, row.title, None if row.v34 == "excluded" else row.v34, row.reason)
        for row in crosswalk.itertuples()
    ]


@cache
def history() -> list[tuple[str, str]]:
    """The pairs of code and title of all years."""
    pairs = drgs.titles_by_year()[["drg", "title"]].drop_duplicates()
    return list(pairs.itertuples(index=False, name=None))


def index(entries: list[Known]) -> Index:
    """What is known if only these titles are, each in the wordings of all years that are equal once standardised."""
    by_title = {standardise(entry.title): entry for entry in entries}
    by_pair = {(entry.code, standardise(entry.title)): entry for entry in entries}
    by_severity, by_code = defaultdict(dict), defaultdict(list)
    for standard, entry in by_title.items():
        by_severity[drgs.severity(standard)][entry.code, standard] = bare(standard)
    for code, title in dict.fromkeys([*((entry.code, entry.title) for entry in entries), *history()]):
        if entry := by_pair.get((code, standard := standardise(title))):
            by_code[code].append((signs(title), standard, entry))
    return Index(by_pair, by_title, by_severity, by_code)


@cache
def known() -> Index:
    """What is known of all titles."""
    return index(entries())


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
