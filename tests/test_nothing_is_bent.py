"""Whatever was changed behind the study's back is refused, in a sentence that names the file; what was not is read."""

import shutil

import numpy as np
import pandas as pd
import pyarrow
import pytest
import test_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cohort import MAPPING

from drgstudy import cohort, drgs, icu_cohort, measurements, predictions, provenance, report, runs, study, tables
from drgstudy.flow import check_flow, read_flow, read_rows, write_rows
from drgstudy.study import StudyError, read_json, write_json

RUNS = ["llama", "tfidf", "mine"]


@pytest.fixture
def paths(tiny_study, monkeypatch, tmp_path):
    """A copy of the tiny study, its files as new."""
    shutil.copytree(tiny_study, tmp_path / "study", copy_function=shutil.copy)
    (tmp_path / "params" / "tiny").mkdir(parents=True)
    shutil.copy(study.NOTEBOOKS / "studies.yaml", tmp_path)
    for step in ("06-results", "07-two-labels"):
        (tmp_path / "params" / "tiny" / f"{step}.yaml").touch()
    monkeypatch.setattr(study.places, "ROOT", tmp_path / "study")
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(provenance, "USED", {})
    return study.Paths("tiny")


def read_all(paths):
    """Every file of the tiny study, as the notebooks and the report read it."""
    provenance.read_json(paths.source)
    read_rows(paths.drgs, cohort.MAPPING)
    read_rows(paths.stays, cohort.STAYS)
    read_flow(paths)
    predictions.read_runs(paths, RUNS)
    for run in RUNS:
        predictions.check_model(paths.runs / run, read_json(paths.runs / run / "run.json"))
    report.build("tiny")


def edit_table(file, change):
    change(pd.read_parquet(file)).to_parquet(file, index=False)


def edit_json(file, change):
    content = read_json(file)
    change(content)
    write_json(file, content)


def forge(file):
    """Make the record fit the file that lies there, as somebody would who knows the records."""
    edit_json(provenance.record_of(file), lambda record: record.update(fingerprint=study.fingerprint(file)))


def forge_run(paths, run="llama", **arrays):
    """Replace some of a run's arrays and make its run.json fit."""
    folder = paths.runs / run
    with np.load(folder / "predictions.npz") as saved:
        np.savez(folder / "predictions.npz", **dict(saved) | arrays)
    edit_json(folder / "run.json", lambda r: r.update(predictions=study.fingerprint(folder / "predictions.npz")))


def moved(stays):
    """One stay of the training part goes to the test part."""
    return stays.assign(split=stays["split"].where(stays["stay_id"] != 1, "test"))


def fewer(flow):
    """A flow that adds up, to one stay fewer."""
    for chain in ("notes", "drg_rows"):
        flow[chain][-1] |= {"kept": 599, "removed": 101}
    flow["stays"], flow["splits"]["split"]["train_stays"] = 599, 449


def an_edited_split(paths):
    edit_table(paths.stays, moved)


def an_edited_split_with_its_record(paths):
    edit_table(paths.stays, moved)
    forge(paths.stays)


def stays_without_a_record(paths):
    provenance.record_of(paths.stays).unlink()


def an_edited_mapping(paths):
    edit_table(paths.drgs, lambda table: table.assign(title="other"))


def another_mapping(paths):
    table = read_rows(paths.drgs, cohort.MAPPING)
    write_rows(table.iloc[1:], paths.drgs, cohort.MAPPING, by="02-harmonization", inputs=[paths.source])


def another_raw_table(paths):
    with (paths.raw / "drgcodes.csv").open("a") as file:
        file.write("one row more\n")


def another_kind_of_source(paths):
    edit_json(paths.source, lambda source: source.update(kind="open demo"))


def edited_counts(paths):
    edit_json(paths.flow, fewer)


def edited_counts_with_their_record(paths):
    edit_json(paths.flow, fewer)
    forge(paths.flow)


def counts_that_do_not_add_up(paths):
    edit_json(paths.flow, lambda flow: flow["notes"][1].update(removed=99))
    forge(paths.flow)


def parts_that_do_not_add_up(paths):
    edit_json(paths.flow, lambda flow: flow["splits"]["split"].update(train_stays=449))
    forge(paths.flow)


