"""The known titles of MS-DRGs of all years, each with the v34 DRG that it is, and how a title's spelling is evened out.

The titles are those of v34, as billed and as the manual words them, and those of fiscal years 2008 to 2025 in
``data/reference/crosswalk.csv``, each with its v34 code and what CMS did to the group (`KINDS`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from typing import NamedTuple

import pandas as pd

from drgstudy import drgs
from drgstudy.study import REFERENCE

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
