"""The whole study on the smoke profile: make runs every notebook, and these tests read what it wrote."""

import html
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest
from made_report import pages, run_by_hand
from PIL import Image

from drgstudy import claims, cohort, models, plots, provenance, release
from drgstudy.flow import check_flow, read_rows
from drgstudy.labels import TwoLabels
from drgstudy.predictions import read_predictions
from drgstudy.study import NOTEBOOKS, ROOT, Paths, fingerprint, places, read_json, read_params

PATHS = Paths("smoke")
RUNS = sorted(file.stem.removeprefix("05-train-") for file in (NOTEBOOKS / "params" / "smoke").glob("05-train-*.yaml"))


def test_every_notebook_ran_to_its_end(study):
    ran = {file.stem for file in PATHS.executed.glob("[!.]*.ipynb")}
    assert ran == {file.stem for file in (NOTEBOOKS / "params" / "smoke").glob("*.yaml")}
    for file in PATHS.executed.glob("[!.]*.ipynb"):
        cells = json.loads(file.read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not any(output["output_type"] == "error" for output in outputs)


def test_every_figure_says_whose_data_it_shows(study):
    said = {}
    for file in (PATHS.report / "figures").glob("[!.]*.png"):
        with Image.open(file) as image:
            said[file.stem] = image.text.get("Source")
    assert len(said) > 30 and {name for name, dataset in said.items() if not dataset} == {
        "figure-3"
    }  # which has no data


def test_raw_tables_have_mimics_shape(study):
    header = pd.read_csv(PATHS.raw / "hosp" / "drgcodes.csv.gz", nrows=0).columns.tolist()
    assert header == ["subject_id", "hadm_id", "drg_type", "drg_code", "description", "drg_severity", "drg_mortality"]
    assert read_json(PATHS.source)["kind"] == "synthetic"


def test_flow_adds_up_to_the_stays(study):
    flow, stays = read_json(PATHS.flow), read_rows(PATHS.stays, cohort.STAYS)
    check_flow(flow)
    assert flow["stays"] == len(stays) and flow["stays_fingerprint"] == fingerprint(PATHS.stays)
    assert stays["words"].min() >= 40 and stays.groupby("drg_v34").size().min() >= 2
    parts = stays[stays["split_patients"].isin(["train", "test"])]
    by_patient = parts.groupby("subject_id")["split_patients"].nunique()
    assert by_patient.max() == 1 and flow["splits"]["split_patients"]["shared_patients"] == 0


def test_the_hardness_of_the_hospital_is_measured_and_reported(study):
    found, stays = read_json(PATHS.report / "numbers.json")["hardness"], read_rows(PATHS.stays, cohort.STAYS)
    assert found["shape"]["train_stays"] == (stays["split"] == "train").sum()
    assert found["shape"]["train_labels"] == stays.loc[stays["split"] == "train", "drg_v34"].nunique()
    hard = found["hardness"]
    assert hard["attack"]["value"] < hard["documented"]["value"] < 1 and len(hard["curve"]) == 3
    assert "grouped documentation" in pages(PATHS)


@pytest.mark.parametrize("run", RUNS)
def test_each_run_predicts_every_test_stay(study, run):
    predictions = read_predictions(PATHS.runs / run, PATHS.stays)
    stays = read_rows(PATHS.stays, cohort.STAYS)
    test = stays[stays[predictions.run["split"]] == "test"]
    assert predictions.run["split"] == {
        "patients": "split_patients",
        "known": "split_known",
        "clinicians": "split_clinicians",
        "early": "split_patients",
        "mixed": "split_patients",
    }.get(run.split("-")[-1], "split")
    assert (predictions.outputs is not None) == (run == "llama-two")
    assert predictions.stay_ids.tolist() == test["stay_id"].tolist()
    assert predictions.labels[predictions.truth].tolist() == test["drg_v34"].tolist()
    cost = predictions.run["cost"]
    assert cost["predict_seconds"] > 0 and cost["peak_memory_gb"] > 0.1
    assert not list((PATHS.runs / run).glob("checkpoints-*"))


def test_two_runs_are_compared_on_the_later_stays(study):
    gained = read_json(PATHS.report / "numbers.json")["time"]["gain_of_runs"]["TF-IDF + LR"]
    truth = pd.read_csv(Path(read_json(PATHS.source)["folder"]) / "truth.csv.gz")
    learned = {}
    for run, key in (("tfidf-early", "early"), ("tfidf-mixed", "all")):
        made = read_predictions(PATHS.runs / run, PATHS.stays)
        late = np.isin(made.stay_ids % 10**8, truth.loc[truth["fiscal_year"] > 2013, "hadm_id"])
        assert 0 < late.sum() < len(late)
        assert gained[key] == pytest.approx((made.logits.argmax(axis=1) == made.truth)[late].mean())
        learned[run] = read_json(PATHS.runs / run / "run.json")["key"]
    assert {name for name in learned["tfidf-early"] if learned["tfidf-early"][name] != learned["tfidf-mixed"][name]} == {
        "as_many", "stays"
    }  # fmt: skip


def test_numbers_are_those_of_the_predictions(study):
    numbers = read_json(PATHS.report / "numbers.json")
    table1 = numbers["results"]["table_1"]
    assert list(read_params(NOTEBOOKS / "params" / "smoke" / "06-results.yaml")["runs"]) == sorted(
        table1, key=plots.in_order(table1).index
    )
    for run, rows in table1.items():
        predictions = read_predictions(PATHS.runs / run)
        accuracy = (predictions.logits.argmax(1) == predictions.truth).mean()
        assert rows["All DRGs"]["acc_at_1"]["value"] == pytest.approx(accuracy)


def test_table_3_is_read_from_the_two_outputs(study):
    two, stays = read_predictions(PATHS.runs / "llama-two"), read_rows(PATHS.stays, cohort.STAYS)
    space = TwoLabels(stays["drg_v34"], stays.loc[stays["split"] == "train", "drg_v34"])
    truth = two.labels[two.truth]
    base, severity = space.encode(truth).T
    rows = read_json(PATHS.report / "numbers.json")["two_labels"]["table_3"]
    assert rows["Base DRG"]["acc_at_1"]["value"] == pytest.approx((two.outputs[:, :340].argmax(1) == base).mean())
    assert rows["CC/MCC"]["acc_at_1"]["value"] == pytest.approx((two.outputs[:, 340:].argmax(1) == severity).mean())
    for name, rule in (("DRG by rule (a)", "seen"), ("DRG by rule (b)", "mapped")):
        assert rows[name]["acc_at_1"]["value"] == pytest.approx((space.infer(two.outputs, rule) == truth).mean())


def test_every_error_is_sorted_once_and_every_table_and_figure_is_there(study):
    wrong = read_json(PATHS.report / "numbers.json")["errors"]
    predictions = read_predictions(PATHS.runs / "llama")
    assert wrong["wrong"] == (predictions.logits.argmax(1) != predictions.truth).sum()
    assert sum(row["errors"] for row in wrong["classes"].values()) == wrong["wrong"]
    assert sum(row["errors"] for row in wrong["categories"]["All errors (this run)"].values()) == wrong["wrong"]
    tables = {file.stem for file in PATHS.report.glob("tables/*.csv")}
    assert {"table-1", "table-2", "table-3", "table-4", "table-s2", "table-s3", "table-s4", "cost"} <= tables
    figures = {file.stem for file in PATHS.report.glob("figures/*.png")}
    assert {
        "figure-1",
        "figure-2a",
        "figure-2b",
        "figure-3",
        "figure-s1",
        "reliability",
        "coverage",
        "words",
    } <= figures
    assert set(re.findall(r"figures/([\w-]+)\.svg", pages(PATHS))) == figures
    assert "Still to come" not in pages(PATHS)


LEFTOVERS = {
    "a name of the code": r"[a-z]_[a-z]|^(drg|mdc|run|model|metric|title|type|class|name|share)$",
    "a title that shouts": r"\b(?!MIMIC)[A-Z]{5,}",
    "no number": r"\bnan\b|\bNone\b",
    "a per cent sign without a space": r"\d%",
    "a hyphen for a minus sign": r"(^|[ (])-\d",
    "a negative zero": r"−0(\.0+)?\b(?!\.)",
    "too many digits": r"\d\.\d{5}",
    "the paper's LLaMA": r"DRG-LLaMA( \(|,|$)",
}


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_no_printed_table_has_leftovers(study, leftover):
    """Notes of Table 4 are quoted as they are, and so is what the papers claim of their own model."""
    for file in PATHS.report.glob("tables/printed/*.csv"):
        shown = pd.read_csv(file, dtype=str, keep_default_na=False).drop(columns="dataset")
        shown = shown.drop(columns=["Narrative", "5-grams and their attention", "Claim"], errors="ignore")
        for text in [*shown.columns, *shown.to_numpy().ravel()]:
            assert not re.search(LEFTOVERS[leftover], text), (file.name, text)


def test_each_printed_table_has_its_numbers_in_columns(study):
    printed, held = ({file.stem for file in PATHS.tables.glob(f"{where}*.csv")} for where in ("printed/", ""))
    assert printed == held and len(held) > 60 and "by-drg" in held
    for name in sorted(held):
        numbers = pd.read_csv(PATHS.tables / f"{name}.csv")
        assert numbers.empty or len(numbers.select_dtypes("number").columns), name
        assert not numbers.columns.duplicated().any() and numbers.columns.str.fullmatch(r"[a-z0-9_ ]+").all(), name
    long = pd.read_csv(PATHS.tables / "table-1.csv").set_index(["run", "drg_set", "metric"])["value"]
    shown = pd.read_csv(PATHS.tables / "printed" / "table-1.csv").query("`DRG set` == 'All DRGs'")["top-1 accuracy"]
    assert [f"{value:.3f}" for value in long.xs(("All DRGs", "acc_at_1"), level=[1, 2])] == shown.str[:5].tolist()


def test_known_and_new_patients_were_compared_on_the_same_test_stays(study):
    rows = read_json(PATHS.report / "numbers.json")["splits"]["split_effect"]["tfidf-known"]["acc_at_1"]
    tested = [read_predictions(PATHS.runs / run) for run in ("tfidf-known", "tfidf-patients")]
    np.testing.assert_array_equal(tested[0].stay_ids, tested[1].stay_ids)
    for key, predictions in zip(("together", "apart"), tested, strict=True):
        assert rows[key] == pytest.approx((predictions.logits.argmax(1) == predictions.truth).mean())


@pytest.mark.parametrize(
    ("paper", "topic", "table"), [("DRG-LLaMA", "claims", "claims"), ("early DRG", "early_claims", "early-claims")]
)
def test_every_claim_has_a_verdict(study, paper, topic, table):
    told, listed = read_json(PATHS.report / "numbers.json")[topic], claims.read().query("paper == @paper")
    shown = pd.read_csv(PATHS.report / "tables" / "printed" / f"{table}.csv", keep_default_na=False)
    assert len(shown) == len(listed) and set(shown["Verdict"]) <= set(claims.VERDICTS)
    assert sorted(told["claims"]) == sorted(set(listed.index) - set(claims.TIMES))
    counts = pd.Series([claim["verdict"] for claim in told["claims"].values()]).value_counts()
    assert told["sentences"][0].startswith(f"Of {counts.sum()} claims") and all(
        f"{n} {verdict}" in told["sentences"][0] for verdict, n in counts.items()
    )
    times = read_json(PATHS.report / "costs.json").get(topic, {"claims": {}})["claims"]
    assert sorted(times) == sorted(set(listed.index) & set(claims.TIMES))
    assert all(sentence in pages(PATHS) for sentence in told["sentences"]) and f"figures/{table}.svg" in pages(PATHS)


def test_a_trained_run_comes_back_and_names_real_notes(study, tmp_path):
    """Over the 56 transcribed notes of MTSamples: four have no hospital course."""
    samples = ROOT.parent / "shared" / "open-data" / "mtsamples_hospital_course_half.csv"
    if not samples.is_file():
        pytest.skip("the MTSamples notes are not on this machine")
    predictions = read_predictions(PATHS.runs / "tfidf")
    model, labels = models.load(PATHS.runs / "tfidf")
    stays = read_rows(PATHS.stays, cohort.STAYS).set_index("stay_id").loc[predictions.stay_ids, "text"]
    np.testing.assert_allclose(model.predict(stays.tolist()), predictions.logits, rtol=2**-11, atol=1e-6)
    given = {"profile": "smoke", "run": "tfidf", "notes_csv": str(samples)}
    done = papermill.execute_notebook(
        NOTEBOOKS / "13-try-it.ipynb", tmp_path / "done.ipynb", given, cwd=NOTEBOOKS, progress_bar=False
    )
    table = next(o.data["text/html"] for cell in done.cells[-4:] for o in cell.get("outputs", []) if "data" in o)
    assert table.count("<tr>") == 1 + 52 and set(re.findall(r"% (\d{3}) ", table)) <= set(labels)


def test_of_credentialed_data_no_note_text_leaves_the_ignored_folder(study, tmp_path):
    """The smoke stays, said to be credentialed, through the notebooks that show or quote notes."""
    paths = Paths("credentialed")
    for left in (paths.data, paths.report):  # by a test that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        shutil.copytree(PATHS.runs / "tfidf", paths.runs / "tfidf")
        for file in (PATHS.stays, provenance.record_of(PATHS.stays)):
            shutil.copy(file, paths.data)
        flow = read_json(PATHS.flow)
        flow["source"] |= {"kind": "credentialed", "name": "MIMIC-IV v2.2"}
        provenance.write_json(paths.flow, flow, "03-cohort", [paths.stays])
        for name, given in {
            "09-errors": {"run": "tfidf"},
            "12-why": {"runs": ["tfidf"]},
            "13-try-it": {"run": "tfidf"},
        }.items():
            papermill.execute_notebook(
                NOTEBOOKS / f"{name}.ipynb", tmp_path / f"{name}.ipynb", given | {"profile": paths.profile},
                cwd=NOTEBOOKS, progress_bar=False,
            )  # fmt: skip
        cells = [cell for file in tmp_path.glob("*.ipynb") for cell in json.loads(file.read_text())["cells"]]
        written = [
            file.read_text()
            for file in paths.report.rglob("*")
            if file.is_file() and file.suffix not in (".png", ".pdf")
        ]
        shown = html.unescape(" ".join([*written, *(str(cell.get("outputs", "")) for cell in cells)]))
        words = read_rows(paths.stays, cohort.STAYS)["text"].str.split()
        for text in words:
            assert not any(" ".join(text[i : i + 6]) in shown for i in range(0, len(text) - 6, 3))
        sheet = pd.read_csv(paths.data / "review" / "errors.csv")
        assert sheet["text"].str.len().min() > 40 and sheet["category"].isna().all()
        assert len(list((paths.data / "review").glob("*.html"))) == 2
    finally:
        shutil.rmtree(paths.data, ignore_errors=True)
        shutil.rmtree(paths.report, ignore_errors=True)


def test_the_report_stands_alone_and_says_whose_data_it_shows(study):
    pages = [PATHS.report / "index.html", *PATHS.report.glob("pages/*.html")]
    executed = {file.stem for file in PATHS.executed.glob("[!.]*.ipynb")}
    assert {page.stem for page in pages} == executed | {"index", "trainings"}
    for page in pages:
        html = page.read_text()
        assert "synthetic hospital, seed 7" in html
        assert not re.search(r"""<(?:script|img|iframe|link)[^>]+(?:src|href)=["']?https?:""", html)
    assert sum(page.stat().st_size for page in PATHS.report.rglob("*") if page.is_file()) < 20e6


def test_released_predictions_give_the_numbers_that_the_trained_runs_gave(study, tmp_path, monkeypatch):
    """Where the models are not: two notebooks that had asked them, and one that reads predictions alone."""
    for root in ("trained", "elsewhere"):
        (tmp_path / root / "data").mkdir(parents=True)
    (tmp_path / "trained" / "data" / "smoke").symlink_to(PATHS.of_profile)
    monkeypatch.setattr(places, "ROOT", tmp_path / "trained")
    release.publish("smoke")
    shutil.copytree(
        ROOT / "data" / "smoke", tmp_path / "elsewhere" / "data" / "smoke",
        ignore=shutil.ignore_patterns("runs", "explained", "executed", "running"),
    )  # fmt: skip
    shutil.move(tmp_path / "trained" / "reports", tmp_path / "elsewhere")
    monkeypatch.setattr(places, "ROOT", tmp_path / "elsewhere")
    release.place("smoke")
    assert not [file for file in tmp_path.glob("elsewhere/data/**/runs/**/*.safetensors")]
    for step in ("07-two-labels", "12-why", "27-attention"):
        given = read_params(NOTEBOOKS / "params" / "smoke" / f"{step}.yaml")
        run_by_hand(step, given.pop("profile"), monkeypatch, **given)
        numbers = read_json(tmp_path / "elsewhere" / "reports" / "smoke" / "numbers" / f"{step}.json")["numbers"]
        assert numbers == read_json(PATHS.report / "numbers" / f"{step}.json")["numbers"]


def test_several_trainings_and_parts_of_the_stays_are_compared(study):
    found = read_json(PATHS.report / "numbers.json")["seeds"]
    assert found["trainings"].keys() == {"llama", "caml", "caml-43", "tfidf", "caml-half", "tfidf-half"}
    shares = {run: of["acc_at_1"]["share"] for run, of in found["trainings"].items()}
    assert {run for run, share in shares.items() if share == 0.5} == {"caml-half", "tfidf-half"}
    assert found["trainings"]["caml"] != found["trainings"]["caml-43"]
    assert (PATHS.report / "figures" / "by-share.png").is_file()
    assert "means of 1 and 2 models" in found["sentences"][0]


def test_a_second_make_does_nothing_and_a_touched_file_reruns_what_depends_on_it(study, make):
    assert make("--question", "reports/smoke/index.html").returncode == 0
    touched = NOTEBOOKS / "params" / "smoke" / "05-train-tfidf.yaml"
    before = touched.stat().st_mtime_ns
    try:
        touched.touch()
        planned = make("--dry-run", "report").stdout
    finally:
        os.utime(touched, ns=(before, before))
    again = {
        "00-index",
        "05-train-tfidf",
        "05-train-tfidf-clinicians",
        "05-train-tfidf-early",
        "05-train-tfidf-known",
        "05-train-tfidf-mixed",
        "05-train-tfidf-patients",
    }  # these are like the first
    again |= {"05-train-tfidf-half", "06-results", "08-size-and-length", "10-splits", "11-trust", "12-why", "15-seeds"}
    again |= {"16-time", "18-coder"}
    assert set(re.findall(r"study notebooks/params/smoke/([\w-]+)\.yaml", planned)) == again
    assert "drgstudy.report smoke" in planned
