"""The early-DRG study's stays: who is in a DRG system's cohort, what was written by which hour, and who is held out.

Hours count from ICU admission (MIMIC-III's ICUSTAYS.INTIME) and are negative before it. A stay is a hospital stay
(HADM_ID). Notes charted at the same time are ordered by category and text, for the paper does not say how.

Under the rules of the published code (`rules="published"`) other rows and notes count, and notes are cleaned; the held-out
stays may be those that the authors have published.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from drgstudy import disclosure, drgs, mimic, sheets
from drgstudy.cohort import one_stay_each
from drgstudy.flow import is_published, sieve
from drgstudy.study import StudyError, progress, short_repr

NOBODYS = -1
STAYS = pa.DataFrameSchema(
    {
        "stay_id": pa.Column("int64", unique=True),
        "subject_id": pa.Column("int64"),
        "drg": pa.Column("str", pa.Check.str_matches(r"^\d{3,4}$")),
        "weight": pa.Column("float64", pa.Check.gt(0)),
        "mdc": pa.Column("str"),
        "diagnosis": pa.Column("str"),
        "icu_in": pa.Column("datetime64[ms]"),  # the coarsest unit that parquet has
        "first_visit": pa.Column("bool"),
        "fold": pa.Column("int64", pa.Check.in_range(0, 5)),
        "fold_known": pa.Column("int64", pa.Check.in_range(NOBODYS, 5)),
    },
    checks=pa.Check(
        lambda stays: stays.groupby("subject_id")["fold"].transform("nunique") == 1, name="a patient, a fold"
    ),
    strict=True,
)
"""Schema of ms.parquet and apr.parquet: one row for each stay, by ascending stay_id. weight is the relative weight of
fiscal year 2013, diagnosis the admitting diagnosis, and first_visit marks the patient's first stay in this cohort (under
the published rules, the one with the earliest notes). Fold 0 is the hold-out test set, and 1 to 5 are the parts of the
cross-validation. In fold all stays of a patient have the same number. In fold_known one stay of each held-out patient
is left in fold 0; their others have taken the places of as many stays in 1 to 5, which are then in no part (-1)."""
NOTES = pa.DataFrameSchema(
    {
        "stay_id": pa.Column("int64"),
        "hours": pa.Column("float64"),
        "category": pa.Column("str"),
        "text": pa.Column("str"),
    },
    strict=True,
)
"""Schema of notes.parquet: one row for each note, by ascending stay_id and hours (after ICU admission)."""
_COLUMNS = {
    "admissions": ["subject_id", "hadm_id", "diagnosis"],
    "patients": ["subject_id", "dob"],
    "icustays": ["hadm_id", "icustay_id", "first_careunit", "last_careunit", "first_wardid", "last_wardid", "intime"],
    "drgcodes": ["hadm_id", "drg_type", "drg_code", "description", "drg_severity"],
}
# What the published code cleans away, as far as it is known: headings of sections, and what frames a report.
_CLEANED = re.compile(
    r"""^[ \t]*+ [A-Z][\w/&'()-]{0,25}+ (?: [ ][\w/&'()-]{1,25}+ ){0,5}+ [ ]? : (?= \s | \Z )
      | [_=*-]{3,}+ | \(Over\) | \(Cont\) | ^ [ \t]*+ (?: FINAL | WET | PRELIMINARY ) [ ]{1,9} (?: REPORT | READ )
      | Clip [ ] \# [ ]? \S{0,30}+ | ^ [ \t]*+ \d\d?:\d\d [ ] [AP]M""",
    re.VERBOSE | re.MULTILINE,
)
_PLACEHOLDER = re.compile(r"\[\*\*.*?\*\*\]", re.DOTALL)  # [**Known lastname 123**]


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the columns of MIMIC-III's ADMISSIONS, PATIENTS, ICUSTAYS and DRGCODES that `build` needs.

    Raises
    ------
    StudyError
        As `mimic.read`.
    """
    return {table: mimic.read(folder, table.upper(), columns) for table, columns in _COLUMNS.items()}


def build(
    tables: dict[str, pd.DataFrame],
    system: str,
    notes: pd.DataFrame | None = None,
    *,
    one_icu_stay: bool = True,
    same_unit: bool = True,
    min_age: int = 18,
    hours: float = 48,
    seed: int = 42,
    test_share: float = 0.1,
    rules: str = "ours",
    held_out: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list[dict]]:
    """Build the cohort of one DRG system, and count what each step of Supplementary Figure 1 kept.

    Parameters
    ----------
    tables : dict of DataFrame
        From `read_tables`.
    system : str
        A key of `drgs.SYSTEMS`.
    notes : DataFrame, optional
        From `read_notes`. If they are given, stays without a note up to `hours` are left out.
    one_icu_stay, same_unit : bool
        Whether to leave out stays with several ICU stays, and those whose (first) ICU stay ends in another ward or care
        unit than it began in.
    min_age : int
        Years at ICU admission; 0 leaves nobody out. In MIMIC-III, patients older than 89 appear to be about 300.
    hours : float
        After ICU admission.
    seed : int
        Of the folds.
    test_share : float
        Share of the patients that are held out, between 0 and 1, to three digits; the paper's is 0.1.
    rules : {"ours", "published"}
        "published": of several rows of a stay with one description, the first in the file counts; and first_visit marks
        the stay with a note before hour 0, else before hour 12, else the first.
    held_out : DataFrame, optional
        From `read_hold_out`. Exactly these stays are then held out; others of the same patients are left out.

    Returns
    -------
    stays : DataFrame
        As `STAYS`.
    flow : list of {"step", "kept", "removed"}
        Numbers of stays.

    Raises
    ------
    StudyError
        For an unknown system, if `test_share` is out of range, or if fewer than six patients are left: one to test on and one for each fold. Of a list
        at least one patient must be in the cohort, beside five others.

    Notes
    -----
    Of several rows of a stay with one description, the most severe counts; this concerns APR-DRGs. A stay that still
    has two codes is left out. The same share of patients is held out, both of those with one stay and of those with several.
    The column fold_known is ours.

    Source: early-DRG paper, Methods, "Dataset and preprocessing" and "Cross-validation", and its code.
    """
    if system not in drgs.SYSTEMS:
        raise StudyError(f"parameter system: expected {' or '.join(drgs.SYSTEMS)}, got {system!r}")
    if not 0 < test_share < 1:
        raise StudyError(f"parameter test_share: {test_share!r} is no share between 0 and 1; the paper's is 0.1")
    facts = drgs.fiscal_2013(system).query("target and relative_weight.notna()")
    published = is_published(rules)
    stays = _all_stays(tables, system, published)
    most = 1 if one_icu_stay else np.inf
    steps: dict[str, Callable] = {
        f"has an {drgs.SYSTEMS[system]}": lambda stays: stays["codes"] > 0,
        "one DRG only": lambda stays: stays["codes"] == 1,
        "one ICU stay" if one_icu_stay else "has an ICU stay": lambda stays: stays["icu_stays"].between(1, most),
    }
    if same_unit:
        steps["same ward and care unit throughout"] = lambda stays: stays["same_unit"].astype("bool")
    if min_age:
        steps[f"aged {min_age} or more"] = lambda stays: stays["age"] >= min_age
    if notes is not None:
        written = notes.loc[notes["hours"] <= hours, "stay_id"].unique()
        steps[f"has a note up to hour {hours:g}"] = lambda stays: stays["stay_id"].isin(written)
    steps["DRG in the target space"] = lambda stays: stays["drg"].isin(facts.index)
    listed = pd.Series(False, stays.index)
    if held_out is not None:
        listed = stays["stay_id"].isin(held_out["stay_id"])
        theirs = stays["subject_id"].isin(held_out["subject_id"])
        steps["no unlisted stay of a patient held out"] = lambda stays: (listed | ~theirs)[stays.index]
    kept, counts = sieve(stays, steps)
    flow = [{"step": "hospital stays", "kept": len(stays), "removed": 0}, *counts]
    if (patients := kept["subject_id"].nunique()) < 6:
        step = max(counts[1:], key=lambda step: step["removed"])["step"]
        raise StudyError(
            f"the {drgs.SYSTEMS[system]} cohort has {patients} patients, expected 6 or more; the step '{step}' leaves out "
            "most stays: loosen one of the parameters one_icu_stay, same_unit, min_age and needs_note"
        )
    kept = kept.assign(held=listed)
    groups = kept.groupby("held")["subject_id"].nunique()
    if held_out is not None and (groups.get(True, 0) < 1 or groups.get(False, 0) < 5):
        raise StudyError(
            f"the {drgs.SYSTEMS[system]} cohort has {groups.get(True, 0)} patients of the list of held-out stays and "
            f"{groups.get(False, 0)} others, expected at least 1 and 5; is it the list of this DRG system?"
        )
    kept = kept.join(facts[["relative_weight", "mdc"]], on="drg").rename(columns={"relative_weight": "weight"})
    kept = kept.sort_values("stay_id", ignore_index=True)
    fold, fold_known = _folds(kept["subject_id"], seed, test_share, None if held_out is None else kept["held"])
    if set(fold) != set(range(6)):
        raise StudyError(
            f"parameter test_share: {test_share!r} of {patients} patients leaves the test set or a fold empty"
        )
    kept["since"] = 0
    if published and notes is not None:
        earliest = kept["stay_id"].map(notes.groupby("stay_id")["hours"].min())
        kept["since"] = np.select([earliest < 0, earliest < 12], [0, 1], 2)
    first_visit = ~kept.sort_values(["since", "icu_in", "stay_id"]).duplicated("subject_id")
    return kept.assign(first_visit=first_visit, fold=fold, fold_known=fold_known)[list(STAYS.columns)], flow


def read_hold_out(path: Path, admissions: pd.DataFrame) -> pd.DataFrame:
    """Read a list of held-out stays as the early-DRG study's authors publish it, one for each DRG system.

    Parameters
    ----------
    path : Path
        A CSV with a column `stay` of SUBJECT_ID_HADM_ID, such as "12_100345".
    admissions : DataFrame
        subject_id and hadm_id of all stays.

    Returns
    -------
    DataFrame
        subject_id and stay_id, one row for each stay.

    Raises
    ------
    StudyError
        If the file is no such list, names a stay twice, or one that is not among the admissions.
    """
    named = sheets.read(path, ["stay"])["stay"].str.strip()
    known = admissions["subject_id"].astype("str") + "_" + admissions["hadm_id"].astype("str")
    place = pd.Index(known).get_indexer(named)
    for wrong, what in (
        (~named.str.fullmatch(r"\d+_\d+"), "no SUBJECT_ID_HADM_ID, like 12_100345"),
        (named.duplicated(), "a stay that stands above already"),
        (pd.Series(place < 0), "no stay of these tables; give the list of this release of MIMIC-III"),
    ):
        if wrong.any():
            first = ", ".join(map(short_repr, named[wrong][:3]))
            raise StudyError(f"{path}, column stay: {first} ({wrong.sum()} of {len(named)} rows) is {what}")
    return admissions.iloc[place][["subject_id", "hadm_id"]].rename(columns={"hadm_id": "stay_id"})


def read_notes(folder: Path, stays: pd.DataFrame, hours: float = 48, rules: str = "ours") -> pd.DataFrame:
    """Read the notes on these stays that were charted up to `hours`, without de-identification placeholders.

    Discharge summaries, notes marked as errors, notes without a stay or a time of day and empty ones are left out.
    NOTEEVENTS is read in batches, and no other text is held. Under the published rules notes marked as errors count; of a
    stay's notes of one minute the last in the file replaces the others; and section headings and report frames are
    cleaned away, and letters made small.

    Parameters
    ----------
    folder : Path
        What `mimic.find` accepts.
    stays : DataFrame
        stay_id and icu_in (datetime64); a stay may occur twice.
    hours : float
        After ICU admission.
    rules : {"ours", "published"}

    Returns
    -------
    DataFrame
        As `NOTES`.

    Raises
    ------
    StudyError
        As `mimic.batches`.
    """
    icu_in = stays.drop_duplicates("stay_id").set_index("stay_id")["icu_in"]
    published = is_published(rules)
    columns, parts = ["hadm_id", "charttime", "category", "iserror", "text"], []
    for batch in progress(mimic.batches(folder, "NOTEEVENTS", columns), desc="notes", unit=" batches"):
        since = (batch["charttime"] - batch["hadm_id"].map(icu_in)).dt.total_seconds() / 3600
        notes = batch.assign(hours=since, category=batch["category"].str.strip())
        is_early = (notes["hours"] <= hours) & (published | (notes["iserror"].fillna(0) != 1))
        parts.append(notes[is_early & (notes["category"].str.lower() != "discharge summary")])
    notes = pd.concat(parts).rename(columns={"hadm_id": "stay_id"}).astype({"stay_id": "int64"})
    if published:
        minute = notes["charttime"].dt.floor("min")
        notes = notes[~notes.assign(minute=minute).duplicated(["stay_id", "minute"], keep="last")]
    texts = (_PLACEHOLDER.sub(" ", text) for text in notes["text"])
    texts = (_CLEANED.sub(" ", text).lower() for text in texts) if published else texts
    tidied = [" ".join(text.split()) for text in texts]
    notes = notes.assign(text=pd.Series(tidied, notes.index, dtype="str"))[list(NOTES.columns)]
    return notes[notes["text"] != ""].sort_values(list(NOTES.columns), ignore_index=True)


def described(stays: pd.DataFrame, mask_below: int = 0) -> pd.DataFrame:
    """Table 1 in long form: the training set, the test set, and the test cohort, which is the test set's first visits.

    Parameters
    ----------
    stays : DataFrame
        As `STAYS`.
    mask_below : int
        Numbers from which a smaller count would follow are left out: of an MDC, of patients, or of the whole test cohort.

    Returns
    -------
    DataFrame
        drg_set ("Train set", "Test set", "Test cohort"), metric, value, and sd (of the weight alone). The metrics are
        n_patients, n_stays, n_drgs, relative_weight (the mean), and for each of `drgs.MDCS` such as 05 n_stays_mdc_05 and
        percent_stays_mdc_05.
    """
    is_test = stays["fold"] == 0
    parts = {"Train set": ~is_test, "Test set": is_test, "Test cohort": is_test & stays["first_visit"]}
    if disclosure.tells_of_few(parts["Test cohort"].sum(), is_test.sum(), mask_below):
        del parts["Test cohort"]
    counts = pd.DataFrame({name: stays["mdc"][part].value_counts() for name, part in parts.items()})
    counts, sizes, shown = (
        counts.reindex(list(drgs.MDCS)).fillna(0).astype(int),
        [part.sum() for part in parts.values()],
        [],
    )
    for mdc in drgs.MDCS:
        others = sizes - counts.loc[[*shown, mdc]].sum()
        repeated = counts["Test set"][mdc] - counts.get("Test cohort", counts["Test set"])[mdc]
        numbers = pd.concat([counts.loc[mdc], others, pd.Series([repeated])])
        if not disclosure.is_small(numbers, mask_below).any():
            shown.append(mdc)
    columns = {}
    for name, members in parts.items():
        part = stays[members]
        values = {"n_patients": part["subject_id"].nunique(), "n_stays": len(part), "n_drgs": part["drg"].nunique()}
        if disclosure.tells_of_few(values["n_patients"], len(part), mask_below):
            del values["n_patients"]
        values["relative_weight"] = part["weight"].mean()
        for mdc, counted in ((mdc, part["mdc"] == mdc) for mdc in shown):
            values |= {f"n_stays_mdc_{mdc}": counted.sum(), f"percent_stays_mdc_{mdc}": 100 * counted.mean()}
        columns[name] = pd.DataFrame(
            {"value": values, "sd": {"relative_weight": part["weight"].std()}}, index=list(values)
        )
    return pd.concat(columns, names=["drg_set", "metric"]).reset_index()


def _all_stays(tables: dict[str, pd.DataFrame], system: str, published: bool) -> pd.DataFrame:
    """All hospital stays: drg, numbers of codes and ICU stays, and icu_in, same_unit and age of the first ICU stay."""
    rows = tables["drgcodes"][tables["drgcodes"]["drg_type"].str.strip() == system.upper()]
    described = ["hadm_id", "description"]
    severest = rows.groupby(described)["drg_severity"].transform("max")
    counts = ~rows.duplicated(described) if published else severest.isna() | (rows["drg_severity"] == severest)
    rows = rows[counts]
    written = rows["drg_code"].str.strip().str.removesuffix(".0").str.zfill(len(drgs.fiscal_2013(system).index[0]))
    codes = written.groupby(rows["hadm_id"]).agg(codes="nunique", drg="min")
    icu = tables["icustays"].rename(columns={"intime": "icu_in"}).astype({"icu_in": "datetime64[ms]"})
    icu = icu.dropna(subset="icu_in").sort_values(["icu_in", "icustay_id"])
    is_same = (icu["first_careunit"] == icu["last_careunit"]) & (icu["first_wardid"] == icu["last_wardid"])
    icu = icu.assign(same_unit=is_same, icu_stays=icu.groupby("hadm_id")["icu_in"].transform("size"))
    icu = icu.drop_duplicates("hadm_id").set_index("hadm_id")
    stays = tables["admissions"].join(codes, on="hadm_id").join(icu, on="hadm_id")
    stays = stays.join(tables["patients"].set_index("subject_id"), on="subject_id")
    years = (stays["icu_in"] - stays["dob"]).dt.days / 365.2425
    return stays.assign(age=years).rename(columns={"hadm_id": "stay_id"})


def _folds(
    patients: pd.Series, seed: int, test_share: float = 0.1, held: pd.Series | None = None
) -> tuple[pd.Series, np.ndarray]:
    """The folds of the stays by patient, and those in which the held-out patients are known; fold 0 is held out.

    Patients are shuffled, those with one stay are put before those with several, and all are dealt out. At even distances
    (of each ten the sixth) as many are held out as `test_share` asks for, to the nearest patient; or those with a stay in
    `held` (bool) are, if that is given. The others go to the five folds in turn.
    """
    rng = np.random.default_rng(seed)
    visits = patients.value_counts().sort_index().iloc[rng.permutation(patients.nunique())]
    visits = visits.iloc[np.argsort(visits.to_numpy() > 1, kind="stable")]
    due = (np.arange(len(visits) + 1) * round(1000 * test_share) + 400) // 1000
    out = np.diff(due) > 0 if held is None else visits.index.isin(patients[held])
    dealt = np.where(out, 0, (np.cumsum(~out) - 1) % 5 + 1)
    fold = patients.map(pd.Series(dealt, visits.index))
    _, further, others = one_stay_each(patients, (fold == 0).to_numpy(), rng)
    known = fold.to_numpy().copy()
    known[further] = NOBODYS
    for one, other in zip(further, others, strict=False):
        known[one], known[other] = known[other], NOBODYS
    return fold, known
