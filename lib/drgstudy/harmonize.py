"""Bring MS-DRG codes and titles of any year to v34, never guessing and never changing a severity.

A stay's DRG is known by its code *and* its title: codes are redefined between versions, and titles that were cut, as
MIMIC-IV cuts them at 72 characters, are not unique (829 and 830). A title is looked up among the known ones of all
years (`titles`), since a calendar year mixes two wordings. If v34 divides a group and the title does not say to which
part a stay belongs, the stay is excluded. A title that was cut has an outcome if all known titles of its code that begin
so share it. Other wordings are matched by likeness. Of all pairs of scorer and threshold that are never wrong in
`evidence`, the one that is right most often is used. A physician's decisions overrule everything else.

Notes
-----
Source: DRG-LLaMA, Supplementary Method 1.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from thefuzz import fuzz, process

from drgstudy import drgs, sheets, titles
from drgstudy.flow import is_published
from drgstudy.study import StudyError, short_repr

SCORER = "ratio"
THRESHOLD = 92
"""Least score of a match, on titles without their severity phrase: the lowest without a wrong match in `evidence`.

A lower one would forgive more typing errors, but also match titles that CMS redefined in similar words: at 91, lead
*and* generator procedures (245 of FY2008) with those on the generator alone (v34's 245). `token_sort_ratio` is never
wrong from the same threshold on, but right less often. `WRatio`, thefuzz's default, is wrong below 96, and the other
two below 100.
"""
NEAR = 80
"""Least score of a title that is worth naming, as the reason for an exclusion or as the runner-up of a match."""
CUT = 20
"""Least length of the beginning of a title: MIMIC-IV cuts at 72 characters, and a few letters do not show the system."""

SCORERS = ("ratio", "token_sort_ratio", "token_set_ratio", "partial_ratio", "WRatio")

NO_TITLE = "no title"
NOT_MS_DRG = "not an MS-DRG code: one to three digits"
CMS_DRG = "CMS-DRG, the system used before FY2008"
NO_CODE = "no code, and no known title equals this one"
CONTRADICTION = "the title is more like that of another code"
SEVERITY = "the title is like this code's, but its severity is not"
UNSURE = "like a title of this code, but not alike enough to be sure"
SHORT = "only the beginning of a title of this code, and too little of it to be sure"
UNKNOWN = "no MS-DRG of FY2008-FY2025 has this code with a title like this"
PERHAPS_CMS_DRG = f"{UNKNOWN}; perhaps a CMS-DRG, the system used before FY2008"

# Age, and a severity spelled out as complications, mark CMS-DRGs: MS-DRGs know neither.
_CMS_WORDING = re.compile(r"\bAGE\b|COMPLICATION,|COMPLICATIONS, COMORBIDITIES")
_LAST_CMS_DRG = "579"

_SHEET = ["code", "title", "stays", "proposed", "proposed_title", "score", "runner_up", "runner_up_score", "reason"]
_SHEET += ["decision", "reviewer", "remark"]
_REVIEWED = ["code", "title", "decision", "reviewer", "remark"]


class Decision(NamedTuple):
    """The outcome for a code and a title; the fields are columns of `harmonize`."""

    drg_v34: str | None = None
    provenance: str = "excluded"
    score: int | None = None
    reason: str = ""
    matched_title: str | None = None
    proposed: str | None = None
    runner_up: str | None = None
    runner_up_score: int | None = None


def _decide(code: str, title: str, known: titles.Index, scorer: str = SCORER, threshold: int = THRESHOLD) -> Decision:
    """The decision on a code and a title, each "" if missing; see `harmonize`."""

    def rank(text: str, choices: dict) -> list[tuple[int, titles.Known]]:
        if not text:  # nothing but a severity phrase
            return []
        least = min(threshold, NEAR) - 0.5  # thefuzz compares scores before it rounds them
        found = process.extractBests(text, choices, None, getattr(fuzz, scorer), score_cutoff=least, limit=None)
        return [(min(score, 99), known.by_pair[pair]) for _, score, pair in found]  # 100: equal once standardised

    def matched(entry: titles.Known, provenance: str, ranking: list) -> Decision:
        """The decision for a known title, which may be an exclusion."""
        decision = excluded(entry.reason, ranking)
        return decision._replace(drg_v34=entry.drg_v34, provenance=provenance) if entry.drg_v34 else decision

    def excluded(reason: str, ranking: list) -> Decision:
        """No v34 code, although the first of the ranking resembles the title."""
        (score, entry), *others = ranking
        rivals = ((f"{e.drg_v34 or 'excluded'} {e.title}", s) for s, e in others if e.drg_v34 != entry.drg_v34)
        likeness = (entry.title, entry.drg_v34 or "excluded", *next(rivals, (None, None)))
        return Decision(None, "excluded", score, reason, *likeness)

    if not (standard := titles.standardise(title)):
        return Decision(reason=NO_TITLE)
    if code and not re.fullmatch(r"\d{3}", code):
        return Decision(reason=NOT_MS_DRG)
    if entry := known.by_pair.get((code, standard)):
        return matched(entry, "crosswalk" if entry.reason else "code and title", [(100, entry)])
    if not code:
        entry = known.by_title.get(standard)
        return matched(entry, "title", [(100, entry)]) if entry else Decision(reason=NO_CODE)

    own_titles, signs = known.by_code.get(code, []), titles.signs(title)
    if whole := [entry for theirs, _, entry in own_titles if theirs == signs]:  # commas lost, blanks in other places
        return matched(whole[0], "crosswalk" if whole[0].reason else "code and title", [(100, whole[0])])
    begun = [
        entry
        for theirs, other, entry in own_titles
        if theirs.startswith(signs) or other.replace("/", " ").startswith(standard.replace("/", " "))
    ]
    if begun and (len(title.strip()) < CUT or len({entry.drg_v34 for entry in begun}) > 1):
        return excluded(SHORT, [(99, entry) for entry in begun])
    if begun:
        return matched(begun[0], "cut", [(100, begun[0])])

    if _CMS_WORDING.search(title.upper()):
        return Decision(reason=CMS_DRG)
    near = rank(titles.bare(standard), known.by_severity.get(drgs.severity(standard), {}))
    own = [(score, entry) for score, entry in near if entry.code == code]
    if own and own[0][0] == near[0][0]:
        score, entry = own[0]
        # CMS may have changed a single word, so all known titles of this code that are near must have the same outcome.
        agreed = len({other.drg_v34 for likeness, other in own if likeness >= min(NEAR, score)}) == 1
        ranking = own[:1] + [other for other in near if other != own[0]]
        return matched(entry, "fuzzy", ranking) if agreed and score >= threshold else excluded(UNSURE, ranking)
    same_code = rank(standard, {(code, other): other for _, other, _ in own_titles})
    if not same_code and "CC" not in standard and code <= _LAST_CMS_DRG:
        return Decision(reason=PERHAPS_CMS_DRG)
    if near:
        return excluded(CONTRADICTION, near)
    if same_code:
        theirs = {drgs.severity(titles.standardise(entry.title)) for _, entry in same_code}
        return excluded(UNSURE if drgs.severity(standard) in theirs else SEVERITY, same_code)
    return Decision(reason=UNKNOWN)


def standard_code(codes: pd.Series) -> pd.Series:
    """Codes as zero-padded strings ("001"), whatever their type was; missing ones stay missing."""
    text = codes.astype("string").str.strip().str.removesuffix(".0")
    return text.where(text != "").str.zfill(3).astype("str")


def harmonize(
    rows: pd.DataFrame,
    review: pd.DataFrame | None = None,
    rules: str = "ours",
    by_hand: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Decide, for each distinct pair of DRG code and title, which v34 DRG it is.

    Parameters
    ----------
    rows : DataFrame
        drg_code (str, int or missing) and description (str), one row for each stay, MS-DRGs of any year; rows of older
        CMS-DRGs are recognised and excluded.
    review : DataFrame, optional
        A filled-in `review_sheet`; it may name any pair, and overrules every other decision. Rows without a decision,
        and pairs that are not in `rows` (a sheet may serve several data sets), are ignored.
    rules : {"ours", "published"}
        "published": by its title alone, as DRG-LLaMA's published code (`titles.as_published`).
    by_hand : dict of str to str, optional
        From `titles.read_by_hand`; "published" uses it.

    Returns
    -------
    DataFrame, one row for each pair, sorted by code and title
        code (str, zero-padded or missing), title (as given), stays (int: rows of this pair), drg_v34 (str or missing),
        provenance ("code and title": a v34 title under its code; "title": a known title without a code; "crosswalk";
        "cut": the beginning of known titles of this code, which share an outcome; "fuzzy": like a known title of this
        code, and no less like it than any other; "by hand": in the authors' table; "reviewed"; or "excluded"), score
        (0-100, likeness to matched_title; 100 only if they are equal once standardised, as far as a cut title goes),
        reason (what changed, why it is excluded or who reviewed it; "" if none), matched_title, proposed (its v34 code or
        "excluded"), runner_up
        (v34 code and title of the next with another outcome) and runner_up_score. From score on, all but reason are
        missing if no title scores `NEAR` or more.

    Raises
    ------
    StudyError
        If a column is missing, the review sheet has a decision that cannot be used, or `rules` is another.

    Notes
    -----
    A severity is never changed. A matched title has the same severity phrase, and so has its v34 DRG; only where the
    crosswalk records a merger, its severity contains the title's (a stay "with CC" belongs to the DRG "without MCC").
    Where the severity phrase itself was cut off, the code tells it.
    """
    for column in ("drg_code", "description"):
        if column not in rows:
            raise StudyError(
                f"the DRG rows have no column '{column}' (they have: {', '.join(map(str, rows))}); "
                "pass MIMIC's drgcodes table with its column names in lower case"
            )
    pairs = pd.DataFrame({"code": standard_code(rows["drg_code"]), "title": rows["description"].astype("str")})
    pairs = pairs.groupby(["code", "title"], dropna=False).size().rename("stays").reset_index()
    reviewed = {} if review is None else _reviewed(review, "the review sheet")
    published, decided = is_published(rules), []
    for pair in pairs[["code", "title"]].fillna("").itertuples(index=False, name=None):
        decision = _decide(*pair, titles.known())
        if published:
            decision = Decision(**titles.as_published(pair[1], by_hand))
        decided.append(decision._replace(**reviewed.get(pair, {})))
    columns = dict.fromkeys(Decision._fields, "str") | {"score": "float64", "runner_up_score": "float64"}
    return pairs.join(pd.DataFrame(decided, columns=list(columns)).astype(columns))


def moved(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The pairs to which the published rules give another v34 DRG than ours, those of most stays first.

    Parameters
    ----------
    ours, published : DataFrame
        From `harmonize`, of the same rows.

    Returns
    -------
    DataFrame
        code, title, stays, ours and published (v34 codes, missing where excluded), and what, which says how they differ.
    """
    both = ours[["code", "title", "stays"]].assign(ours=ours["drg_v34"], published=published["drg_v34"])
    both["what"] = np.select(
        [both["published"].isna(), both["ours"].isna()],
        ["excluded by the published rules alone", "excluded by ours alone"],
        "another DRG",
    )
    differ = both["ours"].fillna("") != both["published"].fillna("")
    return both[differ].sort_values("stays", ascending=False, kind="stable", ignore_index=True)


def weights(fiscal_year: int) -> pd.Series:
    """Relative weights of the v34 DRGs in a fiscal year, to pay the stays of that year by.

    Parameters
    ----------
    fiscal_year : int
        2008 to 2025.

    Returns
    -------
    Series of float, indexed by ``drg``, v34's 757 codes
        The mean weight of that year's codes whose titles lead to the DRG. A DRG without any keeps its weight of v34.

    Raises
    ------
    StudyError
        For another year.
    """
    table = drgs.titles_by_year()
    years = table["fiscal_year"]
    if fiscal_year not in years.values:
        raise StudyError(f"fiscal_year is {fiscal_year!r}; expected a year from {years.min()} to {years.max()}")
    table = table[years == fiscal_year].rename(columns={"drg": "drg_code", "title": "description"})
    weight = table.set_index("drg_code")["relative_weight"]
    drg_v34 = harmonize(table).set_index("code")["drg_v34"]
    own = drgs.v34()["relative_weight"]
    return weight.groupby(drg_v34).mean().reindex(own.index).fillna(own)


def review_sheet(mapping: pd.DataFrame) -> pd.DataFrame:
    """The doubtful pairs of a `harmonize` table for a physician to decide, the most doubtful first.

    Fuzzy matches come first, ordered by the points that separate them from another outcome: those above the threshold,
    or above a runner-up with another outcome. Excluded pairs that resemble a title follow, the most similar first.

    Returns
    -------
    DataFrame
        code, title, stays, proposed (v34 code or "excluded"), proposed_title, score, runner_up, runner_up_score,
        reason, and three empty columns to fill in: decision (a v34 code or "excluded"), reviewer and remark.
    """
    doubtful = mapping[mapping["provenance"].isin(["fuzzy", "excluded"]) & (mapping["score"] < 100)]
    margin = doubtful["score"] - doubtful["runner_up_score"].fillna(THRESHOLD).clip(lower=THRESHOLD)
    doubtful = doubtful.assign(
        margin=margin.where(doubtful["provenance"] == "fuzzy", -doubtful["score"]),
        proposed_title=doubtful["proposed"].map(drgs.v34()["billed_title"]).astype("str").fillna(""),
        **dict.fromkeys(["decision", "reviewer", "remark"], ""),
    )
    return doubtful.sort_values(["provenance", "margin"], ascending=[False, True], ignore_index=True)[_SHEET]


def read_review(path: Path) -> pd.DataFrame:
    """Read a filled-in review sheet for `harmonize`; raises StudyError if it is missing or holds a bad decision."""
    review = sheets.read(path, _REVIEWED)
    _reviewed(review, path)
    return review


def write_review(sheet: pd.DataFrame, path: Path, used: pd.DataFrame | None = None) -> None:
    """Write a review sheet as CSV, unless decisions stand there that are `used`, as `read_review` returns them.

    Raises
    ------
    StudyError
        If that would overwrite other decisions of a physician.
    """
    if Path(path).exists() and (there := read_review(path))["decision"].str.strip().any():
        if used is None or not there[_REVIEWED].equals(used[_REVIEWED]):
            raise StudyError(f"{path} holds decisions; name it as the parameter review, or move it elsewhere")
        return
    sheets.write(sheet, path)


def anonymous(mapping: pd.DataFrame) -> pd.DataFrame:
    """The mapping as it may be published: without the names and remarks of those who reviewed it."""
    return mapping.assign(reason=mapping["reason"].mask(mapping["provenance"] == "reviewed", "reviewed"))


def _reviewed(review: pd.DataFrame, name: str | Path) -> dict[tuple[str, str], dict]:
    """What a review sheet changes in the `Decision` on each (code, title)."""
    review = sheets.with_columns(_REVIEWED, review, name)[_REVIEWED].astype("str").fillna("")
    review["code"] = standard_code(review["code"]).fillna("")
    changes = {}
    for line, (code, title, decision, reviewer, remark) in enumerate(review.itertuples(index=False), start=2):
        if not (decision := decision.strip()):
            continue
        row = f"{name}, line {line} ({code[:9]} {' '.join(title.split())[:40]})"
        drg = None if decision.lower() == "excluded" else decision.zfill(3)  # a spreadsheet drops leading zeros
        if drg and drg not in drgs.v34().index:
            raise StudyError(
                f"{row}, column decision: {short_repr(decision)} is neither a v34 code like '001' nor 'excluded'"
            )
        if not reviewer.strip():
            raise StudyError(f"{row}, column reviewer: empty; a decision needs the name of who made it")
        if changes.setdefault((code, title), {"drg_v34": drg})["drg_v34"] != drg:
            raise StudyError(
                f"{row}, column decision: {short_repr(decision)}, but an earlier line decides this pair otherwise"
            )
        reason = f"reviewed by {reviewer.strip()}" + (f": {remark.strip()}" if remark.strip() else "")
        changes[code, title] |= {"provenance": "reviewed", "reason": reason}
    return changes


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


def evidence(seed: int = 0) -> pd.DataFrame:
    """How often titles that are not known are matched correctly, by thefuzz's scorers and by threshold.

    Two kinds of titles are held out. "mistyped" is each title of FY2008-FY2025, those equal once standardised only
    once, with one, two, three and four typing errors, which should have the outcome of the title itself. "crosswalk" is
    each title of the crosswalk while its own entry is taken away, like a title of a future year; it should have the
    outcome that was curated.

    Returns
    -------
    DataFrame, one row for each scorer, held_out and threshold (50-100)
        scorer and held_out (str), threshold, and the counts right (the same v34 code, or excluded as it should be),
        wrong (a v34 code that it should not have) and excluded (although it has a v34 code).
    """
    rng, entries = np.random.default_rng(seed), titles.entries()
    # The first wording of each title.
    distinct = {(code, titles.standardise(title)): title for code, title in reversed(titles.history())}
    cases = [
        ("mistyped", code, mistyped(title, errors, rng), _decide(code, title, titles.known()).drg_v34, titles.known())
        for (code, _), title in reversed(distinct.items())
        for errors in (1, 2, 3, 4)
    ]
    cases += [
        ("crosswalk", entry.code, entry.title, entry.drg_v34, titles.index(entries[:i] + entries[i + 1 :]))
        for i, entry in enumerate(entries)
        if entry.reason
    ]
    truth = np.array([drg or "" for *_, drg, _ in cases])
    held_out = pd.Series([case[0] for case in cases], name="held_out")
    thresholds = np.arange(50, 101)
    tables = []
    for scorer in SCORERS:
        # Decided once, at the lowest threshold; at a higher one, titles that scored less have no code.
        decided = pd.DataFrame(
            [_decide(code, title, known, scorer, thresholds[0]) for _, code, title, _, known in cases]
        ).fillna({"drg_v34": "", "score": 0})
        for threshold in thresholds:
            outcome = decided["drg_v34"].where(decided["score"] >= threshold, "")
            right, coded = outcome == truth, outcome != ""
            counts = pd.DataFrame({"right": right, "wrong": ~right & coded, "excluded": ~right & ~coded})
            counts = counts.groupby(held_out).sum().reset_index()
            tables.append(counts.assign(scorer=scorer, threshold=threshold))
    columns = ["scorer", "held_out", "threshold", "right", "wrong", "excluded"]
    return pd.concat(tables, ignore_index=True)[columns]
