"""Vital signs and laboratory values that fit the diagnoses: items, courses, limits."""

import re
from datetime import datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import simple_icd_10_cm

from drgstudy.study import REFERENCE, ROOT
from drgstudy.synthetic import physiology
from drgstudy.synthetic.tables import FOLDER

DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo"
HOSPITAL = SimpleNamespace(severity=lambda code: 2 * (code in ("A419", "R6521")))
VITALS = pd.read_csv(FOLDER / "vitals.csv")
EFFECTS = pd.read_csv(FOLDER / "physiology.csv")
NEUTRAL = "Z23"  # shifts nothing
COMA, CREATININE, GLUCOSE, POTASSIUM, MEAN_PRESSURE = 198, 50912, 50931, 50971, 456
LABELS = {  # what an item is called where that is not the group's first word
    "oxygen saturation": "SpO2|O2 sat",
    "systolic": "systolic",
    "diastolic": "diastolic",
    "glasgow": "GCS",
    "fraction": "FiO2|Inspired O2",
    "positive": "PEEP",
    "central": "CVP|Central Venous",
    "pulmonary artery pressure mean": "PAP mean|Pulmonary Artery Pressure mean",
    "pulmonary artery": "PAP|Pulmonary Artery",
    "pulmonary capillary": "PCWP",
    "weight": "wt|weight",
    "height": "ht$|height",
    "platelets": "Platelet",
    "blood urea": "Urea Nitrogen",
    "red": "Red Blood Cells",
    "mean corpuscular": "MCV",
    "prothrombin time inr": "INR",
    "prothrombin": "^PT$",
    "partial thrombo": "^PTT$",
    "partial pressure of carbon": "pCO2",
    "partial pressure of oxygen": "pO2",
    "calcium ionized": "Free Calcium",
    "aspartate": "Asparate",
    "urine output": "Urine Out|Foley",
}


def icu(
    *codes, onset=0.0, procedures=(), before=6.0, hours=60.0, ventilated=None, metavision=False, alive=True, age=60
):
    """An ICU stay of a man; every code begins at `onset`."""
    admitted = datetime(2150, 1, 1)
    stay = SimpleNamespace(
        codes=list(codes), procedures=list(procedures), alive=alive, age=age, admitted=admitted,
        discharged=admitted + timedelta(hours=before + hours),
    )  # fmt: skip
    onsets = dict.fromkeys(codes, onset)
    return SimpleNamespace(
        stay=stay, sex="M", before=before, hours=hours, onset=onsets, ventilated=ventilated, metavision=metavision
    )


def draw(*arguments, seed=0, **options) -> pd.DataFrame:
    rows = physiology.draw(HOSPITAL, icu(*arguments, **options), np.random.default_rng(seed))
    frames = [
        pd.DataFrame(rows[kind], columns=["hour", "item", "value", "unit"]).assign(kind=kind)
        for kind in rows
        if rows[kind]
    ]
    return pd.concat(frames, ignore_index=True)


def item(item_id: int, *arguments, draws=25, **options) -> pd.DataFrame:
    """Values of one item in as many draws as it takes; equal seeds, equal patients but for the diagnoses."""
    found = pd.concat([draw(*arguments, seed=seed, **options).assign(seed=seed) for seed in range(draws)])
    return found[found["item"] == item_id]


def ids(system: str) -> set[int]:
    return set(VITALS[f"itemid_{system}"].dropna().astype(int))


def test_the_tables_are_well_formed():
    assert set(VITALS["source"]) == {"chart", "lab", "output"}
    assert (VITALS["low"] < VITALS["mean"]).all() and (VITALS["low"] < VITALS["high"]).all()
    assert (VITALS[["sd", "every"]] > 0).all(axis=None) and (VITALS[["wobble", "decimals"]] >= 0).all(axis=None)
    for system in ("carevue", "metavision"):
        assert VITALS[f"itemid_{system}"].dropna().is_unique
    assert len(EFFECTS) >= 150 and not EFFECTS.duplicated(["prefix", "signal"]).any()
    assert set(EFFECTS["signal"]) <= set(VITALS["signal"])
    assert (EFFECTS[["peak", "half"]] >= 0).all(axis=None) and (EFFECTS["shift"] != 0).all()


def test_every_prefix_begins_a_code():
    codes = simple_icd_10_cm.get_all_codes(with_dots=False) + pd.read_csv(FOLDER / "procedures.csv")["code"].tolist()
    prefixes = " ".join(EFFECTS["prefix"].unique()).split()
    assert {p for p in prefixes if p.isupper() or p.isdigit()} == set(prefixes) - {
        "age",
        "female",
        "ventilated",
        "died",
    }
    assert [p for p in prefixes if not p.islower() and not any(code.startswith(p) for code in codes)] == []


