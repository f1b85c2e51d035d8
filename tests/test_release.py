"""Released predictions: put into the report, taken from there where no run lies, and never mistaken for a training."""

import os
import shutil

import numpy as np
import pytest

from drgstudy import attribution, cohort, models, plan, predictions, provenance, release, runs, study
from drgstudy.flow import read_rows, write_rows
from drgstudy.predictions import Predictions, read_predictions, write_predictions
from drgstudy.study import NOTEBOOKS, StudyError, fingerprint, graph, outlook, read_json, write_json

T, U = (
    "profile: tiny\nrun: t\nmodel: tfidf\nkept_back: 0.1\nseed: 1\n",
    "profile: tiny\nrun: u\nlike: 05-train-t\nseed: 2\n",
)


@pytest.fixture
def tiny(paths, tmp_path, monkeypatch):
    """The paths of a copy of the tiny study whose texts name the DRG, and which has two runs to be trained, t and u."""
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path / "notebooks")
    folder = tmp_path / "notebooks" / "params" / "tiny"
    folder.mkdir(parents=True)
    for file in ("05-train.ipynb", "06-results.ipynb", "12-why.ipynb", "13-try-it.ipynb", "studies.yaml"):
        shutil.copy(NOTEBOOKS / file, tmp_path / "notebooks")
    for run, text in (("t", T), ("u", U)):
        (folder / f"05-train-{run}.yaml").write_text(text)
    (folder / "06-results.yaml").write_text("profile: tiny\nrun: t\nruns: [t, u]\n")
    (folder / "13-try-it.yaml").write_text("profile: tiny\nrun: t\n")
    shutil.rmtree(paths.runs)
    stays = read_rows(paths.stays, cohort.STAYS)
    letters = stays["drg_v34"].map(lambda code: "".join("abcdefghij"[int(digit)] for digit in code))
    stays["text"] = "admitted with disease" + letters + " and treated well " + letters
    write_rows(stays, paths.stays, cohort.STAYS, by="03-cohort", inputs=[paths.source, paths.drgs])
    flow = read_json(paths.flow) | {"stays_fingerprint": fingerprint(paths.stays)}
    provenance.write_json(paths.flow, flow, "03-cohort", [paths.stays])
    return paths


def trained(run: str) -> runs.Training:
    (training,) = plan.of_params(study.places.NOTEBOOKS / "params" / "tiny" / f"05-train-{run}.yaml")
    runs.train_once(training)
    return training


def test_what_is_released_is_taken_where_no_run_lies_and_nothing_else(tiny):
    first, second = trained("t"), trained("u")
    made = read_predictions(first.folder, tiny.stays)
    release.publish("tiny")
    assert {file.relative_to(tiny.released).as_posix() for file in tiny.released.rglob("*.*")} == {
        f"runs/{run}/{file}" for run in "tu" for file in ("predictions.npz", "run.json")
    }
    shutil.rmtree(first.folder)
    before = (second.folder / "run.json").read_bytes()
    release.place("tiny")
    assert (second.folder / "run.json").read_bytes() == before  # trained here, and so left alone
    again = read_predictions(first.folder, tiny.stays)
    assert np.array_equal(again.logits, made.logits) and again.run == made.run | {"released": True}
    assert {file.name for file in first.folder.iterdir()} == {"predictions.npz", "run.json"}


def test_a_released_run_is_no_training_unless_it_is_kept(tiny, monkeypatch):
    training = trained("t")
    trained("u")
    release.publish("tiny")
    shutil.rmtree(training.folder)
    release.place("tiny")
    assert runs.standing(training) == (None, "only its released predictions lie here")
    released = (tiny.released / "runs" / "t" / "run.json").read_bytes()
    release.publish("tiny")  # neither removed, nor replaced by what was placed
    assert (tiny.released / "runs" / "t" / "run.json").read_bytes() == released
    plan.keep("tiny", "t")
    with monkeypatch.context() as there:
        there.setattr(models, "build", None)  # nothing is trained
        assert "**released** predictions are used" in runs.history([runs.train_once(training)])
    with pytest.raises(StudyError, match="has left no weights"):
        models.load(tiny.runs / "t")


def test_it_is_trained_where_the_report_asks_for_it(tiny):
    training = trained("t")
    trained("u")
    release.publish("tiny")
    shutil.rmtree(training.folder)
    release.place("tiny")
    record = runs.train_once(training)
    assert record["trained_because"] == "only its released predictions lie here" and "released" not in record
    assert (training.folder / "model.npz").is_file()