def swapped_labels(paths):
    file = paths.runs / "llama" / "predictions.npz"
    with np.load(file) as saved:
        np.savez(file, **dict(saved) | {"labels": saved["labels"][::-1]})


def other_labels_in_order(paths):
    codes = read_rows(paths.drgs, cohort.MAPPING)["drg_v34"]
    forge_run(paths, labels=np.array([*codes[1:], "999"], str))


def swapped_truth(paths):
    with np.load(paths.runs / "llama" / "predictions.npz") as saved:
        forge_run(paths, truth=saved["truth"][::-1])


def stays_in_another_order(paths):
    with np.load(paths.runs / "llama" / "predictions.npz") as saved:
        forge_run(paths, stay_ids=saved["stay_ids"][::-1])


def another_cohorts_predictions(paths):
    edit_json(paths.runs / "llama" / "run.json", lambda run: run["dataset"].update(fingerprint="0" * 16))


def another_cohorts_predictions_forged(paths):
    with np.load(paths.runs / "llama" / "predictions.npz") as saved:
        forge_run(paths, stay_ids=saved["stay_ids"] + 1)


def another_split(paths):
    edit_json(paths.runs / "llama" / "run.json", lambda run: run.update(split="split_patients"))


def another_runs_weights(paths):
    (paths.runs / "mine" / "model.safetensors").write_bytes(b"trained elsewhere")


def another_bases_states(paths):
    (paths.runs / "mine" / "frozen").mkdir()
    (paths.runs / "mine" / "frozen" / "0000.safetensors").write_bytes(b"of another base")


def edited_numbers(paths):
    edit_json(paths.report / "numbers" / "06-results.json", lambda part: part["numbers"].update(seed=7))


def another_cohorts_numbers(paths):
    predictions.read_runs(paths, RUNS)
    tables.write_numbers(paths, "07-two-labels", {})
    record = provenance.record_of(paths.report / "numbers" / "07-two-labels.json")
    other = {"fingerprint": "0" * 16}
    edit_json(record, lambda record: record["inputs"].update({"../../../data/tiny/stays.parquet": other}))


def numbers_of_a_run_that_was_trained_again(paths):
    predictions.read_runs(paths, RUNS)
    edit_json(paths.runs / "mine" / "run.json", lambda run: run.update(seed=2))
    (paths.report / "numbers" / "06-results.json").touch()


