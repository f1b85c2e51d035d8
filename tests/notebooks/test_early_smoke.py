"""The early-DRG study on the smoke profile, and what of it needs no notes on the real open MIMIC-III demo."""

import html
import json
import os
import re
import shutil

import numpy as np
import papermill
import pytest
from made_report import pages

from drgstudy import casemix, icu_cohort, inputs, measurements, predictions, provenance, results
from drgstudy.flow import read_rows
from drgstudy.study import NOTEBOOKS, ROOT, Paths, fingerprint, read_json, read_params, write_json

PATHS = Paths("smoke", "early")
PARAMS = sorted((NOTEBOOKS / "params" / "smoke").glob("23-early-train-*.yaml"))
DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo"


def run(name: str, folder, **given) -> list[dict]:
    """The cells of a notebook after it ran."""
    made = papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb", given, cwd=NOTEBOOKS, progress_bar=False
    )
    return made.cells


@pytest.mark.parametrize("params", PARAMS, ids=lambda file: file.stem.removeprefix("23-early-train-"))
def test_each_run_has_its_models_and_its_hours(study, params):
    given = read_params(params)
    stays = read_rows(PATHS.cohort(given["system"]), icu_cohort.STAYS)
    held_out = stays[stays[given.get("split", "fold")] == 0]
    if given.get("target") == "weight":
        made = predictions.read_weights(PATHS, given["run"])
        assert len(made) == len(given["folds"])
        assert all(weights["true"].to_numpy() == pytest.approx(held_out["weight"].to_numpy()) for weights in made)
        return
    for hours in given.get("hours", [48]):
        models = predictions.read_folds(PATHS, given["run"], hours)
        assert [made.run["fold"] for made in models] == given["folds"]
        for made in models:
            assert made.stay_ids.tolist() == held_out["stay_id"].tolist() and made.run["hours"] == hours
            assert made.labels[made.truth].tolist() == held_out["drg"].tolist()
    assert not list((PATHS.runs / given["run"]).glob("fold-*/checkpoints-*"))


def test_notes_grow_with_the_hours(study):
    stays = read_rows(PATHS.cohort("ms"), icu_cohort.STAYS)
    notes = read_rows(PATHS.notes, icu_cohort.NOTES)
    words = [sum(len(text.split()) for text in inputs.texts(stays, notes, hours)) for hours in (-24, 0, 24, 48)]
    assert words == sorted(words) and words[0] < words[-1] / 5
    assert not notes["text"].str.contains(r"\[\*\*").any() and not notes["category"].str.contains("Discharge").any()


def test_table_2_is_of_the_predictions(study):
    table = read_json(PATHS.report / "numbers.json")["early_results"]["table_2"]["caml-ms"]["hour 24"]["All DRGs"]
    accuracy = [(p.logits.argmax(1) == p.truth).mean() for p in predictions.read_folds(PATHS, "caml-ms", 24)]
    assert table["acc_at_1"]["value"] == pytest.approx(np.mean(accuracy))
    assert table["acc_at_1"]["sd"] == pytest.approx(np.std(accuracy, ddof=1))


def test_the_case_mix_is_of_each_patients_first_stay(study):
    numbers = read_json(PATHS.report / "numbers.json")["case_mix"]
    stays = read_rows(PATHS.cohort("apr"), icu_cohort.STAYS)
    first = stays[(stays["fold"] == 0) & stays["first_visit"]]
    assert numbers["stays"]["apr"] == len(first) < (stays["fold"] == 0).sum()
    errors = casemix.cmi_error(first["weight"].to_numpy(), results.weights_by_drg(PATHS, "caml-apr", first["stay_id"]))
    assert numbers["errors"]["apr"]["48"]["mean"] == pytest.approx(errors.mean())


def test_every_table_and_figure_of_the_paper_is_there(study):
    tables = {file.stem for file in PATHS.report.glob("tables/early-*.csv")}
    of_paper = {"early-table-1-ms", "early-table-1-apr", "early-table-2", "early-table-3", "early-cmi-errors"}
    assert of_paper | {f"early-supplement-{n}" for n in (1, 3, 4)} <= tables
    figures = {file.stem for file in PATHS.report.glob("figures/early-*.png")}
    assert {"early-flow", "early-figure-1", "early-figure-2", "early-figure-3"} <= figures
    for part in ("case_mix", "regression"):
        for sentences in read_json(PATHS.report / "numbers.json")[part]["sentences"].values():
            assert all(sentence in pages(PATHS) for sentence in sentences)
    assert "MIMIC-III (published)" in pages(PATHS)


