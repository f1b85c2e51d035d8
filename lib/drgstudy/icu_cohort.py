"""The early-DRG study's stays: who is in a DRG system's cohort, what was written by which hour, and who is held out.

Hours count from ICU admission (MIMIC-III's ICUSTAYS.INTIME) and are negative before it. A stay is a hospital stay
(HADM_ID). Notes charted at the same time are ordered by category and text, for the paper does not say how.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from drgstudy import disclosure, drgs, mimic
from drgstudy.flow import sieve
from drgstudy.study import StudyError, progress

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
        "fold_stays": pa.Column("int64", pa.Check.in_range(0, 5)),
    },
    checks=pa.Check(
        lambda stays: stays.groupby("subject_id")["fold"].transform("nunique") == 1, name="a patient, a fold"
    ),
    strict=True,
)
"""Schema of ms.parquet and apr.parquet: one row for each stay, by ascending stay_id. weight is the relative weight of
fiscal year 2013, diagnosis the admitting diagnosis, and first_visit marks the patient's first stay in this cohort. Fold
0 is the hold-out test set, and 1 to 5 are the parts of the cross-validation. In fold all stays of a patient have the
same number; in fold_stays they were drawn stay by stay."""
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

    Returns
    -------
    stays : DataFrame
        As `STAYS`.
    flow : list of {"step", "kept", "removed"}
        Numbers of stays.

    Raises
    ------
    StudyError
        For an unknown system, or if fewer than six patients are left: one to test on and one for each fold.

    Notes
    -----
    Of several rows of a stay with one description, the most severe counts; this concerns APR-DRGs. A stay that still
    has two codes is left out. One in ten patients is held out, both of those with one stay and of those with several.
    The column fold_stays is ours.

    Source: early-DRG paper, Methods, "Dataset and preprocessing" and "Cross-validation", and its code.
    """
    if system not in drgs.SYSTEMS:
        raise StudyError(f"parameter system: expected {' or '.join(drgs.SYSTEMS)}, got {system!r}")
    facts = drgs.fiscal_2013(system).query("target and relative_weight.notna()")
    stays = _all_stays(tables, system)
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
    kept, counts = sieve(stays, steps)
    flow = [{"step": "hospital stays", "kept": len(stays), "removed": 0}, *counts]
    if (patients := kept["subject_id"].nunique()) < 6:
        step = max(counts[1:], key=lambda step: step["removed"])["step"]
        raise StudyError(
            f"the {drgs.SYSTEMS[system]} cohort has {patients} patients, expected 6 or more; the step '{step}' leaves out "
            "most stays: loosen one of the parameters one_icu_stay, same_unit, min_age and needs_note"
        )
    kept = kept.join(facts[["relative_weight", "mdc"]], on="drg").rename(columns={"relative_weight": "weight"})
    kept = kept.sort_values("stay_id", ignore_index=True)
    fold, fold_stays = _folds(kept["subject_id"], seed)
    first_visit = ~kept.sort_values(["icu_in", "stay_id"]).duplicated("subject_id")
    return kept.assign(first_visit=first_visit, fold=fold, fold_stays=fold_stays)[list(STAYS.columns)], flow