ATTACKS = {
    an_edited_split: r"data/tiny/stays\.parquet was changed after it was written; touch the parameter file 03-cohort\.yaml",
    an_edited_split_with_its_record: r"data/tiny/stays\.parquet has changed since data/tiny/flow\.json was made from it",
    stays_without_a_record: r"stays\.parquet has no stays\.made\.json beside it",
    an_edited_mapping: r"drgs\.parquet was changed .* 02-harmonization\.yaml",
    another_mapping: r"drgs\.parquet has changed since data/tiny/stays\.parquet was made from it; .* 03-cohort\.yaml",
    another_raw_table: r"raw/drgcodes\.csv has changed since data/tiny/source\.json was made from it; .* 01-hospital\.yaml",
    another_kind_of_source: r"source\.json was changed",
    edited_counts: r"flow\.json was changed",
    edited_counts_with_their_record: r"flow\.json, drg_rows: 599 stays are left, but stays\.parquet has 600",
    counts_that_do_not_add_up: r"flow, notes: the counts of the step 'kept' do not add up",
    parts_that_do_not_add_up: r"flow, split: 449 and 150 stays are not the cohort's 600",
    swapped_labels: r"runs/llama/predictions\.npz is missing or not the file that llama/run\.json describes",
    other_labels_in_order: r"runs/llama/predictions\.npz has stay 0 billed as \d{3}, stays\.parquet as \d{3}",
    swapped_truth: r"runs/llama/predictions\.npz has stay \d+ billed as",
    stays_in_another_order: r"runs/llama/predictions\.npz is not of the test stays of stays\.parquet under split",
    another_cohorts_predictions: r"run llama was made on another cohort than data/tiny/stays\.parquet",
    another_cohorts_predictions_forged: r"runs/llama/predictions\.npz is not of the test stays",
    another_split: r"runs/llama/predictions\.npz is not of the test stays of stays\.parquet under split_patients",
    another_runs_weights: r"runs/mine/model\.safetensors is not the file that run mine left there",
    another_bases_states: r"runs/mine/frozen/0000\.safetensors is not the file that run mine left there",
    edited_numbers: r"numbers/06-results\.json was changed after it was written; .* 06-results\.yaml",
    another_cohorts_numbers: r"data/tiny/stays\.parquet has changed since reports/tiny/numbers/07-two-labels\.json was",
    numbers_of_a_run_that_was_trained_again: r"runs/mine/run\.json has changed since .*numbers/06-results\.json was",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_is_bent_is_refused_by_name(paths, attack):
    attack(paths)
    with pytest.raises(StudyError, match=ATTACKS[attack]) as refused:
        read_all(paths)
    assert "\n" not in str(refused.value)


def test_an_untouched_study_is_read_also_in_another_place_without_its_raw_tables(paths):
    read_all(paths)
    shutil.rmtree(paths.raw)  # to an archive
    read_all(paths)


def test_a_raw_table_is_read_again_only_if_its_time_or_size_has_changed(paths, monkeypatch):
    provenance.write_json(paths.source, read_json(paths.source), "01-hospital", [paths.raw / "drgcodes.csv"])
    hashed = []
    plain = provenance.fingerprint
    monkeypatch.setattr(provenance, "fingerprint", lambda path: (hashed.append(path.name), plain(path))[1])
    provenance.verified(paths.source)
    assert hashed == ["source.json"]
    (paths.raw / "drgcodes.csv").touch()
    provenance.verified(paths.source)
    assert hashed.count("drgcodes.csv") == 1


def test_a_file_is_hashed_once_while_it_stays_as_it_is(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"a")
    study.files._fingerprint.cache_clear()
    first = study.fingerprint(file)
    assert study.fingerprint(file) == first and study.files._fingerprint.cache_info().misses == 1
    file.write_bytes(b"b")
    assert study.fingerprint(file) != first


def test_numbers_that_make_will_make_again_are_left_out_until_then(paths):
    """A new cohort, while the runs on it are being trained: nothing is refused, and no old number is shown."""
    write_rows(
        moved(read_rows(paths.stays, cohort.STAYS)),
        paths.stays,
        cohort.STAYS,
        by="03-cohort",
        inputs=[paths.source, paths.drgs],
    )
    provenance.write_json(paths.flow, read_json(paths.flow), "03-cohort", [paths.stays])
    provenance.write_json(paths.report / "numbers" / "21-early-cohort.json", EARLY, "21-early-cohort")
    report.build("tiny")
    numbers = read_json(paths.report / "numbers.json")
    assert "results" not in numbers and numbers["early_cohort"] == EARLY["numbers"]


EARLY = {
    "numbers": {
        "dataset": {"kind": "synthetic", "name": "ICU", "fingerprint": "f"},
        "stays_fingerprint": "s",
        "flow": {system: [{"step": "stays", "kept": 12, "removed": 0}] for system in drgs.SYSTEMS},
        "mean_words": {"hour 24": 81.0, "hour 48": 108.0},
    },
    "text": {},
    "costs": {},
}


def test_a_record_names_what_was_read_and_whose_data_it_is(paths):
    read_flow(paths)
    predictions.read_runs(paths, ["tfidf"])
    tables.write_numbers(paths, "08-size-and-length", {})
    record = read_json(paths.report / "numbers" / "08-size-and-length.made.json")
    names = {"source.json", "drgs.parquet", "stays.parquet", "flow.json", "runs/tfidf/run.json"}
    assert set(record["inputs"]) == {f"../../../data/tiny/{name}" for name in names}
    assert record["by"] == "08-size-and-length" and record["source"]["kind"] == "synthetic"


def test_a_write_that_is_cut_off_leaves_nothing_that_passes(paths, monkeypatch):
    """The record is written before the file takes its name: between the two, as after a kill, the old file is refused."""

    def killed(source, target):
        if str(target).endswith("stays.parquet"):
            raise KeyboardInterrupt
        replace(source, target)

    stays, replace = read_rows(paths.stays, cohort.STAYS), study.files.os.replace
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study.files.os, "replace", killed)
        write_rows(moved(stays), paths.stays, cohort.STAYS, by="03-cohort", inputs=[paths.source, paths.drgs])
    with pytest.raises(StudyError, match=r"stays\.parquet was changed"):
        read_rows(paths.stays, cohort.STAYS)


