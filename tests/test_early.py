"""Who is in each cohort of the early-DRG study, what is known of them at an hour, and who is held out."""

import csv
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drgstudy import csv_stream, drgs, icu_cohort, inputs, mimic
from drgstudy.flow import read_rows, write_rows
from drgstudy.study import REFERENCE, ROOT, StudyError
from drgstudy.tables import printed_cohort

DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo"
START = pd.Timestamp("2150-01-10 12:00:00")


def tables(stays=6, drg="064", system="MS"):
    """Tables of adults with one stay each, in the same unit throughout; patients 1, 2, …, whose stays are 10, 20, …"""
    patients = np.arange(1, stays + 1)
    admissions = pd.DataFrame({"subject_id": patients, "hadm_id": 10 * patients, "diagnosis": "STROKE/TIA"})
    born = START - pd.DateOffset(years=60)
    icu = {"first_careunit": "MICU", "last_careunit": "MICU", "first_wardid": 52, "last_wardid": 52, "intime": START}
    rows = {"drg_type": system, "drg_code": drg, "description": "A", "drg_severity": pd.Series(pd.NA, dtype="Int64")}
    return {
        "admissions": admissions,
        "patients": pd.DataFrame({"subject_id": patients, "dob": born}),
        "icustays": admissions[["hadm_id"]].assign(icustay_id=admissions["hadm_id"] + 200_000, **icu),
        "drgcodes": admissions[["hadm_id"]].assign(**rows),
    }


def apr_rows(*rows):
    """Rows of DRGCODES from (stay, code, description); an APR code ends with its severity."""
    rows = [(stay, "APR ", code, description, int(code[-1])) for stay, code, description in rows]
    names = ["hadm_id", "drg_type", "drg_code", "description", "drg_severity"]
    return pd.DataFrame(rows, columns=names).astype({"drg_severity": "Int64"})


def kept(flow):
    return [step["kept"] for step in flow]


def notes_of(*rows):
    return pd.DataFrame(rows, columns=list(icu_cohort.NOTES.columns)).astype({"hours": "float64"})


@pytest.mark.skipif(not DEMO.exists(), reason="the open MIMIC-III demo is not here")
def test_the_real_demo_through_every_filter():
    raw = icu_cohort.read_tables(DEMO)
    names = ["hospital stays", "has an MS-DRG", "one DRG only", "one ICU stay", "same ward and care unit throughout",
             "aged 18 or more", "DRG in the target space"]  # fmt: skip
    ms, flow = icu_cohort.build(raw, "ms")
    assert [step["step"] for step in flow] == names
    assert kept(flow) == [129, 72, 72, 67, 63, 63, 63]
    apr, flow = icu_cohort.build(raw, "apr")
    assert kept(flow) == [129, 96, 95, 89, 81, 80, 80]
    assert (ms["drg"].str.len() == 3).all() and (apr["drg"].str.len() == 4).all()
    for stays, system in ((ms, "ms"), (apr, "apr")):
        facts = drgs.fiscal_2013(system).loc[stays["drg"]]
        assert stays["weight"].tolist() == facts["relative_weight"].tolist() and facts["target"].all()
        assert stays["stay_id"].is_monotonic_increasing
    both, flow = icu_cohort.build(raw, "apr", one_icu_stay=False, same_unit=False, min_age=0)
    assert kept(flow) == [129, 96, 95, 95, 95]
    assert icu_cohort.read_notes(DEMO, both).empty  # the demo's NOTEEVENTS has no row
    with pytest.raises(StudyError, match=r"APR-DRG cohort has 0 patients.* 'has a note up to hour 48' .*needs_note"):
        icu_cohort.build(raw, "apr", icu_cohort.read_notes(DEMO, both))


def hospital_to_filter():
    """Seventeen stays, most of which break one rule, and the notes of all but two."""
    raw = tables(17)
    icu, born = raw["icustays"].set_index("hadm_id"), raw["patients"].set_index("subject_id")
    icu.loc[20, "last_careunit"] = "SICU"
    icu.loc[30, "last_wardid"] = 7
    second = (
        raw["icustays"].query("hadm_id == 40").assign(icustay_id=1, intime=START + pd.Timedelta(days=3), last_wardid=7)
    )
    born.loc[5, "dob"] = START - pd.DateOffset(years=18) + pd.DateOffset(days=2)
    born.loc[6, "dob"] = START - pd.DateOffset(years=18) - pd.DateOffset(days=2)
    born.loc[7, "dob"] = START - pd.DateOffset(years=300)  # older than 89
    icu = icu.drop(170).reset_index()  # not every stay is in MIMIC-III's ICUSTAYS
    raw |= {"icustays": pd.concat([second, icu]), "patients": born.reset_index()}
    raw["drgcodes"].loc[7, "drg_code"] = "945"  # stay 80: rehabilitation
    raw["drgcodes"].loc[8, "drg_code"] = "9999"  # stay 90
    raw["drgcodes"].loc[12, "drg_type"] = "HCFA"  # stay 130
    return raw, notes_of(*[(i, 48.1 if i == 100 else 48, "Nursing", "text") for i in range(10, 170, 10) if i != 110])