def test_a_run_that_is_missing_or_was_released_for_something_else_is_named(tiny):
    trained("t")
    release.publish("tiny")
    with pytest.raises(StudyError, match=r"neither trained nor released: runs/u; make report PROFILE=tiny trains them"):
        release.place("tiny")
    trained("u")
    release.publish("tiny")
    shutil.rmtree(tiny.runs)
    (study.places.NOTEBOOKS / "params" / "tiny" / "05-train-t.yaml").write_text(T.replace("seed: 1", "seed: 3"))
    with pytest.raises(
        StudyError, match=r"run t was released for something else: parameter seed was 1 and is 3; train it"
    ):
        release.place("tiny")


def test_a_damaged_release_is_refused(tiny):
    trained("t"), trained("u")
    release.publish("tiny")
    shutil.rmtree(tiny.runs)
    with (tiny.released / "runs" / "t" / "predictions.npz").open("ab") as file:
        file.write(b"more")
    with pytest.raises(StudyError, match=r"not the file that t/run.json describes"):
        release.place("tiny")


def test_of_credentialed_data_nothing_is_released(tiny):
    trained("t")
    source = {"kind": "credentialed", "name": "MIMIC-IV"}
    provenance.write_json(tiny.source, source, "01-hospital", [], source)
    with pytest.raises(StudyError, match="the data of profile tiny are credentialed"):
        release.publish("tiny")
    assert not tiny.released.exists()


def test_a_release_that_is_too_large_for_every_clone_is_refused(tiny, monkeypatch):
    trained("t"), trained("u")
    monkeypatch.setattr(release, "MOST", 1000)
    with pytest.raises(StudyError, match="at most 0 MB are released"):
        release.publish("tiny")


def test_runs_that_the_profile_no_longer_has_leave_the_release(tiny):
    trained("t"), trained("u")
    release.publish("tiny")
    for file in ("05-train-u.yaml", "06-results.yaml"):
        (study.places.NOTEBOOKS / "params" / "tiny" / file).unlink()
    release.publish("tiny")
    assert {file.parent.name for file in tiny.released.rglob("*.*")} == {"t"}


def test_what_moved_a_prediction_is_remembered_for_who_has_no_model(tiny):
    training = trained("t")
    trained("u")
    made = read_predictions(training.folder, tiny.stays)
    texts = read_rows(tiny.stays, cohort.STAYS).set_index("stay_id")["text"]
    first = int(np.argmax(made.truth != made.truth[0]))

    def asked(made, at):
        return attribution.reasons(tiny, made, texts[made.stay_ids[at]], at, int(made.truth[first]))

    said, falls = asked(made, 0)
    assert list(said) == [made.labels[made.truth[first]], made.labels[made.truth[0]]] and falls.keys() == {
        "strongest",
        "random",
    }
    release.publish("tiny")
    shutil.rmtree(tiny.runs), shutil.rmtree(tiny.explained)
    release.place("tiny")
    remade = read_predictions(training.folder, tiny.stays)
    again, fall = asked(remade, 0)
    assert fall == falls and again.keys() == said.keys()
    for drg, reason in said.items():
        assert again[drg].unit == reason.unit
        assert [tuple(piece) for piece in again[drg].pieces] == [tuple(piece) for piece in reason.pieces]
    with pytest.raises(StudyError, match=rf"do not say what the model makes of stay {made.stay_ids[1]}; train it"):
        asked(remade, 1)


def test_what_another_model_said_is_not_taken_for_this_ones(tiny):
    training = trained("t")
    made = read_predictions(training.folder, tiny.stays)
    assert attribution.remembered(tiny, training.folder, made, "q", lambda model: 1) == 1
    file = tiny.explained / "t.json"
    write_json(file, read_json(file) | {"predictions": "another"})
    made.run["released"] = True
    with pytest.raises(StudyError, match="do not say what the model makes of q"):
        attribution.remembered(tiny, training.folder, made, "q", lambda model: 1)


# --- figures without training -----------------------------------------------------------------------------------------
def test_the_graph_of_figures_has_no_training_and_waits_for_the_runs_that_lie_there(tiny):
    trained("t")
    rules = graph.rules("tiny", "figures").splitlines()
    targets = [line.partition(":")[0] for line in rules if line.startswith("data/")]
    assert targets == ["data/tiny/executed/06-results.ipynb"]
    lists = dict(line.split(" :=", 1) for line in rules if " :=" in line)
    assert lists["steps"].split() == lists["steps_of_report"].split() == targets and not lists["trainings"].strip()
    (rule,) = [line for line in rules if line.startswith("data/")]
    assert "data/tiny/runs/t/run.json" in rule and "05-train" not in rule
    whole = graph.rules("tiny")
    assert "data/tiny/executed/05-train-t.ipynb:" in whole and "runs/t/run.json" not in whole


