"""Each filter in its order, counts that add up, both splits, and the file that the models read."""

import gzip
import hashlib
import pickle
import re

import numpy as np
import pandas as pd
import pyarrow
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from drgstudy import cohort, mimic, provenance
from drgstudy.cohort import (
    COURSES,
    build_cohort,
    extract,
    is_ms_drg,
    leakage,
    parts,
    stratified_draw,
    word_count_test,
    words_sentence,
)
from drgstudy.flow import check_flow, read_rows, write_rows
from drgstudy.notes import hospital_course
from drgstudy.study import ROOT, StudyError

MAPPING = pd.DataFrame(
    [("001", "ONE", "001"), ("002", "TWO", "002"), ("003", "THREE", "003"), ("009", "URINARY STONES W MCC", None)],
    columns=["code", "title", "drg_v34"],
)
TITLES = {"1": "ONE", "001": "ONE", "002": "TWO", "003": "THREE", "009": "URINARY STONES W MCC"}


def drg_rows(*rows, kind="HCFA"):
    """Rows of DRGCODES from (stay, code) or (stay, code, type)."""
    rows = [(*row, kind)[:3] for row in rows]
    return pd.DataFrame(
        [(stay // 10, stay, type_, code, TITLES[code]) for stay, code, type_ in rows],
        columns=["subject_id", "hadm_id", "drg_type", "drg_code", "description"],
    )


def note(words, mark):
    return f"Brief Hospital Course:\n{mark} {'word ' * (words - 1)}\n\nDischarge Medications:\nnone"


def batches(*rows, size=3):
    """Batches of courses from (stay, text); the patient is the stay without its last digit."""
    frame = pd.DataFrame(rows, columns=["hadm_id", "text"]).astype({"hadm_id": "Int64"})
    frame["subject_id"] = frame["hadm_id"].fillna(990) // 10
    return cut(frame, size)


def cut(notes, size=10**6):
    """The courses of a frame of notes, in batches."""
    batch = pyarrow.RecordBatch.from_pandas(notes, preserve_index=False)
    return [extract(batch.slice(start, size)) for start in range(0, len(batch), size)]


def hospital(n=400, seed=0):
    """A random hospital without anything to leave out: 30 DRGs with a long tail, patients with up to ten stays."""
    rng = np.random.default_rng(seed)
    codes = [f"{code:03d}" for code in range(1, 31)]
    mapping = pd.DataFrame({"code": codes, "title": codes, "drg_v34": codes})
    stays = rng.choice(10 * n, n, replace=False) // 3 + np.arange(n) * 10_000
    drgs = rng.choice(codes, n, p=(weights := 1 / np.arange(1, 31)) / weights.sum())
    rows = pd.DataFrame({"hadm_id": stays, "drg_type": "HCFA", "drg_code": drgs, "description": drgs})
    rows["subject_id"] = rng.integers(0, n // 2, n)
    notes = rows[["hadm_id", "subject_id"]].assign(text=[note(rng.integers(40, 90), stay) for stay in stays])
    return notes, rows, mapping


def test_every_filter_removes_what_it_should():
    notes = batches(
        (10, note(40, "a")),
        (11, "Chief Complaint:\nher hospital course was long"),  # no hospital course
        (12, note(39, "b")),  # too short
        (13, note(40, "a")),  # the text of stay 10
        (None, note(50, "c")),  # of no stay
        (14, note(50, "d")),  # its DRG has no v34 code
        (15, note(50, "e")),  # an APR row only
        (16, note(50, "f")),  # two MS-DRGs
        (17, note(50, "g")),  # no DRG row at all
        (10, note(50, "h")),  # a second note of stay 10
        (20, note(50, "i")),
        (30, note(50, "j")),  # the only stay of its DRG
        (18, note(41, "g")),
    )
    drgs = drg_rows(
        (10, "1"), (11, "001"), (12, "001"), (13, "001"), (14, "009"), (15, "001", "APR "), (16, "001"), (16, "002"),
        (20, "001"), (20, "001"), (30, "003"), (18, "002"), (21, "002"),
    )  # fmt: skip
    notes += batches((21, note(45, "k")))
    stays, flow = build_cohort(notes, drgs, MAPPING)
    assert stays["stay_id"].tolist() == [10, 18, 20, 21]
    assert stays["subject_id"].tolist() == [1, 1, 2, 2]
    assert stays["drg_v34"].tolist() == ["001", "002", "001", "002"]
    assert stays["words"].tolist() == [40, 41, 50, 45]
    assert stays["text"][0] == "a " + " ".join(["word"] * 39)
    assert [(step["kept"], step["removed"]) for step in flow["notes"]] == [
        (14, 0), (13, 1), (12, 1), (11, 1), (6, 5), (5, 1), (4, 1),
    ]  # fmt: skip
    assert [(step["kept"], step["removed"]) for step in flow["drg_rows"]] == [
        (13, 0), (12, 1), (11, 1), (9, 2), (8, 1), (5, 3), (4, 1),
    ]  # fmt: skip
    assert (flow["stays"], flow["labels"]) == (4, 2)


def test_each_note_becomes_a_row_of_its_own():
    texts = [note(3, "é"), "no course", None, note(3, "é")]
    stays = pyarrow.array([10, None, 12, 13], "int64")
    notes = pyarrow.record_batch({"text": texts, "note_id": list("abcd"), "hadm_id": stays, "subject_id": [1, 2, 3, 4]})
    courses = extract(notes)
    assert courses.to_pydict() == {
        "subject_id": [1, 2, 3, 4],
        "hadm_id": [10, None, 12, 13],
        "text": ["é word word", None, None, "é word word"],
        "words": [3, 0, 0, 3],
        "digest": [7319859454259229422, -5426141060434712860, -5426141060434712860, 7319859454259229422],
    }
    assert courses.schema.equals(COURSES)
    assert extract(pyarrow.Table.from_batches([notes])).equals(pyarrow.Table.from_batches([courses]))


@given(st.lists(st.integers(0, 4), max_size=4))
def test_courses_do_not_depend_on_how_the_notes_are_cut(sizes):
    notes = pyarrow.RecordBatch.from_pandas(hospital(12)[0], preserve_index=False)
    whole, places = extract(notes), np.cumsum([0, *sizes])
    apart = [notes.slice(start, size) for start, size in zip(places, sizes, strict=False)]
    apart = map(pickle.loads(pickle.dumps(extract)), [*apart, notes.slice(places[-1])])
    assert pyarrow.Table.from_batches(apart).combine_chunks().equals(pyarrow.Table.from_batches([whole]))


def test_ms_drgs_are_hcfa_in_mimic_iv_and_ms_in_mimic_iii():
    assert is_ms_drg(drg_rows((10, "1"), (10, "001", "APR"))).tolist() == [True, False]
    assert is_ms_drg(drg_rows((10, "1"), (10, "001", "MS"), (10, "001", "APR "))).tolist() == [False, True, False]


def test_the_cohort_depends_neither_on_the_order_of_rows_nor_on_batches_and_shelves(monkeypatch):
    notes, rows, mapping = hospital()
    expected, flow = build_cohort(cut(notes), rows, mapping)
    text = notes.set_index("hadm_id")["text"].map(hospital_course)
    assert expected["text"].tolist() == text[expected["stay_id"]].tolist()
    monkeypatch.setattr(cohort, "BLOCK", 30)
    monkeypatch.setattr(cohort, "BATCHES", 3)
    shuffled = notes.sample(frac=1, random_state=1)
    again, flow_again = build_cohort(cut(shuffled, 37), rows[::-1], mapping[::-1])
    pd.testing.assert_frame_equal(expected, again)
    assert flow == flow_again
    other, _ = build_cohort(cut(notes), rows, mapping, seed=43)
    assert (other["split"] != expected["split"]).any()
    assert (other["split_patients"] != expected["split_patients"]).any()


def test_a_split_holds_out_clinicians():
    notes, rows, mapping = hospital(2000)
    who = pd.Series([f"P{i % 57}" if i % 10 else "" for i in range(len(notes))], index=notes["hadm_id"].to_numpy())
    stays, flow = build_cohort(cut(notes), rows, mapping, clinicians=who)
    admitted = stays["stay_id"].map(who)
    test = stays["split_clinicians"] == "test"
    assert 100 < test.sum() <= 200 and flow["splits"]["split_clinicians"]["test_stays"] == test.sum()
    assert set(admitted[test]).isdisjoint(admitted[~test]) and "" not in set(admitted[test])
    assert parts(stays, "split_clinicians")[1].equals(stays[test])
    assert "no_split_clinicians" not in flow
    for nobody, why in (
        (None, "admit_provider_id came with MIMIC-IV 2.2"),
        (who.replace("P.*", "P1", regex=True), "the first clinician drawn admitted more stays than"),
        (who.iloc[:0], "is empty for every stay"),
    ):
        stays, flow = build_cohort(cut(notes), rows, mapping, clinicians=nobody)
        assert "split_clinicians" not in stays and "split_clinicians" not in flow["splits"]
        assert why in flow["no_split_clinicians"]
        with pytest.raises(StudyError, match="expected split or split_patients or split_known, got 'split_clinicians'"):
            parts(stays, "split_clinicians")


def test_both_splits_of_a_hospital():
    notes, rows, mapping = hospital(2000)
    stays, flow = build_cohort(cut(notes), rows, mapping)
    assert (stays["split"] == "test").sum() == 200
    tested, theirs = stays["split_patients"] == "test", stays["split_patients"] != "train"
    assert 160 < theirs.sum() < 240 and theirs.sum() > tested.sum() == stays.loc[theirs, "subject_id"].nunique()
    often = stays["drg_v34"] == "001"
    assert (stays.loc[often, "split"] == "test").mean() == pytest.approx(0.1, abs=0.01)
    assert theirs[often].mean() == pytest.approx(0.1, abs=0.04)
    for split, counts in flow["splits"].items():
        train, test = (stays[stays[split] == part] for part in ("train", "test"))
        assert (counts["train_stays"], counts["test_stays"]) == (len(train), len(test))
        assert (counts["train_labels"], counts["test_labels"]) == (train.drg_v34.nunique(), test.drg_v34.nunique())
        assert counts["untrained_labels"] == len(set(test.drg_v34) - set(train.drg_v34)) == 0
        assert counts["shared_patients"] == test.subject_id.drop_duplicates().isin(train.subject_id).sum()
    assert flow["splits"]["split"]["shared_patients"] > 0
    assert flow["splits"]["split_patients"]["shared_patients"] == 0
    assert flow["splits"]["split_known"]["shared_patients"] == stays[theirs & ~tested]["subject_id"].nunique() > 10


def test_those_who_know_the_patients_learn_from_as_many_stays_and_are_asked_about_the_same():
    notes, rows, mapping = hospital(2000)
    stays, _ = build_cohort(cut(notes), rows, mapping, test_share=0.3)
    apart, known = stays["split_patients"], stays["split_known"]
    assert ((apart == "test") == (known == "test")).all() and (known == "train").sum() == (apart == "train").sum()
    assert (known[apart == "other"] == "train").all()  # all other stays of the test patients
    assert set(apart[known == "other"]) == {"train"}  # in place of stays of others
    assert set(stays["subject_id"][apart != "train"]).isdisjoint(stays["subject_id"][apart == "train"])


@given(st.lists(st.integers(2, 40), min_size=1, max_size=30), st.integers(0, 99))
def test_a_stratified_draw_is_proportional_however_many_strata(sizes, seed):
    strata = pd.Series(np.repeat([f"{i:03d}" for i in range(len(sizes))], sizes))
    strata = strata.sample(frac=1, random_state=seed)
    drawn = stratified_draw(strata, 0.1, np.random.default_rng(seed))
    total = -(-len(strata) // 10)
    assert drawn.sum() == total
    counts = pd.Series(drawn, strata.index).groupby(strata).sum().to_numpy()
    quota = np.array(sizes) * total / len(strata)
    assert (np.abs(counts - quota) < 1).all()
    assert (counts < sizes).all()  # every stratum is also left to train on


def test_a_stratified_draw_agrees_with_scikit_learn_where_that_one_draws():
    strata = pd.Series(np.repeat(list("abcde"), [103, 58, 27, 9, 3]))  # remainders of a tenth, all different
    drawn = stratified_draw(strata, 0.1, np.random.default_rng(0))
    _, theirs = train_test_split(strata, test_size=0.1, stratify=strata, random_state=0)
    assert strata[drawn].value_counts().to_dict() == theirs.value_counts().to_dict()


def test_leakage_counts_patients_not_stays():
    stays = pd.DataFrame({"subject_id": [1, 1, 1, 2, 3], "split": ["train", "test", "test", "test", "train"]})
    assert leakage(stays, "split") == {"test_patients": 2, "shared_patients": 1, "shared_share": 0.5}


def test_word_counts_are_compared_as_scipy_does():
    stays, _ = build_cohort(cut(hospital()[0]), *hospital()[1:])
    train, test = (stays.loc[stays["split"] == part, "words"] for part in ("train", "test"))
    expected = scipy.stats.ttest_ind(train, test)
    result = word_count_test(stays)
    assert (result["t"], result["p"]) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)
    assert (result["train_mean"], result["test_mean"]) == (train.mean(), test.mean())


def test_a_small_p_of_a_random_split_is_called_a_rare_draw_and_nothing_more():
    """Of 400 random splits of the same stays about p have a p as small: what the sentence says of any of them."""
    rng, stays = np.random.default_rng(0), pd.DataFrame({"words": np.random.default_rng(1).lognormal(5, 0.4, 300)})
    p = [
        word_count_test(stays.assign(split=rng.permutation(["train"] * 200 + ["test"] * 100)))["p"] for _ in range(400)
    ]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.05)
    said = {p: words_sentence({"train_mean": 118.25, "test_mean": 121, "p": p}) for p in (0.0136, 0.51, 0.0004, 1.0)}
    assert "118.2 words on average, test stays 121.0" in said[0.0136] and "about 1.4 % of random splits" in said[0.0136]
    assert "about 51 % of random splits" in said[0.51] and "about 100 % of" in said[1.0]
    assert "fewer than one in 1,000 random splits" in said[0.0004] and "a mistake" in said[0.0004]
    assert all("The seed is not to be chosen by it" in each for each in said.values())
    assert not any("a mistake" in said[p] for p in (0.0136, 0.51, 1.0))


@pytest.mark.parametrize(
    ("notes", "drgs", "sentence"),
    [
        ([], drg_rows((10, "001")), "there are no notes"),
        (batches((10, "no course")), drg_rows((10, "001")), "after the step 'hospital course found'"),
        (batches((10, note(9, "a"))), drg_rows((10, "001")), "after the step 'at least 40 words'"),
        (batches((10, note(50, "a"))), drg_rows((11, "001")), "after the step 'stay has an MS-DRG in v34'"),
        (batches((None, note(50, "a"))), drg_rows((11, "001", "APR")), "after the step 'stay has an MS-DRG in v34'"),
        (batches((10, note(50, "a"))), drg_rows((10, "001")), "after the step 'DRG has at least 2 stays'"),
        (batches((10, note(50, "a")), (11, note(50, "b"))), drg_rows((10, "001"), (11, "001")), "one patient only"),
    ],
)
def test_an_empty_cohort_says_at_which_step(notes, drgs, sentence):
    with pytest.raises(StudyError, match=f"^the cohort .*{sentence}"):
        build_cohort(notes, drgs, MAPPING)


@pytest.mark.parametrize("wrong", [{"test_share": 0.0}, {"test_share": 1.0}, {"min_stays": 1}])
def test_a_parameter_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(StudyError, match=next(iter(wrong))):
        build_cohort([], drg_rows((10, "001")), MAPPING, **wrong)


def test_counts_that_do_not_add_up_are_refused():
    _, flow = build_cohort(cut(hospital()[0]), *hospital()[1:])
    flow["notes"][2]["removed"] += 1
    with pytest.raises(StudyError, match=r"flow, notes: .* 'at least 40 words' do not add up"):
        check_flow(flow)
    flow["notes"][2]["removed"] -= 1
    flow["stays"] += 1
    with pytest.raises(StudyError, match="are left, but the cohort has"):
        check_flow(flow)


def test_stays_are_checked_when_written_and_when_read(tmp_path):
    stays, _ = build_cohort(cut(hospital()[0]), *hospital()[1:])
    path = tmp_path / "stays.parquet"
    write_rows(stays, path, cohort.STAYS, by="03-cohort")
    pd.testing.assert_frame_equal(read_rows(path, cohort.STAYS), stays)

    unwritten = tmp_path / "unwritten.parquet"
    for column, value in {"split": "dev", "drg_v34": "1", "stay_id": 7, "words": 0}.items():
        with pytest.raises(StudyError, match=f"unwritten.parquet, column {column}, row 0: "):
            write_rows(stays.assign(**{column: value}), unwritten, cohort.STAYS, by="03-cohort")
    assert set(tmp_path.iterdir()) == {path, provenance.record_of(path)}

    with provenance.written(path, "03-cohort") as beside:
        stays.drop(columns="split_patients").to_parquet(beside)
    with pytest.raises(StudyError, match=r"stays.parquet: split_patients breaks the rule column_in_dataframe"):
        read_rows(path, cohort.STAYS)
    with provenance.written(path, "03-cohort") as beside:
        beside.write_bytes(b"PAR1 and no more")
    with pytest.raises(StudyError, match=r"stays.parquet is not a readable parquet file"):
        read_rows(path, cohort.STAYS)
    with pytest.raises(StudyError, match=r"nothing.parquet is missing"):
        read_rows(tmp_path / "nothing.parquet", cohort.STAYS)


def test_from_files_to_stays(tmp_path):
    (tmp_path / "drgcodes.csv").write_text(
        "subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality\n"
        + "".join(f"{patient},{patient}0,HCFA,001,ONE,,\n" for patient in range(1, 6)),
        encoding="utf-8",
    )
    header = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
    rows = [f'{patient}-DS-1,{patient},{patient}0,DS,1,,,"{note(40, patient)}"\n' for patient in range(1, 6)]
    (tmp_path / "discharge.csv.gz").write_bytes(gzip.compress((header + "".join(rows)).encode()))
    stays, flow = build_cohort(map(extract, mimic.notes(tmp_path)), mimic.read(tmp_path, "drgcodes"), MAPPING)
    assert stays["stay_id"].tolist() == [10, 20, 30, 40, 50]
    assert flow["splits"]["split"]["test_stays"] == 1


def test_hosts_that_forbid_weak_hashes_let_us_number_texts(monkeypatch):
    """FIPS mode, simulated: only what is marked as no matter of security may use a hash that is not approved."""
    notes = pyarrow.table({"subject_id": [1], "hadm_id": [2], "text": ["Brief Hospital Course:\nwell\n"]})
    usual, plain = extract(notes), hashlib.blake2b

    def blake2b(*data, usedforsecurity=True, **options):
        if usedforsecurity:
            raise ValueError("[digital envelope routines] disabled for FIPS")
        return plain(*data, **options)

    monkeypatch.setattr(hashlib, "blake2b", blake2b)
    assert extract(notes).equals(usual)
    rooms = [ROOT / room for room in ("lib", "cluster", "benchmarks", "notebooks")]
    for file in [file for room in rooms for kind in ("*.py", "*.ipynb") for file in room.rglob(kind)]:
        for call in re.findall(r"\b(?:md5|sha1|blake2[bs])\(.*", file.read_text(encoding="utf-8")):
            assert "usedforsecurity=False" in call, file