def test_items_mean_in_mimic_what_they_are_called_here():
    groups = pd.read_csv(REFERENCE / "measurements.csv").drop_duplicates("itemid").set_index("itemid")
    outside = {"urine output"}  # no group of the LSTM's
    for row in VITALS[~VITALS["name"].isin(outside)].itertuples():
        for item_id in {row.itemid_carevue, row.itemid_metavision} - {np.nan}:
            if not np.isnan(item_id):
                assert row.name.startswith(groups.loc[item_id, "group"].removesuffix(" total")), (row.name, item_id)
                assert groups.loc[item_id, "source"] == row.source


@pytest.mark.skipif(not DEMO.exists(), reason="the open MIMIC-III demo is not here")
def test_items_are_those_of_the_real_dictionaries():
    items = pd.read_csv(DEMO / "D_ITEMS.csv.gz").rename(columns=str.lower).set_index("itemid")
    labs = pd.read_csv(DEMO / "D_LABITEMS.csv.gz").rename(columns=str.lower).set_index("itemid")
    for row in VITALS.itertuples():
        pattern = next((p for name, p in LABELS.items() if row.name.startswith(name)), re.split("[ -]", row.name)[0])
        for system in ("carevue", "metavision"):
            item_id = getattr(row, f"itemid_{system}")
            if np.isnan(item_id):
                continue
            real = (labs if row.source == "lab" else items).loc[int(item_id)]
            assert re.search(pattern, real["label"], re.IGNORECASE), (row.name, real["label"])
            if row.source == "lab":
                assert real["fluid"] == ("Urine" if "urine" in row.name else "Blood")
            else:
                assert (real["dbsource"], real["linksto"]) == (system, f"{row.source}events")


@pytest.mark.parametrize("metavision", [False, True])
def test_each_system_has_its_own_items(metavision):
    system, other = ("metavision", "carevue") if metavision else ("carevue", "metavision")
    options = {"ventilated": (0.0, 40.0), "metavision": metavision, "procedures": ["021209W"]}
    rows = pd.concat([draw("I214", "I2510", seed=seed, **options) for seed in range(60)])
    assert set(rows["item"]) == ids(system)
    assert set(rows.loc[rows["kind"] != "lab", "item"]).isdisjoint(ids(other))
    expected = VITALS.dropna(subset=f"itemid_{system}").set_index(f"itemid_{system}")
    assert (rows["unit"] == rows["item"].map(expected["unit"].fillna(""))).all()
    assert (rows["kind"] == rows["item"].map(expected["source"])).all()


def test_values_stay_within_limits_and_decimals():
    codes = ["A419", "R6521", "N170", "N186", "D65", "K7201", "E1010", "I469", "C9200", "D61810", "T391X2A", "K922"]
    known = VITALS.set_index("itemid_metavision")
    for seed in range(20):
        rows = draw(*codes, seed=seed, ventilated=(0, 60), metavision=True, alive=False, age=95)
        about = known.loc[rows["item"]].reset_index(drop=True)
        assert ((rows["value"] >= about["low"]) & (rows["value"] <= about["high"])).all()
        written = [round(value, decimals) for value, decimals in zip(rows["value"], about["decimals"], strict=True)]
        assert rows["value"].tolist() == written


@pytest.mark.parametrize(("before", "hours"), [(0.0, 60.0), (5.4, 6.5), (30.0, 200.0)])
def test_times(before, hours):
    rows = draw("A419", before=before, hours=hours)
    first, last = -min(before, physiology.BEFORE), min(hours, physiology.HORIZON)
    assert rows["hour"].between(first, last).all()
    assert (rows.loc[rows["kind"] != "lab", "hour"] >= 0).all()
    for _, kind in rows.groupby("kind"):
        assert kind["hour"].is_monotonic_increasing
    if hours > 6:
        labs = rows.query("kind == 'lab'")["hour"]
        assert labs.min() < first + 5 and labs.max() > last - 5 * (hours > 10) - 6
        assert rows.query("item == 211")["hour"].diff().median() == pytest.approx(1, abs=0.2)


def test_nothing_is_measured_in_less_than_an_hour():
    rows = physiology.draw(HOSPITAL, icu("A419", before=0.2, hours=0.4), np.random.default_rng(0))
    assert rows == {"chart": [], "lab": [], "output": []}


def test_equal_seeds_give_equal_rows():
    assert draw("A419", seed=4).equals(draw("A419", seed=4))
    assert not draw("A419", seed=4).equals(draw("A419", seed=5))


def test_the_ventilator_is_charted_only_while_there_is_one():
    machine = set(VITALS.loc[VITALS["when"] == "ventilated", "itemid_metavision"].dropna())
    rows = draw("J9601", ventilated=(3.5, 20.25), metavision=True).query("item in @machine")
    assert set(rows["item"]) == machine and rows["hour"].between(3.5, 20.25).all()
    assert not draw("J9601", metavision=True)["item"].isin(machine).any()


