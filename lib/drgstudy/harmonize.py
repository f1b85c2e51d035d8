"""Bring MS-DRG codes and titles of any year to v34, never guessing and never changing a severity.

A stay's DRG is known by its code *and* its title: codes are redefined between versions, and titles cut at 80 characters
are not unique (829 and 830). What is known are the v34 titles, as billed and as the manual words them, and the titles
of other years in ``data/reference/crosswalk.csv``, each with its v34 code or the reason why it has none. A group that
was widened, narrowed or merged keeps its heir in v34; one that was divided, so that the title no longer tells which
part a stay belongs to, is excluded. Source: DRG-LLaMA, Supplementary Method 1.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache, partial
from typing import NamedTuple

import pandas as pd
from thefuzz import fuzz, process

from drgstudy import drgs
from drgstudy.study import REFERENCE, StudyError

THRESHOLD = 80
"""Least `fuzz.ratio` of a match, on titles without their severity phrase, and only with titles of the same code.

Titles with a few typing errors are matched rightly or not at all (tested). What CMS redefined under a like wording no
threshold can tell: such titles stand in the crosswalk. thefuzz's default, `WRatio`, is misled by them more often.
"""

NO_TITLE = "no title"
NOT_MS_DRG = "not an MS-DRG code: one to three digits"
CMS_DRG = "CMS-DRG, the system used before FY2008"
CONTRADICTION = "code and title name different DRGs"
SEVERITY = "the title is like this code's, but its severity is not"
UNKNOWN = "no MS-DRG of FY2008-FY2019 has this code with a title like this"

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
# O.R. loses its dots above and so its meaning: no two titles differ by it alone, and v35 dropped it from five.
_CONNECTIVES = {"AND", "OR", "OF", "THE"}
# Age and spelled-out complications tell CMS-DRGs from MS-DRGs, which know neither.
_CMS_WORDING = re.compile(r"\bAGE\b|COMPLICATION,|COMPLICATIONS, COMORBIDITIES")
_LAST_CMS_DRG = "579"


class Known(NamedTuple):
    """A title of some year and what becomes of it: a v34 code, or None and the reason."""

    code: str
    title: str
    drg_v34: str | None
    reason: str


@cache
def _abbreviations() -> dict[str, str]:
    return pd.read_csv(REFERENCE / "abbreviations.csv", index_col=0)["standard"].to_dict()


def standardise(title: str) -> str:
    """A title in capitals, abbreviations spelled out, without connectives, punctuation and plural s.

    The severity phrase stays readable (WITH MCC, WITHOUT CC/MCC, ...), and so do the signs that tell DRGs apart:
    > and < become words. Most v34 titles become equal as billed and as worded by the manual.
    """
    title = title.upper()
    for pattern, standard in _SPELLING:
        title = pattern.sub(standard, title)
    words = (_abbreviations().get(word, word) for word in title.split())
    words = (re.sub(r"(?<=\w{3})S$", "", word) for word in words if word not in _CONNECTIVES)
    return " ".join(words).replace("CC MCC", "CC/MCC")


def _bare(standard_title: str) -> str:
    return drgs.SEVERITY.sub("", standard_title)


@cache
def _known() -> tuple[dict, dict, dict, dict]:
    """Known titles by (code, standard title); by standard title alone; and, to be matched, by severity and by code."""
    crosswalk = pd.read_csv(REFERENCE / "crosswalk.csv", dtype=str, keep_default_na=False)
    v34 = drgs.v34()
    known = [Known(code, title, code, "") for code, title in [*v34["title"].items(), *v34["billed_title"].items()]]
    known += [Known(r.code, r.title, None if r.v34 == "excluded" else r.v34, r.reason) for r in crosswalk.itertuples()]
    by_title = {standardise(entry.title): entry for entry in known}
    by_pair = {
        (entry.code, standardise(form)): entry
        for entry in known
        # as it is, as cut by some systems, and with commas lost without a space in their place
        for form in (entry.title, entry.title[:80], entry.title.replace(",", ""))
    }
    for code, title in drgs.titles_by_year()[["drg", "title"]].drop_duplicates().itertuples(index=False):
        if entry := by_pair.get((code, standardise(title))):  # wordings that differ from v34's only where they are cut
            by_pair[code, standardise(title[:80])] = entry
    by_severity, by_code = defaultdict(dict), defaultdict(dict)
    for standard, entry in by_title.items():  # whole titles only: what was cut off may be the severity
        by_severity[drgs.severity(standard)][entry.code, standard] = _bare(standard)
    for code, standard in by_pair:
        by_code[code][code, standard] = standard
    return by_pair, by_title, by_severity, by_code


def _decide(code: str, title: str) -> tuple:
    """(drg_v34, provenance, score, reason, matched_title) of a code and a title, "" where missing; see `harmonize`."""

    def found(entry: Known, provenance: str, score: int = 100) -> tuple:
        return entry.drg_v34, provenance if entry.drg_v34 else "excluded", score, entry.reason, entry.title

    def excluded(reason: str, nearest: str | None = None, score: int | None = None) -> tuple:
        return None, "excluded", score, reason, nearest

    if not (standard := standardise(title)):
        return excluded(NO_TITLE)
    if code and not re.fullmatch(r"\d{3}", code):
        return excluded(NOT_MS_DRG)
    by_pair, by_title, by_severity, by_code = _known()
    if entry := by_pair.get((code, standard)):
        return found(entry, "crosswalk" if entry.reason else "code and title")
    if not code:
        return found(by_title[standard], "title") if standard in by_title else excluded(UNKNOWN)
    if _CMS_WORDING.search(title.upper()):
        return excluded(CMS_DRG)

    match = partial(process.extractBests, processor=None, scorer=fuzz.ratio, score_cutoff=THRESHOLD, limit=None)
    near = match(_bare(standard), by_severity[drgs.severity(standard)])
    best = [(by_pair[pair], score) for _, score, pair in near if score == near[0][1]]
    own = [(entry, score) for entry, score in best if entry.code == code]
    if len({entry.drg_v34 for entry, _ in own}) == 1:
        return found(own[0][0], "fuzzy", own[0][1])
    same_code = match(standard, by_code.get(code, {}))
    if not same_code and "CC" not in standard and code <= _LAST_CMS_DRG:
        return excluded(CMS_DRG)
    if best:
        return excluded(CONTRADICTION, best[0][0].title, best[0][1])
    if same_code:
        return excluded(SEVERITY, by_pair[same_code[0][2]].title, same_code[0][1])
    return excluded(UNKNOWN)


def standard_code(codes: pd.Series) -> pd.Series:
    """Codes as zero-padded strings ("001"), whatever type they were read as; missing stays missing."""
    text = codes.astype("string").str.strip().str.removesuffix(".0")
    return text.where(text != "").str.zfill(3).astype("str")


def harmonize(rows: pd.DataFrame) -> pd.DataFrame:
    """Decide, for each distinct pair of DRG code and title, which v34 DRG it is.

    Parameters
    ----------
    rows : DataFrame with drg_code (str, int or missing) and description (str), one row per stay, MS-DRGs of any year;
        rows of older CMS-DRGs are recognised and excluded.

    Returns
    -------
    DataFrame, one row per pair, sorted by code and title:
        code (str, zero-padded or missing), title (as given), stays (int: rows of this pair), drg_v34 (str or missing),
        provenance ("code and title": a v34 title under its code; "title": a known title without a code; "crosswalk";
        "fuzzy": like a known title of this code, and no less like it than any other; or "excluded"), score (0-100,
        likeness to matched_title), reason (what changed or why it is excluded, "" if neither) and matched_title.
        A severity is never changed: a known title has the same severity phrase, and its v34 DRG the same or, where
        the crosswalk records a merger, one that contains it (a stay "with CC" belongs to the DRG "without MCC").

    Raises
    ------
    StudyError
        If a column is missing.
    """
    for column in ("drg_code", "description"):
        if column not in rows:
            raise StudyError(
                f"the DRG rows have no column '{column}' (they have: {', '.join(map(str, rows))}); "
                "pass MIMIC's drgcodes table with its column names in lower case"
            )
    pairs = pd.DataFrame({"code": standard_code(rows["drg_code"]), "title": rows["description"].astype("str")})
    pairs = pairs.groupby(["code", "title"], dropna=False).size().rename("stays").reset_index()
    columns = {"drg_v34": "str", "provenance": "str", "score": "float64", "reason": "str", "matched_title": "str"}
    decided = [_decide(*pair) for pair in pairs[["code", "title"]].fillna("").itertuples(index=False)]
    return pairs.join(pd.DataFrame(decided, columns=list(columns)).astype(columns))