# --- the early study


@pytest.fixture
def early_study(tmp_path, monkeypatch):
    """A study of ninety stays with notes, measurements, and a run on each target."""
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "USED", {})
    paths = test_runs.made_up()
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
    values = np.random.default_rng(0).normal(size=(90, 48, 104)).astype(np.float32)
    measurements.write_measurements(paths.measurements, stays["stay_id"].to_numpy(), values, [paths.cohort("ms")])
    test_runs.run(paths)

    folder = paths.runs / "w" / "fold-1"
    test = stays[stays["fold"] == 0]
    weights = pd.DataFrame({"stay_id": test["stay_id"], "true": test["weight"].astype("float32")})
    folder.mkdir(parents=True)
    weights.assign(predicted=np.float32(1)).to_parquet(folder / "weights.parquet", index=False)
    run = read_json(paths.runs / "r" / "fold-1" / "hour+48" / "run.json") | {"run": "w"}
    write_json(folder / "run.json", run | {"predictions": study.fingerprint(folder / "weights.parquet")})
    return paths


def read_early(paths):
    read_flow(paths)
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
    for reads in ("notes", "measurements"):
        runs.known_at(paths, stays, reads, 48)
    predictions.read_folds(paths, "r")
    predictions.read_weights(paths, "w")


def measurements_of_other_stays(paths):
    stay_ids, _, values = measurements.read_measurements(paths.measurements)
    measurements.write_measurements(paths.measurements, stay_ids + 1, values)


def permuted_measurements(paths):
    with np.load(paths.measurements) as saved:
        np.savez(paths.measurements, **dict(saved) | {"values": saved["values"][:, :, ::-1]})


def notes_of_other_stays(paths):
    notes = read_rows(paths.notes, icu_cohort.NOTES)
    write_rows(notes.assign(stay_id=notes["stay_id"] + 1), paths.notes, icu_cohort.NOTES, by="21-early-cohort")


def notes_of_other_stays_with_all_records(paths):
    notes_of_other_stays(paths)
    provenance.write_json(paths.flow, read_json(paths.flow), "21-early-cohort", [paths.cohort("ms"), paths.notes])


def other_notes_with_all_records(paths):
    notes = read_rows(paths.notes, icu_cohort.NOTES)
    write_rows(notes.assign(text="other"), paths.notes, icu_cohort.NOTES, by="21-early-cohort")
    provenance.write_json(paths.flow, read_json(paths.flow), "21-early-cohort", [paths.cohort("ms"), paths.notes])


