"""Hours and units by hand, filling and standardising against pandas, and the reference file against the real demo."""

import itertools
import weakref

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from drgstudy import inputs, measurements, mimic, provenance
from drgstudy.study import ROOT, StudyError

DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo"
needs_demo = pytest.mark.skipif(not DEMO.exists(), reason="the open MIMIC-III demo is not here")
NAMES = list(measurements.groups().index)
ONE_SYSTEM = {  # no adult item of the other system has such a label, or the demo's D_ITEMS has none
    "anion gap", "cholesterol hdl", "cholesterol ldl", "fraction inspired oxygen set", "post void residual",
    "red blood cell count", "systemic vascular resistance", "troponin-i", "troponin-t",
}  # fmt: skip
STAYS = pd.DataFrame({"stay_id": [10, 20], "icu_in": pd.to_datetime(["2150-01-01 08:30:00", "2150-03-01 23:59:30"])})


def batch(*rows) -> pd.DataFrame:
    """Events from (hadm_id, itemid, charttime, value, error)."""
    frame = pd.DataFrame(list(rows), columns=["hadm_id", "itemid", "charttime", "value", "error"])
    frame["charttime"] = pd.to_datetime(frame["charttime"], format="mixed")
    kinds = {"hadm_id": "Int64", "itemid": "Int64", "charttime": "datetime64[s]", "value": float, "error": "Int64"}
    return frame.astype(kinds)


def cell(values: np.ndarray, stay: int, hour: int, group: str) -> float:
    return values[stay, hour, NAMES.index(group)].item()


def measured(values: np.ndarray) -> dict[tuple[int, int, str], float]:
    return {(s, h, NAMES[g]): values[s, h, g].item() for s, h, g in np.argwhere(~np.isnan(values))}


# --- The reference file


def test_there_are_104_groups_each_with_one_unit_and_known_items():
    table = measurements.items()
    assert len(NAMES) == 104 == table["group"].nunique() and sorted(NAMES) == NAMES
    assert (table.groupby("group")["unit"].nunique() == 1).all()
    assert (table.groupby("itemid")["group"].nunique() == 1).all()
    assert set(table["source"]) <= {"chart", "lab", "output"}
    assert not table.isna().any().any() and (table["low"] < table["high"]).all() and (table["factor"] > 0).all()
    ranges = table[~table["itemid"].isin([220739, 223900, 223901])].groupby("group")[["low", "high"]].nunique()
    assert (ranges == 1).all().all()  # the parts of the coma scale apart


def test_the_two_units_of_an_item_cannot_be_confused():
    """No number is plausible in both units, but for pure oxygen's 1 and 100, and those mean the same."""
    table = measurements.items()
    twice = table[table["itemid"].duplicated(keep=False)]
    assert set(twice["group"]) == {"temperature", "fraction inspired oxygen", "fraction inspired oxygen set"}
    for _, units in twice.groupby("itemid"):
        spans = sorted(((r.low - r.offset) / r.factor, (r.high - r.offset) / r.factor) for r in units.itertuples())
        assert len(spans) == 2 and spans[0][1] < spans[1][0]


# --- Hours, units and what is left out, by hand


def test_hours_begin_with_the_icu_admission_and_hold_means():
    events = [
        batch((10, 211, "2150-01-01 08:29:59", 50, None), (10, 211, "2150-01-01 08:30:00", 80, 0)),
        batch((10, 220045, "2150-01-01 09:29:59", 90, None), (10, 211, "2150-01-01 09:30:00", 100, None)),
        batch((20, 211, "2150-03-03 23:59:29", 70, None), (20, 211, "2150-03-03 23:59:30", 60, None)),
    ]
    values, counts = measurements.hourly(iter(events), STAYS)
    assert values.shape == (2, 48, 104) and values.dtype == np.float32
    assert measured(values) == {(0, 0, "heart rate"): 85, (0, 1, "heart rate"): 100, (1, 47, "heart rate"): 70}
    assert counts == dict.fromkeys(measurements.COUNTS, 0) | {"read": 6, "kept": 4, "other hours": 2}