def test_each_filter_removes_what_it_should():
    raw, notes = hospital_to_filter()
    stays, flow = icu_cohort.build(raw, "ms", notes)
    assert kept(flow) == [17, 16, 16, 14, 12, 11, 9, 7]
    assert [step["removed"] for step in flow] == [0, 1, 0, 2, 2, 1, 2, 2]
    assert stays["stay_id"].tolist() == [10, 60, 70, 120, 140, 150, 160]
    assert stays.iloc[0].drop(["fold", "fold_known"]).to_dict() == {
        "stay_id": 10, "subject_id": 1, "drg": "064", "weight": 1.8424, "mdc": "01", "diagnosis": "STROKE/TIA",
        "icu_in": START, "first_visit": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("loosened", "back"),
    [
        ({"one_icu_stay": False}, {40}),  # its first ICU stay, which began and ended in one unit, counts
        ({"same_unit": False}, {20, 30}),
        ({"min_age": 0}, {50}),
        ({"notes": None}, {100, 110}),
        ({"hours": 48.1}, {100}),
    ],
)
def test_each_filter_can_be_loosened(loosened, back):
    raw, notes = hospital_to_filter()
    strict = set(icu_cohort.build(raw, "ms", notes)[0]["stay_id"])
    loose, flow = icu_cohort.build(raw, "ms", **{"notes": notes, **loosened})
    assert set(loose["stay_id"]) - strict == back
    assert kept(flow)[-1] == len(loose) == len(strict) + len(back)


def test_of_apr_rows_with_one_description_the_severest_counts():
    rows = [(10 * i, "0454", "CVA") for i in range(3, 9)]
    raw = tables(8) | {
        "drgcodes": apr_rows(
            (10, "1302", "VENTILATED"), (10, "1304", "VENTILATED"), (10, "1303", "VENTILATED"),
            (20, "1733", "VASCULAR"), (20, "1803", "CIRCULATORY"), *rows, (30, "0454", "CVA"),
        )
    }  # fmt: skip
    stays, flow = icu_cohort.build(raw, "apr")
    assert stays.set_index("stay_id")["drg"].to_dict() == {10: "1304"} | {i: "0454" for i in range(30, 90, 10)}
    assert flow[1:3] == [
        {"step": "has an APR-DRG", "kept": 8, "removed": 0}, {"step": "one DRG only", "kept": 7, "removed": 1},
    ]  # fmt: skip


def test_the_cohort_depends_on_no_order_of_rows():
    rng = np.random.default_rng(0)
    raw = tables(80)
    raw["admissions"]["subject_id"] = rng.integers(1, 50, 80)
    raw["icustays"]["intime"] = START + pd.to_timedelta(rng.integers(0, 5000, 80), "h")
    shuffled = {table: rows.sample(frac=1, random_state=1) for table, rows in raw.items()}
    stays, flow = icu_cohort.build(raw, "ms", seed=1)
    again, flow_again = icu_cohort.build(shuffled, "ms", seed=1)
    pd.testing.assert_frame_equal(stays, again)
    assert flow == flow_again
    other, _ = icu_cohort.build(raw, "ms", seed=2)
    assert (other["fold"] != stays["fold"]).any() and (other["fold_known"] != stays["fold_known"]).any()
    first = stays.loc[stays.groupby("subject_id")["icu_in"].idxmin()]
    assert first["first_visit"].all() and stays["first_visit"].sum() == len(first) == stays["subject_id"].nunique()