def read_notes(folder: Path, stays: pd.DataFrame, hours: float = 48) -> pd.DataFrame:
    """Read the notes on these stays that were charted up to `hours`, without de-identification placeholders.

    Discharge summaries, notes marked as errors, notes without a stay or a time of day and empty ones are left out.
    NOTEEVENTS is read in batches, and no other text is held.

    Parameters
    ----------
    folder : Path
        What `mimic.find` accepts.
    stays : DataFrame
        stay_id and icu_in (datetime64); a stay may occur twice.
    hours : float
        After ICU admission.

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
    columns, parts = ["hadm_id", "charttime", "category", "iserror", "text"], []
    for batch in progress(mimic.batches(folder, "NOTEEVENTS", columns), desc="notes", unit=" batches"):
        since = (batch["charttime"] - batch["hadm_id"].map(icu_in)).dt.total_seconds() / 3600
        notes = batch.assign(hours=since, category=batch["category"].str.strip())
        is_early = (notes["hours"] <= hours) & (notes["iserror"].fillna(0) != 1)
        parts.append(notes[is_early & (notes["category"].str.lower() != "discharge summary")])
    notes = pd.concat(parts).rename(columns={"hadm_id": "stay_id"}).astype({"stay_id": "int64"})
    tidied = [" ".join(_PLACEHOLDER.sub(" ", text).split()) for text in notes["text"]]
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
        n_patients, n_stays, n_drgs, relative_weight (the mean), and for each of the cohort's three most frequent MDCs
        such as 05 n_stays_mdc_05 and percent_stays_mdc_05.
    """
    is_test = stays["fold"] == 0
    parts = {"Train set": ~is_test, "Test set": is_test, "Test cohort": is_test & stays["first_visit"]}
    common = stays["mdc"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:3]
    if not disclosure.told([parts["Test cohort"].sum()], mask_below, [0, is_test.sum()])[0]:
        del parts["Test cohort"]
    counts = pd.DataFrame({name: stays["mdc"][part].value_counts() for name, part in parts.items()})
    counts, shown = counts.reindex(common).fillna(0).astype(int), []
    for mdc in common:
        fine = all(
            disclosure.told([counts[name][mdc]], mask_below, [0, part.sum()])[0]
            and not disclosure.is_small(part.sum() - counts[name][[*shown, mdc]].sum(), mask_below)  # the other MDCs
            for name, part in parts.items()
        )
        repeated = counts["Test set"][mdc] - counts.get("Test cohort", counts["Test set"])[mdc]
        if fine and not disclosure.is_small(repeated, mask_below):
            shown.append(mdc)
    columns = {}
    for name, members in parts.items():
        part = stays[members]
        values = {"n_patients": part["subject_id"].nunique(), "n_stays": len(part), "n_drgs": part["drg"].nunique()}
        if not disclosure.told([values["n_patients"]], mask_below, [0, len(part)])[0]:
            del values["n_patients"]
        values["relative_weight"] = part["weight"].mean()
        for mdc, counted in ((mdc, part["mdc"] == mdc) for mdc in shown):
            values |= {f"n_stays_mdc_{mdc}": counted.sum(), f"percent_stays_mdc_{mdc}": 100 * counted.mean()}
        columns[name] = pd.DataFrame(
            {"value": values, "sd": {"relative_weight": part["weight"].std()}}, index=list(values)
        )
    return pd.concat(columns, names=["drg_set", "metric"]).reset_index()


def _all_stays(tables: dict[str, pd.DataFrame], system: str) -> pd.DataFrame:
    """All hospital stays: drg, numbers of codes and ICU stays, and icu_in, same_unit and age of the first ICU stay."""
    rows = tables["drgcodes"][tables["drgcodes"]["drg_type"].str.strip() == system.upper()]
    severest = rows.groupby(["hadm_id", "description"])["drg_severity"].transform("max")
    rows = rows[severest.isna() | (rows["drg_severity"] == severest)]
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


def _folds(patients: pd.Series, seed: int) -> tuple[pd.Series, np.ndarray]:
    """The folds of the stays by patient, and folds of the same sizes drawn by stay; fold 0 is held out.

    Patients are shuffled, those with one stay are put before those with several, and all are dealt out. Of each ten the
    sixth is held out, which makes one in ten to the nearest patient. The others go to the five folds in turn.
    """
    rng = np.random.default_rng(seed)
    visits = patients.value_counts().sort_index().iloc[rng.permutation(patients.nunique())]
    visits = visits.iloc[np.argsort(visits.to_numpy() > 1, kind="stable")]
    place = np.arange(len(visits))
    dealt = np.where(place % 10 == 5, 0, (place - (place + 4) // 10) % 5 + 1)
    fold = patients.map(pd.Series(dealt, visits.index))
    return fold, rng.permutation(fold)