@pytest.mark.parametrize(
    "itemid, number, group, expected",
    [
        (678, 98.6, "temperature", 37),
        (678, 37.0, "temperature", 37),  # Celsius in the Fahrenheit item
        (223762, 104.0, "temperature", 40),  # and the other way round
        (190, 0.4, "fraction inspired oxygen set", 40),
        (190, 40, "fraction inspired oxygen set", 40),
        (223835, 1, "fraction inspired oxygen", 100),
        (223835, 100, "fraction inspired oxygen", 100),
        (226531, 220, "weight", 99.7903),
        (762, 80, "weight", 80),
        (920, 70, "height", 177.8),
        (226730, 178, "height", 178),
        (652, 0.5, "tidal volume spontaneous", 500),
    ],
)
def test_units(itemid, number, group, expected):
    values, _ = measurements.hourly([batch((10, itemid, "2150-01-01 09:00", number, None))], STAYS)
    assert measured(values) == {(0, 0, group): pytest.approx(expected, rel=1e-6)}


def test_the_parts_of_the_coma_scale_add_up():
    parts = [(220739, 3), (223900, 4), (223901, 6), (220739, 4), (223900, 5), (223901, 6)]  # 13, then 15
    events = batch(*((10, item, "2150-01-01 09:00", value, None) for item, value in parts))
    values, _ = measurements.hourly([events, batch((20, 198, "2150-03-02 00:10", 9, None))], STAYS)
    assert cell(values, 0, 0, "glasgow coma scale total") == 14
    assert cell(values, 1, 0, "glasgow coma scale total") == 9


def test_each_row_is_left_out_for_the_first_reason_that_applies():
    time = "2150-01-01 09:00"
    rows = {
        "other items": [(10, 5813, time, 90, 1), (None, None, None, None, None)],
        "no stay": [(None, 211, time, 80, None)],
        "other stays": [(30, 211, time, 80, 1)],
        "errors": [(10, 211, time, 80, 1), (10, 211, time, 999, 1)],
        "no number": [(10, 211, time, None, None)],
        "other hours": [
            (10, 211, None, 80, None),
            (10, 211, "2149-12-31", 999, 0),
            (10, 211, "2150-01-03 08:30", 80, 0),
        ],
        "implausible": [
            (10, 211, time, 0, 0),
            (10, 190, time, 5, 0),
            (10, 50820, time, 4, None),
            (10, 678, time, 60, 0),
        ],
        "kept": [(10, 211, time, 80, None)],
    }
    values, counts = measurements.hourly([batch(*itertools.chain(*rows.values()))], STAYS)
    expected = {"read": 15} | {reason: len(left) for reason, left in rows.items()}
    assert counts == dict.fromkeys(measurements.COUNTS, 0) | expected
    assert measured(values) == {(0, 0, "heart rate"): 80}


def test_no_events_is_no_values():
    values, counts = measurements.hourly(iter(()), STAYS)
    assert np.isnan(values).all() and set(counts.values()) == {0}


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([10, 20, 30, None]),
        st.sampled_from([211, 220045, 678, 190, 5813]),
        st.datetimes(pd.Timestamp("2149-12-31"), pd.Timestamp("2150-03-05")).map(lambda t: t.replace(microsecond=0)),
        st.floats(0, 200) | st.none(),
        st.sampled_from([0, 1, None]),
    ),
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(EVENTS, st.integers(0, 60))
def test_how_the_rows_fall_into_batches_changes_nothing(rows, cut):
    whole, counts = measurements.hourly([batch(*rows)], STAYS)
    parts, same = measurements.hourly((batch(*part) for part in (rows[:cut], rows[cut:])), STAYS)
    np.testing.assert_array_equal(whole, parts)
    assert counts == same and counts["read"] == len(rows) == sum(counts.values()) - counts["read"]


def test_a_batch_is_let_go_before_the_next_is_read():
    alive = []

    def stream():
        for _ in range(4):
            made = batch((10, 211, "2150-01-01 09:00", 80, None))
            alive.append(weakref.ref(made))
            yield made
            del made
            assert sum(ref() is not None for ref in alive[:-1]) == 0

    assert measurements.hourly(stream(), STAYS)[1]["kept"] == 4


# --- Rows that do not name their stay


def tables(folder, **rows):
    """MIMIC-III's tables of events and stays, as CSV."""
    for name in ("admissions", "icustays", "chartevents", "labevents", "outputevents"):
        made = pd.DataFrame(rows.get(name, [{"itemid": 1}]), columns=list(mimic.MIMIC_III[name]))
        made.rename(columns=str.upper).to_csv(folder / f"{name.upper()}.csv", index=False)
    return folder