@given(st.lists(st.integers(1, 5), min_size=6, max_size=120), st.integers(0, 99))
def test_no_patient_is_in_two_folds_and_all_parts_are_in_proportion(visits, seed):
    patients = pd.Series(np.repeat(np.arange(len(visits)), visits)).sample(frac=1, random_state=seed, ignore_index=True)
    fold, known = icu_cohort._folds(patients, seed)
    assert patients.groupby(fold.to_numpy()).unique().explode().is_unique
    assert set(fold) == set(range(6))
    theirs = fold == 0
    assert sorted(patients[known == 0]) == sorted(set(patients[theirs])) and not (known[~theirs] == 0).any()
    for part in range(1, 6):
        assert (known == part).sum() == (fold == part).sum()
    swapped = min((theirs & (known != 0)).sum(), (~theirs).sum())
    assert (known[theirs] > 0).sum() == (known[~theirs] == -1).sum() == swapped
    assert (known[~theirs & (known > 0)] == fold[~theirs & (known > 0)]).all()
    of_patient = fold.groupby(patients).first()
    held_out, *parts = of_patient.value_counts().sort_index()
    assert held_out == (len(visits) + 4) // 10  # a tenth, to the nearest patient
    assert max(parts) - min(parts) <= 1
    for group in (np.array(visits) == 1, np.array(visits) > 1):
        assert abs((of_patient[group] == 0).sum() - group.sum() / 10) < 1
        assert abs((of_patient[group] == 1).sum() - 0.18 * group.sum()) < 1.5


def test_the_papers_cohorts_are_split_into_its_numbers_of_patients():
    published = pd.read_csv(REFERENCE / "published_early.csv").query("table == 'Table 1' and metric == 'n_patients'")
    for _, part in published.groupby("system"):
        train, test = part.set_index("drg_set")["value"].loc[["Train set", "Test set"]].astype(int)
        fold, _ = icu_cohort._folds(pd.Series(range(train + test)), 42)
        assert ((fold == 0).sum(), (fold > 0).sum()) == (test, train)


def test_where_they_are_known_the_held_out_patients_are_on_both_sides():
    patients = pd.Series(np.repeat(np.arange(200), 3))
    fold, known = icu_cohort._folds(patients, 0)
    assert set(patients[fold == 0]).isdisjoint(patients[fold > 0])
    assert set(patients[known == 0]) < set(patients[known > 0]) and (known == 0).sum() == 20


def test_too_few_patients_and_an_unknown_system_are_told():
    with pytest.raises(StudyError, match=r"^the MS-DRG cohort has 5 patients, expected 6 or more; .* one_icu_stay"):
        icu_cohort.build(tables(5), "ms")
    with pytest.raises(StudyError, match="parameter system: expected ms or apr, got 'hcfa'"):
        icu_cohort.build(tables(), "hcfa")
    assert sorted(icu_cohort.build(tables(6), "ms")[0]["fold"]) == [0, 1, 2, 3, 4, 5]


HEADER = [name.upper() for name in mimic.MIMIC_III["noteevents"]]


