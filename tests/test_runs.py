"""A run of five folds on made-up stays: what is trained on what, what a second start does again, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from drgstudy import cohort, drgs, early, early_runs, measurements, study
from drgstudy.labels import LabelSpace
from drgstudy.study import EarlyPaths, StudyError, fingerprint

CODES = ["064", "291", "871"]
WORDS = {"064": "stroke weakness", "291": "edema dyspnea", "871": "fever hypotension"}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    return made_up()


def made_up():
    """Ninety stays of three DRGs whose notes name them, the second note after the first day."""
    paths = EarlyPaths("tiny")
    drg = np.array(CODES * 30)
    stays = pd.DataFrame({"stay_id": np.arange(90) + 100, "subject_id": np.arange(90), "drg": drg})
    facts = drgs.fiscal_2013("ms").loc[drg]
    stays = stays.assign(weight=facts["relative_weight"].to_numpy(), mdc=facts["mdc"].to_numpy(), diagnosis="UNWELL")
    stays = stays.assign(icu_in=pd.Timestamp("2150-01-01").as_unit("ms"), first_visit=True)
    stays = stays.assign(fold=np.arange(90) // 3 % 6, fold_stays=np.arange(90) // 3 % 6)
    cohort.write_stays(stays, paths.cohort("ms"), early.STAYS)
    late = [(stay_id, 30.0, "Nursing", WORDS[code]) for stay_id, code in zip(stays["stay_id"], drg, strict=True)]
    notes = pd.DataFrame([(stay_id, 1.0, "Nursing", "patient here") for stay_id in stays["stay_id"]] + late)
    notes.columns = list(early.NOTES.columns)
    cohort.write_stays(notes.sort_values(["stay_id", "hours"], ignore_index=True), paths.notes, early.NOTES)
    return paths


def run(paths, fold=1, hours=(24, 48), labels=True, **about):
    stays = cohort.read_stays(paths.cohort("ms"), early.STAYS)
    known = early_runs.known_at(paths, stays, "notes", 48)
    space = early_runs.target_space("ms", stays["drg"], "cohort") if labels else None
    about = {
        "run": "r",
        "model": "tfidf",
        "settings": {"ngrams": 1},
        "system": "ms",
        "reads": "notes",
        "split": "fold",
        "seed": 1,
    } | about
    about |= {
        "fold": fold,
        "dataset": {"fingerprint": fingerprint(paths.cohort("ms")), "inputs": fingerprint(paths.notes)},
    }
    return early_runs.run_fold(paths.runs / "r" / f"fold-{fold}", about, stays, known, space, list(hours))


def test_the_hold_out_stays_are_asked_at_every_hour(paths):
    for fold in (1, 2):
        run(paths, fold)
    early_day, later = (early_runs.read_run(paths, "r", hours) for hours in (24, 48))
    assert [made.run["fold"] for made in later] == [1, 2] and later[0].run["hours"] == 48
    stays = cohort.read_stays(paths.cohort("ms"), early.STAYS)
    assert later[0].stay_ids.tolist() == stays.loc[stays["fold"] == 0, "stay_id"].tolist()
    assert (later[0].logits.argmax(1) == later[0].truth).all()  # what tells them apart is written by then
    assert (early_day[0].logits == early_day[0].logits[0]).all()  # and not a day earlier


def test_a_fold_that_is_there_is_not_trained_again_unless_something_changed(paths, monkeypatch):
    trained = []
    build = early_runs.models.build
    monkeypatch.setattr(early_runs.models, "build", lambda *given: (trained.append(given[0]), build(*given))[1])
    first = run(paths)
    assert run(paths) == first and len(trained) == 1
    run(paths, settings={"ngrams": 2})
    (paths.runs / "r" / "fold-1" / "hour+48" / "run.json").unlink()  # killed before the last hour was written
    run(paths, settings={"ngrams": 2})
    assert len(trained) == 3


def test_the_fold_left_out_is_neither_trained_on_nor_tested(paths, monkeypatch):
    seen = {}

    class Model:
        def __init__(self, *given):
            pass

        def fit(self, texts, y, validation):
            seen.update(train=len(texts), validation=len(validation[0]))
            return {}

        def predict(self, texts):
            seen["test"] = len(texts)
            return np.zeros((len(texts), 3), np.float32)

    monkeypatch.setattr(early_runs.models, "build", lambda *given: Model())
    run(paths, fold=3)
    assert seen == {"train": 60, "validation": 15, "test": 15}


def test_a_run_on_weights_leaves_weights(paths, monkeypatch):
    class Model:
        def fit(self, texts, y, validation):
            self.mean = y.mean()
            return {}

        def predict(self, texts):
            return np.full((len(texts), 1), self.mean, np.float32)

    monkeypatch.setattr(early_runs.models, "build", lambda name, settings, labels, *rest: Model())
    run(paths, labels=False, target="weight", hours=[48])
    made = early_runs.read_weights(paths, "r")[0]
    stays = cohort.read_stays(paths.cohort("ms"), early.STAYS).set_index("stay_id")
    assert made["true"].to_numpy() == pytest.approx(stays.loc[made["stay_id"], "weight"].to_numpy())
    assert early_runs.regressed(paths, "r", made["stay_id"][::-1]).shape == (1, 15)


def test_named_weights_are_those_of_2013(paths):
    run(paths)
    ids = pd.Series(early_runs.read_run(paths, "r")[0].stay_ids[::-1])  # in the order that is asked for
    stays = cohort.read_stays(paths.cohort("ms"), early.STAYS).set_index("stay_id")
    assert early_runs.weights_of(paths, "r", ids)[0] == pytest.approx(stays.loc[ids, "weight"].to_numpy())


def test_measurements_after_the_hour_are_unknown_and_the_scale_stays_the_trainings(paths):
    stays = cohort.read_stays(paths.cohort("ms"), early.STAYS)
    values = np.random.default_rng(1).normal(5, 2, (90, 48, 104)).astype(np.float32)
    measurements.write_measurements(paths.measurements, stays["stay_id"].to_numpy()[::-1], values[::-1])
    training = (stays["fold"] > 1).to_numpy()
    known, test = early_runs.known_at(paths, stays, "measurements", 48), (stays["fold"] == 0).to_numpy()
    day, both = (known(test, hours, training) for hours in (24, 48))
    np.testing.assert_array_equal(day[:, :24], both[:, :24])  # the first day looks the same on either
    assert not day[:, 24:, 104:].any() and both[..., 104:].all()  # nothing is measured later
    np.testing.assert_array_equal(day[:, 24:, :104], np.repeat(both[:, 23:24, :104], 24, axis=1))  # values stand
    np.testing.assert_allclose(both[..., :104], inputs.standardised(values, training)[test][..., :104], rtol=1e-5)


def test_the_official_space_holds_every_target():
    space = early_runs.target_space("apr", pd.Series(["1943"]), "official")
    assert len(space) == 1136 and len(early_runs.target_space("ms", pd.Series(["291"]), "official")) == 738
    assert early_runs.target_space("apr", pd.Series(["1943", "0021"]), "cohort").codes.tolist() == ["0021", "1943"]


def test_what_is_refused(paths):
    with pytest.raises(StudyError, match="run 'r' has no predictions at hour 48"):
        early_runs.read_run(paths, "r")
    with pytest.raises(StudyError, match="parameter reads: expected 'notes' or 'measurements'"):
        early_runs.known_at(paths, None, "tea leaves", 48)
    with pytest.raises(StudyError, match="parameter space: expected 'official' or 'cohort'"):
        early_runs.target_space("ms", pd.Series(["291"]), "all")
    with pytest.raises(StudyError, match="'1943' is not a code of this system"):
        early_runs.target_space("ms", pd.Series(["1943"]), "cohort")
    with pytest.raises(StudyError, match="'999'"):
        LabelSpace(["999"], drgs.fiscal_2013("ms").query("target").index)
    for wrong in ({"split": "split"}, {"fold": 0}, {"fold": 6}):
        with pytest.raises(StudyError, match="parameters split and folds: expected one of"):
            run(paths, **wrong)
    run(paths)
    stays = cohort.read_stays(paths.cohort("ms"), early.STAYS)
    cohort.write_stays(stays.assign(diagnosis="OTHER"), paths.cohort("ms"), early.STAYS)
    with pytest.raises(StudyError, match="made on another cohort"):
        early_runs.read_run(paths, "r")


def test_folds_that_are_no_longer_asked_for_go(paths):
    for fold in (1, 2, 3):
        run(paths, fold)
    early_runs.keep_folds(paths.runs / "r", [1, 3])
    assert [made.run["fold"] for made in early_runs.read_run(paths, "r")] == [1, 3]