@pytest.mark.parametrize("table", ["chartevents", "labevents", "outputevents"])
def test_rows_without_a_stay_are_joined_by_patient_and_time(tmp_path, table):
    """Patient 1: stays 10 (days 1 to 5) and 20 (days 9 to 12, overlapped by 30 on day 11); in the ICU before day 9."""
    spans = [(1, 10, 1, 5), (1, 20, 9, 12), (1, 30, 11, 14), (2, 40, 1, 30)]
    day = lambda n: f"2150-01-{n:02} 12:00:00" if isinstance(n, int) else n  # noqa: E731
    admissions = [dict(zip(("subject_id", "hadm_id", "admittime", "dischtime"), (p, s, day(a), day(b)), strict=True))
                  for p, s, a, b in spans]  # fmt: skip
    icu = [{"subject_id": 1, "hadm_id": 20, "icustay_id": 5, "intime": "2150-01-09 11:00:00", "outtime": day(10)}]
    expected = {
        (1, 1): 10, (1, 5): 10, (1, 6): None, (1, "2150-01-05 12:00:01"): None, (1, "2150-01-09 11:30:00"): 20,
        (1, 10): 20, (1, 11): 30, (1, 13): 30, (2, 6): 40, (3, 6): None, (1, ""): None,
    }  # fmt: skip
    rows = [{"subject_id": p, "itemid": 1, "charttime": day(t)} for p, t in expected] + [
        {"subject_id": 1, "hadm_id": 10, "itemid": 1, "charttime": day(13)}  # what is named is not questioned
    ]
    events = pd.concat(measurements.events(tables(tmp_path, admissions=admissions, icustays=icu, **{table: rows})))
    events = events.dropna(subset="charttime") if table != "x" else events
    found = [*expected.values()][:-1]
    assert events["hadm_id"].astype(object).where(events["hadm_id"].notna(), None).tolist() == [*found, 10]
    assert events["joined"].tolist() == [stay is not None for stay in found] + [False]


@needs_demo
def test_stays_taken_from_the_demos_rows_are_found_again(tmp_path):
    """Without their HADM_ID, nine in ten laboratory rows come back to their own stay, and none to another."""
    lab = pd.concat(mimic.batches(DEMO, "LABEVENTS", ["subject_id", "hadm_id", "charttime"]))
    lab = lab.dropna(subset="hadm_id")
    found = measurements._stay_at(lab[["subject_id", "charttime"]], measurements._stays(DEMO))
    assert (found.dropna() == lab["hadm_id"][found.notna()]).all() and found.notna().mean() > 0.9


# --- What the model reads


