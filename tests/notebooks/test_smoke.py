"""The whole study on the smoke profile: make runs every notebook, and these tests read what it wrote."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest

from drgstudy import cohort
from drgstudy.metrics import Scores
from drgstudy.predictions import read_predictions
from drgstudy.study import NOTEBOOKS, Paths, fingerprint, read_json

PATHS = Paths("smoke")
RUNS = ("bert", "caml", "llama", "probe", "tfidf")


def test_every_notebook_ran_to_its_end(study):
    ran = {file.stem for file in PATHS.executed.glob("[!.]*.ipynb")}
    assert ran == {file.stem for file in (NOTEBOOKS / "params" / "smoke").glob("*.yaml")}
    for file in PATHS.executed.glob("[!.]*.ipynb"):
        cells = json.loads(file.read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not any(output["output_type"] == "error" for output in outputs)


def test_raw_tables_have_mimics_shape(study):
    header = pd.read_csv(PATHS.raw / "hosp" / "drgcodes.csv.gz", nrows=0).columns.tolist()
    assert header == ["subject_id", "hadm_id", "drg_type", "drg_code", "description", "drg_severity", "drg_mortality"]
    assert read_json(PATHS.source)["kind"] == "synthetic"


def test_flow_adds_up_to_the_stays(study):
    flow, stays = read_json(PATHS.flow), cohort.read_stays(PATHS.stays)
    cohort.check_flow(flow)
    assert flow["stays"] == len(stays) and flow["stays_fingerprint"] == fingerprint(PATHS.stays)
    assert stays["words"].min() >= 40 and stays.groupby("drg_v34").size().min() >= 2
    by_patient = stays.groupby("subject_id")["split_patients"].nunique()
    assert by_patient.max() == 1 and flow["splits"]["split_patients"]["shared_patients"] == 0


def test_the_hardness_of_the_hospital_is_measured_and_reported(study):
    found, stays = read_json(PATHS.report / "hospital.json"), cohort.read_stays(PATHS.stays)
    assert read_json(PATHS.report / "numbers.json")["hospital"] == found
    assert found["shape"]["train_stays"] == (stays["split"] == "train").sum()
    assert found["shape"]["train_labels"] == stays.loc[stays["split"] == "train", "drg_v34"].nunique()
    hard = found["hardness"]
    assert hard["attack"]["value"] < hard["ceiling"]["value"] < 1 and len(hard["curve"]) == 3
    assert "documentation ceiling" in (PATHS.report / "index.html").read_text()


@pytest.mark.parametrize("run", RUNS)
def test_each_run_predicts_every_test_stay(study, run):
    predictions = read_predictions(PATHS.runs / run, PATHS.stays)
    stays = cohort.read_stays(PATHS.stays)
    test = stays[stays["split"] == "test"]
    assert predictions.stay_ids.tolist() == test["stay_id"].tolist()
    assert predictions.labels[predictions.truth].tolist() == test["drg_v34"].tolist()
    cost = predictions.run["cost"]
    assert cost["predict_seconds"] > 0 and cost["peak_memory_gb"] > 0.1
    assert not list((PATHS.runs / run).glob("checkpoints-*"))


def test_numbers_are_those_of_the_predictions(study):
    text = (PATHS.report / "numbers.json").read_text()
    for run in RUNS:
        predictions = read_predictions(PATHS.runs / run)
        accuracy = Scores(predictions.logits, predictions.truth).evaluate()["acc_at_1"]
        assert np.isclose(accuracy, (predictions.logits.argmax(1) == predictions.truth).mean())
        assert repr(accuracy) in text


def test_the_report_stands_alone_and_says_whose_data_it_shows(study):
    pages = [PATHS.report / "index.html", *PATHS.report.glob("pages/*.html")]
    assert len(pages) == 1 + len(list(PATHS.executed.glob("[!.]*.ipynb")))
    for page in pages:
        html = page.read_text()
        assert "synthetic hospital, seed 7" in html
        assert not re.search(r"""<(?:script|img|iframe|link)[^>]+(?:src|href)=["']?https?:""", html)
    assert sum(page.stat().st_size for page in PATHS.report.rglob("*") if page.is_file()) < 8e6


def test_a_second_make_does_nothing_and_a_touched_file_reruns_what_depends_on_it(study, make):
    assert make("--question", "reports/smoke/index.html").returncode == 0
    touched = NOTEBOOKS / "params" / "smoke" / "05-train-tfidf.yaml"
    before = touched.stat().st_mtime_ns
    try:
        touched.touch()
        planned = make("--dry-run", "report").stdout
    finally:
        os.utime(touched, ns=(before, before))
    assert set(re.findall(r"params/smoke/([\w-]+)\.yaml", planned)) == {"00-index", "05-train-tfidf", "06-results"}
    assert "drgstudy.report smoke" in planned
