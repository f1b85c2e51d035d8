"""The synthetic hospital's ICU stays: MIMIC-III's shape, and times, codes and DRGs that agree between the tables."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drgstudy import drgs
from drgstudy.study import REFERENCE, ROOT, StudyError, read_json
from drgstudy.synthetic import icu, parts
from drgstudy.synthetic.icu import make_icu_hospital
from drgstudy.synthetic.icu_stays import CRANIOTOMY, LAST_DAY, OPEN_HEART, VENTILATION, draw_icu
from drgstudy.synthetic.patients import draw_patient
from drgstudy.synthetic.tables import Hospital

DIALS = {"patients": 320, "seed": 3, "note_words": 120, "tail": 0.6}
TIMES = ["ADMITTIME", "DISCHTIME", "DOB", "DOD", "INTIME", "OUTTIME", "CHARTTIME", "CHARTDATE"]
DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("icu") / "raw"
    make_icu_hospital(folder, **DIALS)
    return folder


@pytest.fixture(scope="module")
def tables(folder) -> dict[str, pd.DataFrame]:
    text = dict.fromkeys(["DRG_CODE", "VALUE", "drg_v36"], str)
    found = {name: pd.read_csv(folder / f"{name}.csv.gz", dtype=text, low_memory=False) for name in icu.COLUMNS}
    for table in found.values():
        for name in table.columns.intersection(TIMES):
            table[name] = pd.to_datetime(table[name]).astype("datetime64[s]")  # the oldest were "born" 300 years ago
    return found


@pytest.fixture(scope="module")
def stays(tables) -> pd.DataFrame:
    """One row an ICU stay: admission, patient and truth beside it."""
    joined = tables["ICUSTAYS"].merge(tables["ADMISSIONS"].drop(columns=["ROW_ID", "SUBJECT_ID"]), on="HADM_ID")
    joined = joined.merge(tables["PATIENTS"].drop(columns="ROW_ID"), on="SUBJECT_ID", validate="m:1")
    return joined.merge(tables["truth"], left_on="HADM_ID", right_on="hadm_id", validate="m:1")


@pytest.fixture(scope="module")
def hospital() -> Hospital:
    return Hospital(1.0)


@pytest.fixture(scope="module")
def drawn(hospital) -> pd.DataFrame:
    """Adult stays without their tables, and the ICU stay of each, if any."""
    rows = []
    for number in range(1600):
        rng = np.random.default_rng([7, number])
        patient = draw_patient(hospital, number, rng, LAST_DAY)
        rows += [(stay, draw_icu(hospital, stay, patient.sex, rng)) for stay in patient.stays if stay.age]
    return pd.DataFrame(rows, columns=["stay", "icu"])


@pytest.mark.skipif(not DEMO.exists(), reason="the open MIMIC-III demo is not here")
@pytest.mark.parametrize("table", [name for name in icu.COLUMNS if name != "truth"])
def test_columns_are_those_of_mimic_iii(folder, table):
    heads = []
    for place in (folder, DEMO):
        with gzip.open(place / f"{table}.csv.gz", "rt", encoding="utf-8", newline="") as file:
            heads.append(next(csv.reader(file)))
    assert heads[0] == heads[1]


def test_workers_change_no_byte_nor_does_the_number_of_patients(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PATIENTS_PER_PART", 10)
    for name, patients, workers in (("1", 24, 1), ("2", 24, 2), ("few", 20, 1)):
        make_icu_hospital(tmp_path / name, **DIALS | {"patients": patients}, workers=workers)
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == sorted([*(f"{name}.csv.gz" for name in icu.COLUMNS), "hospital.json"])
    assert all((tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes() for file in files)
    for name in icu.COLUMNS:
        few, many = (gzip.decompress((tmp_path / n / f"{name}.csv.gz").read_bytes()) for n in ("few", "1"))
        assert many.startswith(few)
    assert len(few) < len(many)


def test_it_says_what_it_is(folder, tables):
    about = read_json(folder / "hospital.json")
    assert about["source"] == "synthetic" and about["stays"] == len(tables["ADMISSIONS"]) > 100
    assert {name: about[name] for name in DIALS} == DIALS


def test_identifiers_are_unique_and_agree(tables):
    ids = {"ADMISSIONS": "HADM_ID", "PATIENTS": "SUBJECT_ID", "ICUSTAYS": "ICUSTAY_ID", "D_ITEMS": "ITEMID"}
    for name, table in tables.items():
        assert name == "truth" or table["ROW_ID"].is_unique
        assert name not in ids or table[ids[name]].is_unique
    known = set(zip(tables["ADMISSIONS"]["SUBJECT_ID"], tables["ADMISSIONS"]["HADM_ID"], strict=True))
    for name in ("ICUSTAYS", "DRGCODES", "NOTEEVENTS", "CHARTEVENTS", "LABEVENTS", "OUTPUTEVENTS"):
        assert set(zip(tables[name]["SUBJECT_ID"], tables[name]["HADM_ID"], strict=True)) <= known
    assert set(tables["ICUSTAYS"]["HADM_ID"]) == set(tables["ADMISSIONS"]["HADM_ID"]) == set(tables["truth"]["hadm_id"])
    assert set(tables["PATIENTS"]["SUBJECT_ID"]) == set(tables["ADMISSIONS"]["SUBJECT_ID"])


def test_icu_stays_lie_in_their_admission(stays):
    assert (stays["ADMITTIME"] <= stays["INTIME"]).all() and (stays["INTIME"] < stays["OUTTIME"]).all()
    assert (stays["OUTTIME"] <= stays["DISCHTIME"]).all()
    assert np.allclose(stays["LOS"], (stays["OUTTIME"] - stays["INTIME"]) / pd.Timedelta("1D"), atol=1e-4)
    ordered = stays.sort_values(["HADM_ID", "INTIME"])
    again = ordered["HADM_ID"].eq(ordered["HADM_ID"].shift())
    assert again.any() and (ordered["INTIME"] > ordered["OUTTIME"].shift())[again].all()
    assert set(stays["FIRST_CAREUNIT"]) == set(stays["LAST_CAREUNIT"]) == {"MICU", "SICU", "CSRU", "CCU", "TSICU"}


def test_onsets_are_of_the_codes_and_within_the_stay(stays):
    for stay in stays.drop_duplicates("HADM_ID").itertuples():
        onset = [float(hour) for hour in stay.onset.split()]
        before = (stay.INTIME - stay.ADMITTIME).total_seconds() / 3600
        assert len(onset) == len(stay.codes.split()) and onset[0] == pytest.approx(-before, abs=0.01)
        assert all(hour == onset[0] or 0 <= hour <= min(72, 24 * stay.LOS) + 0.01 for hour in onset)


def test_ages_are_right_and_the_oldest_are_300(stays):
    birthdays = stays["ADMITTIME"].dt.year - stays["DOB"].dt.year
    passed = stays["DOB"].dt.dayofyear <= stays["ADMITTIME"].dt.dayofyear
    oldest = stays.groupby("SUBJECT_ID")["age"].transform("max") > 89
    assert (birthdays == stays["age"])[~oldest].all() and passed[~oldest].all() and (stays["age"] >= 18).all()
    assert oldest.any() and birthdays[oldest].between(300, 305).all()
    assert stays["INTIME"].dt.year.between(2112, 2200).all()


def test_the_dead_died_in_hospital(tables, stays):
    dead = stays[stays["HOSPITAL_EXPIRE_FLAG"] == 1]
    assert len(dead) > 3 and (dead["DEATHTIME"] == dead["DISCHTIME"].astype(str)).all()
    assert (dead["DOD"] == dead["DISCHTIME"].dt.normalize()).all() and (dead["EXPIRE_FLAG"] == 1).all()
    died = tables["PATIENTS"].set_index("SUBJECT_ID")["DOD"].dropna()
    latest = stays.groupby("SUBJECT_ID")["DISCHTIME"].max().dt.normalize()
    assert (latest[died.index] <= died).all()


def test_drgs_are_billed_as_in_their_time(tables, hospital):
    rows, truth = tables["DRGCODES"], tables["truth"].set_index("hadm_id")
    assert set(rows["DRG_TYPE"]) == {"MS", "APR ", "HCFA"}
    titles = drgs.titles_by_year().query("fiscal_year <= 2012")
    billed = rows[rows["DRG_TYPE"] == "MS"]
    known = set(zip(titles["drg"], titles["title"], strict=True))
    assert billed["HADM_ID"].is_unique and set(zip(billed["DRG_CODE"], billed["DESCRIPTION"], strict=True)) <= known
    apr = rows[rows["DRG_TYPE"] == "APR "]
    groups = pd.read_csv(REFERENCE / "synthetic" / "apr_groups.csv", dtype={"drg": str}).set_index("drg")["apr_group"]
    base = apr["DESCRIPTION"].str.removeprefix("SURROGATE APR: ").map(hospital.base_code)
    code = base.map(groups).astype(str).str.zfill(3) + apr["DRG_SEVERITY"].astype(int).astype(str)
    assert (apr["DRG_CODE"] == code).all()
    true = apr["HADM_ID"].map(truth["drg_v36"]).map(hospital.base_title).map(hospital.base_code)
    assert (base == true).mean() > 0.97 and set(apr["DRG_SEVERITY"]) <= {1, 2, 3, 4}


def test_some_have_no_drg_and_some_two():
    tables = icu._Tables(Hospital(0.2), {}, 100, 0)
    rng = np.random.default_rng(1)
    stay = draw_patient(tables.hospital, 1, np.random.default_rng(4), LAST_DAY).stays[0]
    for number in range(3000):
        tables._add_drgs([1, number], stay, number % 2 == 0, rng)
    rows = pd.DataFrame(tables.rows["DRGCODES"], columns=icu.COLUMNS["DRGCODES"][1:])
    share = rows.groupby("DRG_TYPE")["HADM_ID"].nunique() / 3000
    assert share["MS"] == pytest.approx(0.66, abs=0.03) and share["APR "] == pytest.approx(0.95, abs=0.015)
    assert 1 - rows["HADM_ID"].nunique() / 3000 == pytest.approx(icu.NO_DRG, abs=0.015)
    apr = rows[rows["DRG_TYPE"] == "APR "].groupby("HADM_ID")
    titles, severities = apr["DESCRIPTION"].nunique(), apr["DRG_SEVERITY"].nunique()
    assert (severities == 2).mean() == pytest.approx(icu.TWO_SEVERITIES, abs=0.01)
    assert (titles == 2).mean() == pytest.approx(icu.TWO_GROUPS, abs=0.007)


def test_who_comes_to_intensive_care(drawn, hospital):
    came = drawn["icu"].notna()
    assert 0.19 < came.mean() < 0.26
    for pattern in (OPEN_HEART, CRANIOTOMY, VENTILATION):
        certain = drawn["stay"].map(lambda stay, p=pattern: any(map(p.match, stay.procedures)))
        assert certain.sum() > 30 and came[certain].mean() > 0.93
    severe = drawn["stay"].map(lambda stay: sum(hospital.severity(code) == 2 for code in stay.codes[1:]))
    assert came[severe >= 2].mean() > 2 * came[severe == 0].mean()
    births = drawn["stay"].map(lambda stay: stay.scenario.service in ("OBSTETRICS", "PSYCHIATRY"))
    assert births.sum() > 100 and came[births].mean() < 0.03


def test_when_they_come_and_how_long_they_stay(drawn):
    stays = drawn["icu"].dropna()
    hours, before = stays.map(lambda s: s.hours), stays.map(lambda s: s.before)
    assert 40 < hours.median() < 60 and 0.01 < (hours > 240).mean() < 0.1
    assert ((before + hours) * 3600 <= stays.map(lambda s: (s.stay.discharged - s.stay.admitted).total_seconds())).all()
    assert (before >= 0).all() and 0.7 < (before < 9).mean() < 0.95 and (before > 24).mean() > 0.02
    planned = stays.map(lambda s: s.stay.scenario.admission == "L" and any(map(OPEN_HEART.match, s.stay.procedures)))
    morning = stays[planned].map(lambda s: (s.stay.admitted.hour, s.before))
    assert len(morning) > 20 and all(hour == 6 and wait <= 9 for hour, wait in morning)


def test_a_third_of_what_is_acute_shows_later(drawn, hospital):
    late: dict[str, list[bool]] = {}
    for stay in drawn["icu"].dropna():
        assert list(stay.onset) == stay.stay.codes
        principal = {code for codes, _ in stay.stay.scenario.principal for code in codes}
        for code in set(stay.onset) - principal:
            late.setdefault(hospital.condition(code).kind, []).append(stay.onset[code] != -stay.before)
    assert np.mean(late["a"]) == pytest.approx(1 / 3, abs=0.05) and not any(late["c"] + late["h"])


def test_who_is_ventilated_and_by_which_system_charted(drawn):
    stays = drawn["icu"].dropna()
    tubes = stays[stays.map(lambda s: s.ventilated is not None)].map(lambda s: (*s.ventilated, s.hours, s.before))
    assert 0.15 < len(tubes) / len(stays) < 0.5
    assert all(-before <= start <= end <= hours for start, end, hours, before in tubes)
    assert stays[stays.map(lambda s: any(map(OPEN_HEART.match, s.stay.procedures)))].map(lambda s: s.ventilated).all()
    modern, year = stays.map(lambda s: s.metavision), stays.map(lambda s: s.stay.admitted.year)
    assert modern[year == 2008].mean() < 0.4 < 0.7 < modern[year == 2012].mean()
    assert stays.map(lambda s: s.stay.fiscal_year).max() <= 2012


def test_some_have_two_icu_stays_and_some_move(stays):
    number = stays.groupby("HADM_ID")["ICUSTAY_ID"].transform("size")
    assert 0.02 < (number == 2).sum() / 2 / stays["HADM_ID"].nunique() < 0.16
    moved = (stays["FIRST_WARDID"] != stays["LAST_WARDID"]) | (stays["FIRST_CAREUNIT"] != stays["LAST_CAREUNIT"])
    assert 0.03 < moved[number == 1].mean() < 0.18 and not moved[number == 2].any()


def test_notes(tables, stays):
    notes = tables["NOTEEVENTS"].merge(stays.drop_duplicates("HADM_ID"), on="HADM_ID", suffixes=("", "_"))
    assert notes["TEXT"].str.len().gt(0).all() and (notes["CHARTDATE"] == notes["CHARTDATE"].dt.normalize()).all()
    timed = notes.dropna(subset=["CHARTTIME"])
    assert (timed["CHARTDATE"] == timed["CHARTTIME"].dt.normalize()).all()
    assert timed["CHARTTIME"].between(timed["ADMITTIME"], timed["DISCHTIME"]).all()
    last = notes[notes["CATEGORY"] == "Discharge summary"]
    assert last["HADM_ID"].is_unique and last["CHARTTIME"].isna().all()
    assert (last["CHARTDATE"] == last["DISCHTIME"].dt.normalize()).all()
    without = 1 - notes["HADM_ID"].nunique() / stays["HADM_ID"].nunique()
    assert 0 < without < 0.08 and len(last) == notes["HADM_ID"].nunique()
    assert (notes["DIAGNOSIS"].dropna() == notes["DIAGNOSIS"].dropna().str.upper()).all()


@pytest.mark.parametrize("name", ["CHARTEVENTS", "LABEVENTS", "OUTPUTEVENTS"])
def test_measurements_are_of_known_items_and_within_the_stay(tables, stays, name):
    events = tables[name].merge(stays.drop_duplicates("HADM_ID"), on="HADM_ID", suffixes=("", "_"))
    items = tables["D_LABITEMS"] if name == "LABEVENTS" else tables["D_ITEMS"]
    events = events.merge(items, on="ITEMID", suffixes=("", "_item"), validate="m:1")
    assert len(events) == len(tables[name]) and len(events) > 20 * stays["HADM_ID"].nunique()
    hour = (events["CHARTTIME"] - events["INTIME"]) / pd.Timedelta("1h")
    first = -24 if name == "LABEVENTS" else 0
    assert hour.min() >= first and hour.max() <= 60 and (events["CHARTTIME"] >= events["ADMITTIME"]).all()
    assert (events["CHARTTIME"] <= events["OUTTIME"]).all() and (events["CHARTTIME"].dt.second == 0).all()
    assert events["VALUEUOM"].notna().mean() > 0.8
    if name != "LABEVENTS":
        assert (events["DBSOURCE"] == events["DBSOURCE_item"]).all() and set(events["LINKSTO"]) == {name.lower()}
        assert (events["ICUSTAY_ID"] == events["ICUSTAY_ID_"]).all()
    if name != "OUTPUTEVENTS":
        assert (events["VALUE"].astype(float) == events["VALUENUM"]).all()


def test_wrong_values_are_marked(tables):
    chart = tables["CHARTEVENTS"]
    wrong = chart["ERROR"] == 1
    assert 0.0003 < wrong.sum() / chart["ERROR"].notna().sum() < 0.003
    assert (chart.loc[wrong, "VALUENUM"] > 1000).all() and chart["STOPPED"].notna().equals(chart["ERROR"].isna())


def test_nothing_is_left_of_an_interrupted_hospital(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(icu, "draw_icu", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_icu_hospital(tmp_path / "raw", **DIALS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [("patients", 0), ("seed", -1), ("note_words", 12), ("note_words", 99.5), ("tail", 2), ("workers", 0)],
)
def test_bad_dials(tmp_path, name, value):
    with pytest.raises(StudyError, match=f"^{name} is {value}"):
        make_icu_hospital(tmp_path / "raw", **DIALS | {name: value})
    assert not list(tmp_path.iterdir())


def test_a_second_group_is_one_that_exists(monkeypatch):
    monkeypatch.setattr(icu, "TWO_GROUPS", 1)
    tables, rng = icu._Tables(Hospital(0.2), {}, 100, 0), np.random.default_rng(1)
    stay = draw_patient(tables.hospital, 1, np.random.default_rng(4), LAST_DAY).stays[0]
    for number in range(3000):
        tables._add_drgs([1, number], stay, True, rng)
    codes = {row[3] for row in tables.rows["DRGCODES"] if row[2] == "APR "}
    assert len(codes) > 200 and codes <= set(drgs.fiscal_2013("apr").index)