def some_values(seed: int = 0, stays: int = 12, hours: int = 6, groups: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = (50 + 10 * rng.standard_normal((stays, hours, groups))).astype(np.float32)
    values[rng.random(values.shape) < 0.6] = np.nan
    return values


def test_filling_and_standardising_are_those_of_pandas():
    values, training = some_values(), np.arange(12) < 8
    made = inputs.standardised(values, training)
    flat = pd.DataFrame(values.reshape(-1, 5).astype("float64"))
    stay = np.repeat(np.arange(12), 6)
    known = flat[np.repeat(training, 6)]
    expected = (flat.groupby(stay).ffill().fillna(known.mean()) - known.mean()) / known.std(ddof=0)
    np.testing.assert_allclose(made[:, :, :5].reshape(-1, 5), expected, atol=1e-5)
    np.testing.assert_array_equal(made[:, :, 5:], (~np.isnan(values)).astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    npst.arrays(np.float32, (5, 4, 3), elements=st.integers(-500, 500).map(lambda x: x / 4) | st.just(np.nan)),
    st.lists(st.booleans(), min_size=5, max_size=5).filter(any).map(np.array),
)
def test_inputs_are_finite_standardised_and_say_what_was_measured(values, training):
    made = inputs.standardised(values, training)
    assert made.shape == (5, 4, 6) and made.dtype == np.float32 and np.isfinite(made).all()
    assert ((made[:, :, 3:] == 1) == ~np.isnan(values)).all() and set(np.unique(made[:, :, 3:])) <= {0, 1}
    for group in range(3):
        seen = values[training, :, group]
        standard = made[training, :, group][~np.isnan(seen)]
        if standard.size == 0:
            assert (made[:, :, group] == 0).all()
        else:
            assert abs(standard.mean()) < 1e-4
            assert standard.std() == pytest.approx(int(len(np.unique(standard)) > 1), abs=1e-4)


def test_nothing_is_learned_from_other_stays():
    values, training = some_values(), np.arange(12) < 8
    changed = values.copy()
    changed[~training] *= 3
    made, again = inputs.standardised(values, training), inputs.standardised(changed, training)
    np.testing.assert_array_equal(made[training], again[training])
    assert (made[~training] != again[~training]).any()


@pytest.mark.parametrize("training", [np.zeros(12, bool), np.ones(11, bool), np.arange(12)])
def test_a_mask_that_does_not_fit(training):
    with pytest.raises(StudyError, match="a mask over the 12 stays with at least one True"):
        inputs.standardised(some_values(), training)


# --- The file


def test_written_and_read_again(tmp_path):
    values, _ = measurements.hourly([batch((10, 211, "2150-01-01 09:00", 80, None))], STAYS)
    for name in ("a.npz", "b.npz"):
        measurements.write_measurements(tmp_path / name, np.array([10, 20]), values)
    stay_ids, names, again = measurements.read_measurements(tmp_path / "a.npz")
    assert stay_ids.tolist() == [10, 20] and list(names) == NAMES
    np.testing.assert_array_equal(again, values)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_files_that_cannot_be_right(tmp_path):
    path, values = tmp_path / "m.npz", np.zeros((2, 48, 104), np.float32)
    with pytest.raises(StudyError, match=r"m\.npz is missing; notebook 22-measurements writes it"):
        measurements.read_measurements(path)
    for ids, wrong in (([1, 1], values), ([1, 2], values[:, :47]), ([1, 2], values.astype("float64"))):
        with pytest.raises(StudyError, match="expected float32 values of"):
            measurements.write_measurements(path, np.array(ids), wrong)
    assert not path.exists()
    with provenance.written(path, "22-measurements") as beside:
        np.savez(beside, stay_ids=np.array([1, 2]), groups=np.array(NAMES[::-1]), values=values)
    with pytest.raises(StudyError, match=r"104 groups of measurements\.csv"):
        measurements.read_measurements(path)
    with provenance.written(path, "22-measurements") as beside:
        beside.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StudyError, match="damaged"):
        measurements.read_measurements(path)


def test_a_stay_that_occurs_twice():
    with pytest.raises(StudyError, match="column stay_id: 10 occurs twice"):
        measurements.hourly(iter(()), pd.concat([STAYS, STAYS]))


# --- The real open demo


@pytest.fixture(scope="module")
def demo() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All events of the demo, and its hospital stays with one ICU stay."""
    icu = mimic.read(DEMO, "icustays", ["hadm_id", "intime"])
    alone = icu[~icu["hadm_id"].duplicated(keep=False)].sort_values("hadm_id", ignore_index=True)
    return pd.concat(measurements.events(DEMO)), alone.rename(columns={"hadm_id": "stay_id", "intime": "icu_in"})


@needs_demo
def test_every_item_is_in_the_real_dictionaries():
    chart = pd.read_csv(DEMO / "D_ITEMS.csv.gz").rename(columns=str.lower)
    lab = pd.read_csv(DEMO / "D_LABITEMS.csv.gz").rename(columns=str.lower)
    known = pd.concat([chart, lab.assign(dbsource="hospital", linksto="labevents")]).set_index("itemid")
    table = measurements.items()
    theirs = known.loc[table["itemid"]].reset_index()
    assert (theirs["label"] == table["label"]).all() and (theirs["dbsource"] == table["system"]).all()
    linked = table["source"].map({"chart": "chartevents", "lab": "labevents", "output": "outputevents"})
    assert (theirs["linksto"] == linked).all()
    carevue = table["itemid"] < 50000
    assert ((table["system"] == "carevue") == carevue).all()
    assert ((table["system"] == "metavision") == (table["itemid"] >= 220000)).all()


def test_both_charting_systems_are_mapped():
    charted = measurements.items().query("system != 'hospital'").groupby("group")["system"].nunique()
    assert set(charted.index[charted == 1]) == ONE_SYSTEM and len(charted) == 77


@needs_demo
def test_nearly_all_of_the_demos_numbers_are_plausible(demo):
    """Group by group, with the reference file's conversions done a second time, row by row."""
    events, _ = demo
    numbers = events.dropna(subset=["value"])
    numbers = numbers[numbers["error"].fillna(0) != 1].merge(measurements.items(), on="itemid")
    converted = numbers["value"] * numbers["factor"] + numbers["offset"]
    numbers["plausible"] = converted.between(numbers["low"], numbers["high"])
    row = numbers.groupby(["hadm_id", "itemid", "charttime", "value", "group"])["plausible"].max()
    share = row.groupby("group").agg(["mean", "size"])
    often = share[share["size"] >= 50]["mean"]
    assert len(often) > 70 and often.min() > 0.95, often.sort_values().head()


