"""Whose stay it was, and when: hand-worked tables in both versions' shapes, and the synthetic hospital's own truth."""

import gzip

import numpy as np
import pandas as pd
import pytest

from drgstudy import people
from drgstudy.study import StudyError
from drgstudy.synthetic import make_hospital

FOURTH = {
    "hosp/patients.csv": """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
1,F,64,2150,2011 - 2013,
2,M,91,2180,2008 - 2010,
""",
    "hosp/admissions.csv": """subject_id,hadm_id,admittime,insurance,language,race
1,11,2150-12-31 23:00:00,Medicare,ENGLISH,BLACK/CAPE VERDEAN
1,12,2153-01-01 01:00:00,Medicaid,English,WHITE - RUSSIAN
2,21,2178-06-01 00:00:00,,?,UNABLE TO OBTAIN
2,22,2180-06-01 00:00:00,Other,Spanish,HISPANIC OR LATINO
2,23,,Other,,PORTUGUESE
""",
}
THIRD = {
    "PATIENTS.csv": """ROW_ID,SUBJECT_ID,GENDER,DOB
1,1,M,2100-06-02 00:00:00
2,2,F,1850-01-01 00:00:00
""",
    "ADMISSIONS.csv": """ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,INSURANCE,LANGUAGE,ETHNICITY
1,1,101,2165-06-01 00:00:00,Self Pay,ENGL,ASIAN - CHINESE
2,1,102,2165-06-03 00:00:00,Private,SPAN,UNKNOWN/NOT SPECIFIED
3,2,201,2150-01-01 00:00:00,Medicare,,MULTI RACE ETHNICITY
""",
}


def written(root, tables):
    for name, text in tables.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


def test_groups_in_mimic_iv(tmp_path):
    table = people.people(written(tmp_path, FOURTH))
    assert list(table) == list(people.CHARACTERISTICS)
    assert table.T.to_dict("list") == {
        11: ["female", "45 to 64", "Black", "Medicare", "English"],
        12: ["female", "65 to 74", "White", "Medicaid", "English"],
        21: ["male", "85 and older", "not known", "not known", "other"],
        22: ["male", "85 and older", "Hispanic", "Other", "other"],
        23: ["male", "not known", "other", "Other", "not known"],
    }


def test_groups_in_mimic_iii(tmp_path):
    """A birthday tells two stays apart; who is above 89 has a date of birth 300 years before."""
    assert people.people(written(tmp_path, THIRD), third=True).T.to_dict("list") == {
        101: ["male", "45 to 64", "Asian", "Self Pay", "English"],
        102: ["male", "65 to 74", "not known", "Private", "other"],
        201: ["female", "85 and older", "other", "Medicare", "not known"],
    }


def test_years_in_mimic_iv_are_three(tmp_path):
    """An admission without a time has none."""
    found = people.years(written(tmp_path, FOURTH)).T.to_dict("list")
    assert found == {11: [2011, 2013], 12: [2014, 2016], 21: [2006, 2008], 22: [2008, 2010]}


@pytest.mark.parametrize("group", ["2011", "", "2011-2013"])
def test_a_group_of_years_that_cannot_be_read_is_named(tmp_path, group):
    tables = FOURTH | {"hosp/patients.csv": FOURTH["hosp/patients.csv"].replace("2011 - 2013", group)}
    with pytest.raises(StudyError, match=f"patients.csv, column anchor_year_group: '{group}' is no group"):
        people.years(written(tmp_path, tables))


def test_mimic_iii_has_no_years(tmp_path):
    with pytest.raises(StudyError, match="anchor_year"):
        people.years(written(tmp_path, THIRD))


def test_mimics_way_leads_to_the_years_that_the_hospital_wrote(tmp_path):
    """Fiscal years begin in October of the calendar year before."""
    make_hospital(tmp_path, patients=40, seed=3, course_words=44, tail=0.0)
    true = people.years(tmp_path)
    with gzip.open(tmp_path / "truth.csv.gz", "rt") as file:
        assert true["first"].equals(pd.read_csv(file, index_col="hadm_id")["fiscal_year"])
    (tmp_path / "truth.csv.gz").unlink()
    found = people.years(tmp_path).loc[true.index]
    assert (found["last"] - found["first"] == 2).all()
    assert true["first"].between(found["first"], found["last"] + 1).all()
    assert not people.people(tmp_path).eq(people.UNKNOWN)[["sex", "age", "insurance", "language"]].any(axis=None)


def test_further_rows_of_a_stay_are_of_the_same_admission():
    ids = pd.Series([20000001, 120000001, 29999999, 220000001])
    assert people.admission(ids).tolist() == [20000001, 20000001, 29999999, 20000001]
    assert np.array_equal(people.admission(ids[[0, 2]]), ids[[0, 2]])