def test_of_credentialed_data_no_note_text_is_shown(study, tmp_path):
    """The smoke stays, said to be credentialed, through the notebooks that show notes or single stays."""
    paths = Paths("credentialed", "early")
    for left in (paths.data, paths.report):  # by a test that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        shutil.copytree(PATHS.data, paths.data, ignore=shutil.ignore_patterns("frozen"))
        about = {"kind": "credentialed", "name": "MIMIC-III v1.4"}
        for file in (paths.source, paths.flow):
            content = read_json(file)
            write_json(file, content | (about if "kind" in content else {"source": content["source"] | about}))
        for file in (paths.source, paths.cohort("ms"), paths.cohort("apr"), paths.notes, paths.flow):
            record = provenance.record_of(file)
            write_json(record, read_json(record) | {"inputs": {}, "fingerprint": fingerprint(file)})
        given = {"22-measurements": {}, "27-attention": {"run": "caml-ms"}}
        cells = [cell for name, more in given.items() for cell in run(name, tmp_path, profile=paths.profile, **more)]
        written = [
            file.read_text()
            for file in paths.report.rglob("*")
            if file.is_file() and file.suffix not in (".png", ".pdf")
        ]
        shown = html.unescape(" ".join([*written, *(str(cell.get("outputs", "")) for cell in cells)]))
        assert "note text: not shown" in shown and "the source is credentialed" in shown
        for text in read_rows(paths.notes, icu_cohort.NOTES)["text"].str.split():
            assert not any(" ".join(text[i : i + 5]) in shown for i in range(0, len(text) - 5, 3))
    finally:
        shutil.rmtree(Paths("credentialed").data, ignore_errors=True)
        shutil.rmtree(paths.report, ignore_errors=True)


def test_the_real_mimic_iii_demo_runs_through_every_step_that_needs_no_notes(tmp_path):
    """Its 100 patients have no notes: tables to cohorts, cohorts to measurements, measurements to an LSTM's predictions."""
    if not DEMO.is_dir():
        pytest.skip("the open MIMIC-III demo is not on this machine")
    paths = Paths("open-demo", "early")
    try:
        run("20-icu", tmp_path, profile=paths.profile, mimic3=str(DEMO))
        source = read_json(paths.source)
        assert source["kind"] == "open demo" and source["rows"]["patients"] == 100
        run("21-early-cohort", tmp_path, profile=paths.profile, needs_note=False)
        flow = read_json(paths.flow)
        assert [step["kept"] for step in flow["ms"]] == [129, 72, 72, 67, 63, 63, 63]
        assert [step["kept"] for step in flow["apr"]] == [129, 96, 95, 89, 81, 80, 80]
        run("22-measurements", tmp_path, profile=paths.profile)
        stay_ids, groups, values = measurements.read_measurements(paths.measurements)
        assert values.shape == (81, 48, 104) == (len(stay_ids), 48, len(groups))
        numbers = read_json(paths.report / "numbers" / "22-measurements.json")["numbers"]
        assert numbers["rows"]["read"] == 845_749 and np.isfinite(values).sum() == 29_277
        settings = {"epochs": 2.0, "hidden": 32, "patience": 1}
        about = {"run": "lstm-ms", "model": "lstm", "reads": "measurements", "folds": [1], "settings": settings}
        run("23-early-train", tmp_path, profile=paths.profile, **about)
        (made,) = predictions.read_folds(paths, "lstm-ms")
        stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
        assert made.stay_ids.tolist() == stays.loc[stays["fold"] == 0, "stay_id"].tolist()
        assert made.logits.shape == (len(made.truth), stays["drg"].nunique())
    finally:
        shutil.rmtree(Paths("open-demo").data, ignore_errors=True)
        shutil.rmtree(paths.report, ignore_errors=True)


def test_notebooks_of_the_smoke_study_show_no_error(study):
    for file in PATHS.executed.glob("[23]?-*.ipynb"):
        cells = json.loads(file.read_text())["cells"]
        assert not any(o["output_type"] == "error" for cell in cells for o in cell.get("outputs", []))


def test_a_touched_run_reruns_what_reads_it_and_nothing_else(study, make):
    wanted = [
        f"data/smoke/executed/{file.stem}.ipynb" for file in (NOTEBOOKS / "params" / "smoke").glob("2[1-9]-*.yaml")
    ]
    wanted = [target for target in wanted if "train" not in target]
    assert make("--question", *wanted).returncode == 0
    touched = NOTEBOOKS / "params" / "smoke" / "23-early-train-caml-apr.yaml"
    before = touched.stat().st_mtime_ns
    try:
        touched.touch()
        planned = make("--dry-run", "early").stdout
    finally:
        os.utime(touched, ns=(before, before))
    again = {"23-early-train-caml-apr", "24-early-results", "25-case-mix", "26-regression", "29-early-claims"}
    assert set(re.findall(r"study notebooks/params/smoke/([\w-]+)\.yaml", planned)) == again