@needs_demo
def test_the_demos_hourly_means_are_those_of_pandas(demo):
    events, stays = demo
    values, counts = measurements.hourly([events], stays)
    assert len(stays) == 123 and counts == {
        "read": 845749, "other items": 621353, "no stay": 11093, "other stays": 15730, "errors": 137, "no number": 737,
        "other hours": 130416, "implausible": 87, "kept": 66196, "kept, joined by patient and time": 0,
    }  # fmt: skip
    long = events[events["error"].fillna(0) != 1].merge(stays, left_on="hadm_id", right_on="stay_id")
    long["hour"] = (long["charttime"] - long["icu_in"]).dt.total_seconds() // 3600
    long = long[long["hour"].between(0, 47)].merge(measurements.items(), on="itemid")
    long["value"] = long["value"] * long["factor"] + long["offset"]
    long = long[long["value"].between(long["low"], long["high"])]
    assert len(long) == counts["kept"]
    means = long.groupby(["stay_id", "hour", "group"])["value"].mean()
    index = pd.MultiIndex.from_product([stays["stay_id"], range(48), NAMES])
    expected = means.reindex(index).to_numpy().reshape(123, 48, 104)
    assert int((~np.isnan(expected)).sum()) == 47096
    never = (~np.isnan(expected)).sum(axis=(0, 1)).tolist().count(0)
    said = measurements.measured_sentence(values, "open demo")
    assert f"Of these {104 - never} were measured at least once in a stay of the open demo, and {never} never" in said
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_it_is_said_how_many_groups_were_ever_measured():
    values = np.full((2, 3, 104), np.nan, np.float32)
    values[0, 0, 5], values[1, 2, [5, 8]] = 1, 2
    said = measurements.measured_sentence(values, "small ICU")
    assert (
        "The 317 item ids" in said
        and "104 groups. Of these 2 were measured at least once in a stay of the small ICU, and 102 never" in said
    )


@needs_demo
def test_medians_are_clinical_and_alike_in_both_systems(demo):
    events, stays = demo
    expected = {
        "heart rate": (70, 100), "systolic blood pressure": (100, 135), "diastolic blood pressure": (50, 70),
        "mean blood pressure": (65, 90), "respiratory rate": (14, 24), "oxygen saturation": (95, 100),
        "temperature": (36.3, 37.5), "sodium": (135, 145), "potassium serum": (3.5, 4.5), "chloride": (98, 110),
        "bicarbonate": (21, 28), "creatinine": (0.6, 1.6), "glucose": (100, 160), "hematocrit": (25, 36),
        "hemoglobin": (8, 12), "magnesium": (1.7, 2.4), "calcium": (7.8, 9), "calcium ionized": (1, 1.25),
        "ph": (7.3, 7.45), "partial pressure of carbon dioxide": (34, 46), "weight": (60, 95), "height": (155, 180),
        "positive end-expiratory pressure set": (5, 10), "tidal volume set": (400, 600), "platelets": (120, 300),
        "fraction inspired oxygen": (40, 60), "glasgow coma scale total": (9, 15),
    }  # fmt: skip
    table = measurements.items()
    medians = {}
    for system in ("carevue", "metavision"):
        ids = table.loc[table["system"] == system, "itemid"]
        values, _ = measurements.hourly([events[events["itemid"].isin(ids)]], stays)
        medians[system] = [np.nanmedian(values[:, :, NAMES.index(group)]) for group in expected]
    carevue, metavision = np.array(medians["carevue"]), np.array(medians["metavision"])
    low, high = np.array(list(expected.values())).T
    for system in (carevue, metavision):
        strange = (system < low) | (high < system)
        assert not strange.any(), list(itertools.compress(expected, strange))
    np.testing.assert_allclose(carevue, metavision, rtol=0.25)