def write_notes(folder, *rows):
    """Write NOTEEVENTS from (stay, hour or None, category, text, iserror)."""
    with open(folder / "NOTEEVENTS.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        for i, (stay, hour, category, text, *error) in enumerate(rows):
            when = "" if hour is None else START + pd.Timedelta(hours=hour)
            row = {"ROW_ID": i, "SUBJECT_ID": 1, "HADM_ID": stay, "CHARTDATE": START.date(), "CHARTTIME": when}
            writer.writerow(row | {"CATEGORY": category, "TEXT": text, "ISERROR": "".join(error)})
    return folder


def test_notes_are_those_known_at_an_hour(tmp_path, monkeypatch):
    write_notes(
        tmp_path,
        (20, 5, "Nursing", "stable"),
        (10, 48, "Physician ", "at  the\nlast\thour"),
        (10, 48.01, "Nursing", "too late"),
        (10, -30.5, "Radiology", "of [**Known lastname 12**] on [**2150-1-\n9**], a CT"),
        (10, None, "Nursing", "of no hour"),
        (10, 2, "Discharge summary", "reveals all"),
        (10, 3, "Nursing", "marked as wrong", "1"),
        (10, 4, "Nursing", "[** only this **]"),
        ("", 1, "Nursing", "of no stay"),
        (30, 1, "Nursing", "of another stay"),
        (10, 4, "Nursing/other", "b"),
        (10, 4, "Nursing/other", "a"),
    )
    monkeypatch.setattr(csv_stream, "BATCH_BYTES", 300)
    stays = pd.DataFrame({"stay_id": [20, 10, 10], "icu_in": START, "diagnosis": ["SEPSIS", "", ""]})
    notes = icu_cohort.read_notes(tmp_path, stays)
    assert list(notes.itertuples(index=False, name=None)) == [
        (10, -30.5, "Radiology", "of on , a CT"),
        (10, 4, "Nursing/other", "a"),
        (10, 4, "Nursing/other", "b"),
        (10, 48, "Physician", "at the last hour"),
        (20, 5, "Nursing", "stable"),
    ]
    assert icu_cohort.read_notes(tmp_path, stays, hours=5)["hours"].max() == 5
    icu_cohort.NOTES.validate(notes)

    asked = stays[:2][::-1]
    assert inputs.texts(asked, notes, 48) == ["of on , a CT\na\nb\nat the last hour", "SEPSIS\nstable"]
    assert inputs.texts(asked, notes, 4) == ["of on , a CT\na\nb", "SEPSIS"]
    assert inputs.texts(asked, notes, -31) == ["", "SEPSIS"]


@pytest.mark.parametrize(
    "file", ["notebooks/21-early-cohort.ipynb", "notebooks/25-case-mix.ipynb", "lib/drgstudy/templates/early.html"]
)
def test_where_hours_are_introduced_it_is_said_that_the_admitting_diagnosis_is_known_at_all_of_them(file):
    said = " ".join((ROOT / file).read_text(encoding="utf-8").replace('\\n",', "").replace('"', "").split())
    assert re.search("admitting diagnosis (is read|counts) at every hour", said)


def test_cohort_and_notes_are_checked_when_written_and_read(tmp_path):
    stays, _ = icu_cohort.build(tables(12), "ms")
    write_rows(stays, tmp_path / "ms.parquet", icu_cohort.STAYS, by="03-cohort")
    pd.testing.assert_frame_equal(read_rows(tmp_path / "ms.parquet", icu_cohort.STAYS), stays)
    with pytest.raises(StudyError, match=r"column fold, row 0: 6 breaks the rule"):
        write_rows(stays.assign(fold=6), tmp_path / "wrong.parquet", icu_cohort.STAYS, by="03-cohort")
    notes = notes_of((10, 1, "Nursing", "text"))
    write_rows(notes[:0], tmp_path / "notes.parquet", icu_cohort.NOTES, by="03-cohort")
    assert read_rows(tmp_path / "notes.parquet", icu_cohort.NOTES).dtypes.equals(notes.dtypes)


def test_table_1_counts_patients_stays_and_first_visits():
    rows = [  # subject, fold, first visit, DRG, MDC, weight
        (1, 0, True, "064", "01", 2.0), (1, 0, False, "065", "01", 1.0), (2, 0, True, "871", "18", 3.0),
        (3, 1, True, "064", "01", 2.0), (4, 2, True, "291", "05", 1.0), (5, 3, True, "291", "05", 1.0),
        (6, 4, True, "189", "04", 1.2),
    ]  # fmt: skip
    stays = pd.DataFrame(rows, columns=["subject_id", "fold", "first_visit", "drg", "mdc", "weight"])
    table = icu_cohort.described(stays)
    values = table.pivot(index="metric", columns="drg_set", values="value")
    assert values.loc["n_patients"].to_dict() == {"Train set": 4, "Test set": 2, "Test cohort": 2}
    assert values.loc["n_stays"].to_dict() == {"Train set": 4, "Test set": 3, "Test cohort": 2}
    assert values.loc["n_drgs"].to_dict() == {"Train set": 3, "Test set": 3, "Test cohort": 2}
    assert values.loc["percent_stays_mdc_01", "Test set"] == pytest.approx(200 / 3)
    sepsis = stays[stays["mdc"] == "18"]
    for some in (
        stays,
        pd.concat([stays, *[sepsis] * 9]),
    ):  # the paper's three, those of Table 2, whatever is frequent here
        metrics = icu_cohort.described(some)["metric"]
        assert set(metrics[metrics.str.startswith("n_stays_mdc")].str[-2:]) == set(drgs.MDCS) == {"05", "01", "04"}
    assert printed_cohort(table).to_numpy().tolist() == [
        ["Patients", "4", "2", "2"],
        ["Hospital stays", "4", "3", "2"],
        ["Unique DRGs", "3", "3", "2"],
        ["DRG weight", "1.300 (0.476)", "2.000 (1.000)", "2.500 (0.707)"],
        ["Stays of MDC 05 Circulatory system", "2 (50.0 %)", "0 (0.0 %)", "0 (0.0 %)"],
        ["Stays of MDC 01 Nervous system", "1 (25.0 %)", "2 (66.7 %)", "1 (50.0 %)"],
        ["Stays of MDC 04 Respiratory system", "1 (25.0 %)", "0 (0.0 %)", "0 (0.0 %)"],
    ]


def test_the_papers_table_1_is_printed_as_in_the_paper():
    published = pd.read_csv(REFERENCE / "published_early.csv").query("table == 'Table 1' and system == 'ms'")
    table = printed_cohort(published).set_index("Data")
    assert table["Train set"]["DRG weight"] == "3.045 (2.747)"
    assert table["Test cohort"]["Stays of MDC 05 Circulatory system"] == "456 (27.7 %)"
    assert len(table) == 7