def test_before_its_first_step_make_says_how_much_there_is_to_do(tiny, tmp_path, capsys, monkeypatch):
    write_json(tiny.report / "costs.json", {"seconds": {"05-train-t": 200.0, "06-results": 30.0}})
    write_json(tiny.seconds / "06-results.json", 10.0)
    file = tmp_path / "steps.json"
    outlook.announce("tiny", "report", str(file))
    assert capsys.readouterr().err == (
        "tiny: 4 of 4 steps are due, which took 4 minutes last time (2 of them have not run before)\n"
    )
    assert read_json(file) == {"05-train-t": 200.0, "05-train-u": None, "06-results": 10.0, "13-try-it": None}
    monkeypatch.setenv("MAKE_OUTLOOK", str(file))
    monkeypatch.setenv("MAKE_BEGAN", "1000")
    outlook.taken_as_they_are(["05-train-u", "01-hospital"])
    assert outlook.said("06-results", tiny) == "(step 1 of 4) …"  # 13-try-it has never run
    write_json(file, read_json(file) | {"13-try-it": 1.0})
    assert outlook.said("06-results", tiny) == "(step 1 of 4, about 4 minutes left) …"
    for step, when in (("05-train-t", 1001), ("05-train-u", 999)):
        tiny.executed.mkdir(exist_ok=True)
        (tiny.executed / f"{step}.ipynb").touch()
        os.utime(tiny.executed / f"{step}.ipynb", (when, when))
    assert outlook.said("06-results", tiny) == "(step 2 of 4, about 11 s left) …"
    assert outlook.said("01-hospital", tiny) == "…"


def test_a_step_is_due_if_what_it_reads_is_newer_or_will_be(tiny):
    among = graph.steps("tiny")
    tiny.executed.mkdir(exist_ok=True)
    for name in among:
        (tiny.executed / f"{name}.ipynb").touch()
        os.utime(tiny.executed / f"{name}.ipynb", (2e9, 2e9))
    assert outlook.due("tiny", among, among) == []
    os.utime(study.places.NOTEBOOKS / "params" / "tiny" / "05-train-u.yaml", (3e9, 3e9))
    assert outlook.due("tiny", among, among) == ["05-train-u", "06-results"]
    assert outlook.due("tiny", among, among, without_training=True) == []


def test_a_training_that_was_taken_as_it_is_keeps_its_time(tiny):
    for step, expected in (("05-train-t", 90.0), ("06-results", 2.0)):
        outlook.note(step, tiny, 90.0)
        outlook.note(step, tiny, 2.0)
        assert outlook.times(tiny)[step] == expected


def test_between_the_hours_that_are_scored_the_highest_logits_are_released(tmp_path):
    """Who is named first, second … twentieth stays; what would need the others is refused."""
    rng = np.random.default_rng(3)
    logits = rng.permuted(np.tile(np.arange(30, dtype="float32"), (40, 1)), axis=1)
    labels, truth = np.array([f"{i:03d}" for i in range(30)]), rng.integers(0, 30, 40)
    about = {"run": "r", "dataset": {"fingerprint": "x"}, "system": "ms", "reads": "notes", "fold": 1, "split": "fold"}
    for hour in ("hour+06", "hour+24"):
        folder = tmp_path / "runs" / "r" / "fold-1" / hour
        write_predictions(folder, Predictions(np.arange(40), truth, labels, logits, about))
        write_json(folder / "run.json", read_json(folder / "run.json") | {"versions": {"python": "3"}})
        release._release(folder, tmp_path / "released" / hour, "predictions.npz")
    whole, cut = (read_predictions(tmp_path / "released" / hour) for hour in ("hour+24", "hour+06"))
    assert np.array_equal(whole.logits, logits) and "top" not in whole.run
    order, kept = (-logits).argsort(axis=1)[:, :20], (-cut.logits).argsort(axis=1)[:, :20]
    assert np.array_equal(order, kept) and cut.run["top"] == 20 and cut.run["versions"] == {"python": "3"}
    assert ((cut.logits == np.finfo(np.float16).min).sum(axis=1) == 10).all()


def test_what_was_cut_is_not_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    paths = study.Paths("tiny")
    monkeypatch.setattr(predictions, "_made_from", lambda paths, folder: ())
    folder = paths.runs / "r" / "fold-1" / "hour+06"
    about = {"run": "r", "dataset": {"fingerprint": "x"}, "top": 20}
    write_predictions(
        folder, Predictions(np.arange(2), np.zeros(2, int), np.array(["001", "002"]), np.zeros((2, 2)), about)
    )
    assert len(predictions.read_folds(paths, "r", 6, whole=False)) == 1
    with pytest.raises(
        StudyError, match="run 'r' at hour 6 only the 20 highest logits of each stay are released; train it"
    ):
        predictions.read_folds(paths, "r", 6)
