"""Whose stay it was, and when: what MIMIC's tables of patients and admissions say beside the note.

No model reads any of it. It is read from the raw tables anew, so that the cohort's tables stay as they are. Words are
MIMIC's own; where they are many, they are put into groups here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from drgstudy import mimic, sheets
from drgstudy.study import StudyError

CHARACTERISTICS = {"sex": "Sex", "age": "Age", "race": "Race", "insurance": "Insurance", "language": "Language"}
"""The columns of `people`, and their names in print."""
AGES = {0: "under 18", 18: "18 to 44", 45: "45 to 64", 65: "65 to 74", 75: "75 to 84", 85: "85 and older"}
UNKNOWN = "not known"


def people(folder: Path, *, third: bool = False) -> pd.DataFrame:
    """The groups to which the patient of each admission belongs.

    Parameters
    ----------
    folder : Path
        What `mimic.find` accepts.
    third : bool
        Whether MIMIC-III is meant. It calls race ethnicity, and has a date of birth.

    Returns
    -------
    DataFrame of str
        The columns of `CHARACTERISTICS`, by hadm_id. Age is that on admission; above 89 both versions hide it, so the
        last of `AGES` is open. Race is the first word that MIMIC writes: white, black, Hispanic or Asian. Language is
        English or another; MIMIC-IV before 3.0 writes "?" for every other one. Insurance is as it is written.

    Raises
    ------
    StudyError
        As `mimic.read`.
    """
    born, race = (["dob"], "ethnicity") if third else (["anchor_age", "anchor_year"], "race")
    names = ["PATIENTS", "ADMISSIONS"] if third else ["patients", "admissions"]
    patients = mimic.read(folder, names[0], ["subject_id", "gender", *born])
    columns = ["subject_id", "hadm_id", "admittime", race, "insurance", "language"]
    stays = mimic.read(folder, names[1], columns).merge(patients, on="subject_id").set_index("hadm_id")
    if third:  # the date of birth of those above 89 is moved by 300 years
        age = (stays["admittime"] - stays["dob"]).dt.days / 365.25
    else:
        age = stays["anchor_age"] + stays["admittime"].dt.year - stays["anchor_year"]
    said = stays[[race, "language"]].apply(lambda column: column.str.upper())
    known = ~said[race].str.contains("^$|UNKNOWN|UNABLE|DECLINED")
    table = {
        "sex": stays["gender"].map({"F": "female", "M": "male"}),
        "age": pd.cut(age, [*AGES, np.inf], right=False, labels=list(AGES.values())).astype("str"),
        "race": said[race]
        .str.extract("^(WHITE|BLACK|HISPANIC|ASIAN)")[0]
        .str.capitalize()
        .fillna("other")
        .where(known),
        "insurance": stays["insurance"].where(stays["insurance"] != ""),
        "language": said["language"].str.startswith("ENGL").map({True: "English", False: "other"}),
    }
    table["language"] = table["language"].where(said["language"] != "")
    return pd.DataFrame(table).fillna(UNKNOWN)


def years(folder: Path) -> pd.DataFrame:
    """The year of each admission, as nearly as it is known.

    MIMIC-IV shifts the dates of each patient, and names the three years among which the patient's anchor year lies. An
    admission lies as many years after these as its shifted year is after the shifted anchor year. The synthetic hospital
    writes the fiscal year of each stay that has a note into its truth file.

    Parameters
    ----------
    folder : Path
        What `mimic.find` accepts. MIMIC-III has no such years.

    Returns
    -------
    DataFrame of int64
        first and last year, by hadm_id; they are equal where the year is known.

    Raises
    ------
    StudyError
        As `mimic.read`, or if anchor_year_group is not like "2008 - 2010".
    """
    truth = Path(folder) / "truth.csv.gz"
    if truth.is_file():
        year = sheets.read(truth, ["hadm_id", "fiscal_year"])[["hadm_id", "fiscal_year"]].astype("int64")
        return year.set_index("hadm_id")["fiscal_year"].pipe(lambda year: pd.DataFrame({"first": year, "last": year}))
    patients = mimic.read(folder, "patients", ["subject_id", "anchor_year", "anchor_year_group"])
    group = patients["anchor_year_group"].str.extract(r"^(?P<first>\d{4}) - (?P<last>\d{4})$")
    if (wrong := group["first"].isna()).any():
        said = patients.loc[wrong, "anchor_year_group"].iloc[0]
        raise StudyError(
            f"{mimic.find(folder, 'patients')}, column anchor_year_group: {said!r} is no group like '2008 - 2010'; "
            "take the file as it was downloaded"
        )
    stays = mimic.read(folder, "admissions", ["subject_id", "hadm_id", "admittime"]).dropna()
    stays = stays.merge(patients.assign(**group.astype("int64")), on="subject_id").set_index("hadm_id")
    later = stays["admittime"].dt.year - stays["anchor_year"]
    return stays[["first", "last"]].add(later, axis=0).astype("int64")


def dated(stays: pd.DataFrame, when: pd.DataFrame) -> pd.DataFrame:
    """The stays whose year is known, with its first and last possible year; `when` is what `years` returns."""
    hadm_id = admission(stays["stay_id"]).rename("hadm_id")
    return stays.join(when, on=hadm_id).dropna(subset="first").astype({"first": int, "last": int})


def of_years(train: pd.DataFrame, dated: pd.DataFrame, until: int, as_many: bool) -> pd.DataFrame:
    """The training stays up to the year `until`, or, if `as_many`, as many drawn from all whose year is known.

    `train` has some rows of the stays that `dated` was made from, under the same index.

    Raises
    ------
    StudyError
        If none of them, or all, are from up to that year.
    """
    dated = dated[dated.index.isin(train.index)]
    early = dated[dated["last"] <= until]
    if not 0 < len(early) < len(dated):
        between = f"{dated['first'].min()} and {dated['last'].max()}"
        raise StudyError(f"parameter until: {until} is not between the years of the training stays, {between}")
    chosen = dated.sample(len(early), random_state=0) if as_many else early
    return train[train.index.isin(chosen.index)]


def admission(stay_ids: pd.Series) -> pd.Series:
    """MIMIC's hadm_id of each stay: the id without the number that `cohort.STAYS` puts in front of further rows."""
    return stay_ids % 10 ** len(str(stay_ids.min()))