def a_patient_in_two_folds(paths):
    edit_table(paths.cohort("ms"), lambda stays: stays.assign(subject_id=stays["subject_id"] // 6))
    forge(paths.cohort("ms"))


def an_edited_fold(paths):
    edit_table(paths.cohort("ms"), lambda stays: stays.assign(fold=(stays["fold"] + 1) % 6))


def edited_weights(paths):
    edit_table(paths.runs / "w" / "fold-1" / "weights.parquet", lambda table: table.assign(predicted=2.0))


def edited_weights_with_their_record(paths):
    folder = paths.runs / "w" / "fold-1"
    edit_table(folder / "weights.parquet", lambda table: table.assign(true=table["true"] + np.float32(1)))
    edit_json(folder / "run.json", lambda run: run.update(predictions=study.fingerprint(folder / "weights.parquet")))


EARLY_ATTACKS = {
    measurements_of_other_stays: r"early/measurements\.npz has not the cohorts' stays",
    permuted_measurements: r"early/measurements\.npz was changed after it was written; .* 22-measurements\.yaml",
    notes_of_other_stays: r"early/notes\.parquet has changed since data/tiny/early/flow\.json was made from it",
    notes_of_other_stays_with_all_records: r"early/notes\.parquet has notes of stays that are in neither cohort",
    other_notes_with_all_records: r"run r was made on another cohort than data/tiny/early/notes\.parquet",
    a_patient_in_two_folds: r"ms\.parquet.* breaks the rule a patient, a fold",
    an_edited_fold: r"early/ms\.parquet was changed",
    edited_weights: r"w/fold-1/weights\.parquet is missing or not the file that fold-1/run\.json describes",
    edited_weights_with_their_record: r"w/fold-1/weights\.parquet has not the hold-out stays of ms\.parquet",
}


@pytest.mark.parametrize("attack", EARLY_ATTACKS, ids=lambda attack: attack.__name__)
def test_what_is_bent_in_the_early_study_is_refused_by_name(early_study, attack):
    attack(early_study)
    with pytest.raises(StudyError, match=EARLY_ATTACKS[attack]):
        if attack is a_patient_in_two_folds:
            read_rows(early_study.cohort("ms"), icu_cohort.STAYS)
        read_early(early_study)


def test_an_untouched_early_study_is_read(early_study):
    read_early(early_study)
    assert early_study.study == "early"


def test_a_fold_whose_predictions_were_changed_is_trained_again(early_study):
    (early_study.runs / "r" / "fold-1" / "hour+48" / "predictions.npz").write_bytes(b"bent")
    test_runs.run(early_study)
    assert len(predictions.read_folds(early_study, "r")) == 1


# --- what goes in comes out, whatever it is


def batch(texts):
    n = len(texts)
    columns = [pyarrow.array(range(n), "int64"), pyarrow.array(range(n), "int64"), pyarrow.array(texts, "string")]
    return pyarrow.RecordBatch.from_arrays(columns, names=["subject_id", "hadm_id", "text"])


@given(st.lists(st.one_of(st.none(), st.text(), st.text().map("Brief Hospital Course:\n{}".format)), max_size=8))
def test_a_note_becomes_the_same_row_in_any_company(texts):
    together = cohort.extract(batch(texts))
    alone = [cohort.extract(batch([text])).drop_columns(["subject_id", "hadm_id"]).to_pylist() for text in texts]
    assert together.drop_columns(["subject_id", "hadm_id"]).to_pylist() == [row for rows in alone for row in rows]
    for course, text in zip(together["text"].to_pylist(), texts, strict=True):
        assert course is None or (course and course in text.replace("\r\n", "\n"))


WORDS = st.sampled_from([0, 38, 39, 40, 50])
CODES = st.sampled_from(MAPPING["code"].tolist())
STAY_NOTES = st.lists(st.tuples(st.integers(0, 12), WORDS, st.integers(0, 20)), min_size=10, max_size=40)
ROWS = st.lists(st.tuples(st.integers(0, 12), CODES, st.sampled_from(["HCFA", "HCFA", "APR"])), min_size=5, max_size=30)


@settings(max_examples=40, deadline=None)
@given(STAY_NOTES, ROWS)
def test_the_flow_of_any_notes_and_rows_adds_up(notes, rows):
    texts = [f"Brief Hospital Course:\n{' '.join(['w'] * words)} {which}" for _, words, which in notes]
    read = batch(texts)
    read = read.set_column(1, "hadm_id", pyarrow.array([stay for stay, _, _ in notes], "int64"))
    read = read.set_column(0, "subject_id", pyarrow.array([stay // 2 for stay, _, _ in notes], "int64"))
    titles = MAPPING.drop_duplicates("code").set_index("code")["title"]
    codes = pd.DataFrame(rows, columns=["hadm_id", "drg_code", "drg_type"])
    codes = codes.astype({"drg_code": "str", "drg_type": "str"}).assign(
        description=codes["drg_code"].map(titles).astype("str")
    )
    try:
        stays, flow = cohort.build_cohort([cohort.extract(read)], codes, MAPPING)
    except StudyError as error:
        assert str(error).startswith("the cohort ")
        return
    check_flow(flow)
    assert flow["stays"] == len(stays) == stays["stay_id"].nunique() and flow["notes"][0]["kept"] == len(notes)
    assert (stays["drg_v34"].map(stays["drg_v34"].value_counts()) >= 2).all() and stays["words"].min() >= 40
    for split in cohort.SPLITS[:2]:
        train, test = cohort.parts(stays, split)
        left_out = stays[~stays["stay_id"].isin([*train["stay_id"], *test["stay_id"]])]
        assert len(train) + len(test) + len(left_out) == len(stays)
        if split == "split":
            assert left_out.empty
        else:  # of a test patient one stay is tested, and the others are in neither part
            assert test["subject_id"].is_unique and not set(train["subject_id"]) & set(test["subject_id"])
            assert set(left_out["subject_id"]) <= set(test["subject_id"])