@pytest.mark.parametrize(
    ("code", "item_id", "sign"),
    [
        ("A419", 51301, 1), ("A419", MEAN_PRESSURE, -1), ("K922", 51222, -1), ("K922", 51006, 1), ("D62", 51222, -1),
        ("E1010", GLUCOSE, 1), ("E1010", 50882, -1), ("N186", CREATININE, 1), ("N186", 40055, -1), ("I619", COMA, -1),
        ("J9601", 646, -1), ("I4891", 211, 1), ("I442", 211, -1), ("K7030", 51265, -1), ("E871", 50983, -1),
        ("E870", 50983, 1), ("E875", POTASSIUM, 1), ("E876", POTASSIUM, -1), ("D693", 51265, -1), ("D701", 51301, -1),
        ("Z6841", 762, 1), ("T50902A", COMA, -1), ("F10231", 211, 1), ("O721", 51222, -1), ("E8342", 50960, -1),
        ("I160", MEAN_PRESSURE, 1), ("E8352", 50893, 1), ("E43", 763, -1), ("S065X6A", COMA, -1), ("T68", 678, -1),
    ],
)  # fmt: skip
def test_a_diagnosis_shows(code, item_id, sign):
    ill, well = (item(item_id, c, onset=-6, draws=8)["value"] for c in (code, NEUTRAL))
    assert sign * (ill.mean() - well.mean()) > 0.3 * well.std()


def test_what_is_measured_in_some_is_measured_where_there_is_reason():
    ill, well = (item(50813, code, onset=-6, draws=40) for code in ("A419", NEUTRAL))
    assert ill["seed"].nunique() > 1.5 * well["seed"].nunique()
    lactate = pd.concat(
        [rows[rows["hour"] < 24].groupby("seed")["value"].mean() for rows in (ill, well)], axis=1
    ).dropna()
    assert (lactate.iloc[:, 0] / lactate.iloc[:, 1]).median() > 1.25  # of the same patients
    troponin = item(51003, "I214", draws=20)
    assert troponin["seed"].nunique() > 15
    peak, late = (troponin.query(f"{a} <= hour < {a + 8}")["value"].median() for a in (12, 52))
    assert peak > 0.1 and peak > late  # ng/mL


def test_more_is_measured_in_a_stay_with_mccs():
    severe = SimpleNamespace(severity=lambda code: 2)
    codes = [NEUTRAL] * 6
    for kind in ("chart", "lab"):
        many, few = (
            sum(len(physiology.draw(h, icu(*codes), np.random.default_rng(seed))[kind]) for seed in range(20))
            for h in (severe, HOSPITAL)
        )
        assert many > few


def test_acute_kidney_injury_raises_creatinine_from_its_onset_on():
    injured, well = (item(CREATININE, code, onset=12.0).set_index(["seed", "hour"]) for code in ("N179", NEUTRAL))
    before = injured.index.get_level_values("hour") < 12
    pd.testing.assert_frame_equal(injured[before], well[before])  # the very same patient
    late = injured.index.get_level_values("hour") > 36
    assert (injured[late]["value"] >= well[late]["value"]).all()
    assert injured[late]["value"].median() > 1.5 * well[late]["value"].median()


def test_an_effect_fades_and_two_add_up():
    diabetic, well = (item(GLUCOSE, code, onset=-2.0) for code in ("E1010", NEUTRAL))
    excess = diabetic["value"] / well["value"].to_numpy()
    early, late = diabetic["hour"].between(0, 8), diabetic["hour"] > 40
    assert excess[early].median() > 2 > 1.6 > excess[late].median()
    sepsis, kidney, both = (
        item(CREATININE, *codes, onset=0.0)["value"].median()
        for codes in (("A419", "Z23"), ("Z23", "N179"), ("A419", "N179"))
    )
    assert both > max(sepsis, kidney)


def test_who_dies_gets_worse_towards_the_end():
    dying, living = (
        item(MEAN_PRESSURE, NEUTRAL, alive=alive).set_index(["seed", "hour"])["value"] for alive in (False, True)
    )
    hour = dying.index.get_level_values("hour")
    assert dying[hour < 24].equals(living[hour < 24])  # death is at hour 60
    assert dying[hour > 54].mean() < living[hour > 54].mean() - 8  # mmHg


def test_age_and_ventilation_act_without_a_code():
    young, old = (item(CREATININE, NEUTRAL, age=age)["value"].mean() for age in (30, 90))
    assert young < old < 1.6 * young
    awake, sedated = (item(COMA, NEUTRAL, ventilated=v)["value"].mean() for v in (None, (0, 60)))
    assert sedated < awake - 3


def test_one_value_seldom_tells_the_disease():
    """The ill and the well overlap."""
    for item_id, code in ((51301, "A419"), (CREATININE, "N179"), (51222, "K922")):
        ill, well = (item(item_id, c, onset=-6, draws=30).groupby("seed")["value"].mean() for c in (code, NEUTRAL))
        assert 0.01 < (ill.to_numpy()[:, None] < well.to_numpy()).mean() < 0.99
