"""A training is done once: what its key holds, when a run is taken as it is, and what a run of five folds is trained on."""

import ast
import functools
import shutil

import numpy as np
import pandas as pd
import pytest
import transformers

from drgstudy import (
    cohort,
    drgs,
    icu_cohort,
    inputs,
    measurements,
    models,
    plan,
    predictions,
    provenance,
    results,
    runs,
    study,
)  # fmt: skip
from drgstudy.flow import read_rows, write_rows
from drgstudy.labels import LabelSpace, target_space
from drgstudy.predictions import read_predictions
from drgstudy.study import NOTEBOOKS, Paths, StudyError, fingerprint, graph, read_json, read_params, write_json

CODES = ["064", "291", "871"]
WORDS = {"064": "stroke weakness", "291": "edema dyspnea", "871": "fever hypotension"}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    return made_up()


def made_up():
    """Ninety stays of three DRGs whose notes name them, the second note after the first day."""
    paths = Paths("tiny", "early")
    drg = np.array(CODES * 30)
    stays = pd.DataFrame({"stay_id": np.arange(90) + 100, "subject_id": np.arange(90), "drg": drg})
    facts = drgs.fiscal_2013("ms").loc[drg]
    stays = stays.assign(weight=facts["relative_weight"].to_numpy(), mdc=facts["mdc"].to_numpy(), diagnosis="UNWELL")
    stays = stays.assign(icu_in=pd.Timestamp("2150-01-01").as_unit("ms"), first_visit=True)
    stays = stays.assign(fold=np.arange(90) // 3 % 6, fold_known=np.arange(90) // 3 % 6)
    write_rows(stays, paths.cohort("ms"), icu_cohort.STAYS, by="03-cohort")
    late = [(stay_id, 30.0, "Nursing", WORDS[code]) for stay_id, code in zip(stays["stay_id"], drg, strict=True)]
    notes = pd.DataFrame([(stay_id, 1.0, "Nursing", "patient here") for stay_id in stays["stay_id"]] + late)
    notes.columns = list(icu_cohort.NOTES.columns)
    write_rows(
        notes.sort_values(["stay_id", "hours"], ignore_index=True), paths.notes, icu_cohort.NOTES, by="03-cohort"
    )
    flow = {"ms": [{"step": "hospital stays", "kept": 90, "removed": 0}], "source": {"kind": "synthetic", "name": "x"}}
    provenance.write_json(paths.flow, flow, "21-early-cohort", [paths.cohort("ms"), paths.notes])
    return paths


GIVEN = {
    "run": "r",
    "model": "tfidf",
    "settings": {"ngrams": 1},
    "system": "ms",
    "reads": "notes",
    "target": "drg",
    "space": "cohort",
    "split": "fold",
    "hours": [24, 48],
    "seed": 1,
}


def trainings(paths, fold=1, **about):
    return runs.of_icu_stays(paths, folds=[fold], **GIVEN | about)


def run(paths, fold=1, **about):
    (training,) = trainings(paths, fold, **about)
    return runs.train_once(training)


# --- a training is done once ------------------------------------------------------------------------------------------
@pytest.fixture
def discharge(tiny_study, tmp_path, monkeypatch):
    """The paths of a copy of the tiny study, and a function that trains TF-IDF on it, or takes what is there."""
    monkeypatch.setattr(study.places, "ROOT", shutil.copytree(tiny_study, tmp_path / "study"))
    paths = study.Paths("tiny")
    stays = read_rows(paths.stays, cohort.STAYS)
    words = dict(zip(sorted(set(stays["drg_v34"])), "abcdefghijklmnopqrstuvwxyzäöüßéèñåø", strict=True))
    stays["text"] = "of the " + stays["drg_v34"].map(lambda code: f"diagnosis{words[code]} ") * 3
    write_rows(stays, paths.stays, cohort.STAYS, by="03-cohort", inputs=[paths.source, paths.drgs])
    flow = read_json(paths.flow) | {"stays_fingerprint": fingerprint(paths.stays)}
    provenance.write_json(paths.flow, flow, "03-cohort", [paths.stays])

    def training(**about):
        given = {
            "run": "t",
            "model": "tfidf",
            "settings": {},
            "labels": "one",
            "split": "split",
            "kept_back": 0.1,
            "seed": 1,
        }
        return runs.of_stays(paths, **given | about)

    return paths, training


@pytest.fixture
def trained(monkeypatch):
    """The models that were built to be trained, by name."""
    names, build = [], models.build
    monkeypatch.setattr(models, "build", lambda *given: (names.append(given[0]), build(*given))[1])
    return names


def test_a_run_of_the_same_key_is_taken_as_it_is(discharge, trained):
    paths, training = discharge
    first = runs.train_once(training())
    assert runs.train_once(training()) == first and trained == ["tfidf"]
    assert first["key"] == training().key and first["trained_because"] == "it had not been trained before"
    made = read_predictions(paths.runs / "t", paths.stays)
    assert (made.logits.argmax(1) == made.truth).all() and made.run == first
    assert not list(paths.runs.glob("t/.*")) and not list(paths.runs.glob("t/checkpoints-*"))


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"settings": {"ngrams": 1}}, "setting ngrams was 2 and is 1"),
        ({"seed": 2}, "parameter seed was 1 and is 2"),
        ({"split": "split_patients"}, "parameter split was 'split' and is 'split_patients'"),
    ],
)
def test_under_another_key_it_is_trained_and_says_why(discharge, trained, about, why):
    _, training = discharge
    runs.train_once(training())
    record = runs.train_once(training(**about))
    assert trained == ["tfidf"] * 2 and record["trained_because"] == why
    assert runs.history([record]) == f"This run was trained because {why}."
    assert runs.standing(training())[0] is None  # the first key is gone


def test_other_stays_and_changed_files_are_trained_again(discharge, trained):
    paths, training = discharge
    runs.train_once(training())
    stays = read_rows(paths.stays, cohort.STAYS)
    write_rows(
        stays.assign(words=stays["words"] + 1),
        paths.stays,
        cohort.STAYS,
        by="03-cohort",
        inputs=[paths.source, paths.drgs],
    )
    provenance.write_json(
        paths.flow, read_json(paths.flow) | {"stays_fingerprint": fingerprint(paths.stays)}, "03-cohort", [paths.stays]
    )
    why = "the stays, or what is read of them, are others than they were"
    assert runs.train_once(training())["trained_because"] == why
    (paths.runs / "t" / "model.npz").write_bytes(b"bent")
    assert "model.npz is not the file that run t left there" in runs.train_once(training())["trained_because"]
    (paths.runs / "t" / "predictions.npz").unlink()
    assert "predictions.npz is missing" in runs.train_once(training())["trained_because"]
    assert trained == ["tfidf"] * 4
    write_json(paths.runs / "t" / "run.json", {k: v for k, v in runs.train_once(training()).items() if k != "key"})
    assert runs.standing(training()) == (None, "its record has no key")


def test_a_file_that_a_setting_names_is_part_of_the_key(discharge, tmp_path):
    _, training = discharge
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("1 2\na 1 2\n")
    before = training(model="caml", settings={"vectors": str(vectors)}).key
    vectors.write_text("1 2\na 2 1\n")
    now = training(model="caml", settings={"vectors": str(vectors)}).key
    assert runs.differences(before, now) == {"files": "a file that a setting names is another than it was"}


def test_the_name_of_the_data_is_no_part_of_the_key(discharge, trained):
    paths, training = discharge
    runs.train_once(training())
    flow = read_json(paths.flow)
    flow["source"] |= {"name": "renamed"}
    provenance.write_json(paths.flow, flow, "03-cohort", [paths.stays])
    assert runs.train_once(training())["dataset"]["name"] == "renamed"
    assert read_predictions(paths.runs / "t", paths.stays).run["dataset"]["name"] == "renamed" and trained == ["tfidf"]


@pytest.mark.parametrize("cuts", [[], [[1, 8]]])
def test_frozen_states_stay_where_other_runs_read_them(discharge, cuts):
    training = discharge[1]()
    training.about["settings"]["cuts"] = cuts
    (training.folder / "frozen").mkdir(parents=True)
    runs._end(training)
    assert (training.folder / "frozen").exists() == bool(cuts)


def test_in_every_profile_the_runs_beside_others_are_trained_under_their_split():
    files = [
        *(NOTEBOOKS / "params").glob("*/*-train-*-known.yaml"),
        *(NOTEBOOKS / "params").glob("*/*-train-*-patients.yaml"),
    ]
    for file in files:
        part = "fold" if file.name.startswith("23") else "split"
        assert read_params(file)["split"] == f"{part}_{file.stem.rpartition('-')[2]}", file
    assert len(files) > 20


def test_what_an_unfinished_training_left_under_another_key_is_no_use(discharge):
    paths, training = discharge
    left = [paths.runs / "t" / "checkpoints-1" / "checkpoint-2", paths.runs / "t" / "frozen"]
    for folder in left:
        folder.mkdir(parents=True)
    write_json(paths.runs / "t" / runs.BEGUN, {"key": training().key, "why": "it had to be"})
    assert runs._begin(training(), "it was killed") == "it had to be"  # and goes on
    assert all(place.exists() for place in left)
    assert runs._begin(training(seed=2), "of the seed") == "of the seed"
    assert not any(place.exists() for place in left)


def test_all_models_choose_their_epoch_by_the_same_stays_and_train_on_the_others(discharge, monkeypatch):
    """TF-IDF, which has no epoch to choose, leaves the stays out that CAML and LLaMA keep back; a seed changes nothing."""
    paths, training = discharge
    train, _ = cohort.parts(read_rows(paths.stays, cohort.STAYS), "split")
    found = {}
    for name, seed, labels in (("tfidf", 1, "one"), ("caml", 2, "one"), ("llama", 3, "two")):
        texts, y, (judging, judged) = training(model=name, seed=seed, labels=labels).learn()
        assert len(texts) == len(y) and len(judging) == len(judged) == np.ceil(0.1 * len(train)) > 1
        assert sorted([*texts, *judging]) == sorted(train["text"])
        found[name] = texts, judging
    assert found["tfidf"] == found["caml"] == found["llama"]
    texts, y, judged = training(kept_back=0.0).learn()
    assert texts == train["text"].tolist() and len(y) == len(train) and judged is None
    with pytest.raises(StudyError, match=r"kept_back and train_share: expected shares, .*; got 1\.0 and 1\.0"):
        training(kept_back=1.0)


def test_a_learning_curve_draws_from_each_drg_and_judges_by_the_same_stays(discharge):
    whole, half = (discharge[1](train_share=share) for share in (1.0, 0.5))
    assert "train_share" not in whole.about and "train_share" not in whole.key and half.key["train_share"] == 0.5
    (texts, y, judged), (fewer, of_half, too) = whole.learn(), half.learn()
    assert judged[0] == too[0] and len(fewer) == np.ceil(len(texts) / 2)
    assert list(half.outputs) == list(whole.outputs)
    assert abs(np.bincount(of_half, minlength=35) - np.bincount(y, minlength=35) / 2).max() < 1
    for share in (0.0, 1.5):
        with pytest.raises(StudyError, match=f"kept_back and train_share: expected shares, .*; got 0.1 and {share}"):
            discharge[1](train_share=share)


def test_a_model_of_the_early_years_and_one_of_as_many_stays_of_all_years(discharge, monkeypatch):
    paths, training = discharge
    stays = read_rows(paths.stays, cohort.STAYS)
    year = (2008 + stays.index % 10).to_numpy()
    dated = stays.assign(first=year, last=year + 2)[stays.index % 7 > 0]  # of some the year is not known
    monkeypatch.setattr(runs.people, "years", lambda folder: None)
    monkeypatch.setattr(runs.people, "dated", lambda stays, when: dated)
    early, mixed, whole = training(until=2012), training(until=2012, as_many=True), training()
    train, test = cohort.parts(stays, "split")
    past = train[train.index.isin(dated.index[dated["last"] <= 2012])]
    learned = {name: [*each.learn()[0], *each.learn()[2][0]] for name, each in (("early", early), ("mixed", mixed))}
    assert sorted(learned["early"]) == sorted(past["text"]) and len(learned["mixed"]) == len(past)
    assert sorted(learned["mixed"]) != sorted(learned["early"])
    assert early.counts["test stays"] == mixed.counts["test stays"] == len(test)
    assert list(early.outputs) == list(whole.outputs)
    assert "until" not in whole.key and early.key["until"] == 2012 and mixed.key["as_many"] is True
    dated["last"] += 2 * (dated.index % 2)  # the same year, other stays: another key
    assert training(until=2012).key != early.key
    for wrong, said in (
        ({"until": 1999}, "until: 1999 is not between the years"),
        ({"as_many": True}, "until: 0 is not between the years"),
    ):
        with pytest.raises(StudyError, match=f"parameter {said}"):
            training(**wrong)


def test_a_run_can_be_kept_whose_code_alone_has_changed(discharge, trained, tmp_path, monkeypatch):
    paths, training = discharge
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path)
    params = tmp_path / "params" / "tiny" / "05-train-t.yaml"
    params.parent.mkdir(parents=True)
    shutil.copy(NOTEBOOKS / "05-train.ipynb", tmp_path)
    params.write_text("profile: tiny\nrun: t\nmodel: tfidf\nseed: 1\n")
    first = runs.train_once(training())
    first["key"]["code"]["models.tfidf"] = "another"
    write_json(paths.runs / "t" / "run.json", first)
    assert runs.standing(training()) == (None, "the code has changed: models.tfidf")
    plan.keep("tiny", "t")
    record = runs.train_once(training())
    assert trained == ["tfidf"] and record["kept"] == ["models.tfidf"]
    assert "**kept by name** although code that shapes it has changed since: models.tfidf" in runs.history([record])
    params.write_text("profile: tiny\nrun: t\nmodel: tfidf\nseed: 2\n")
    with pytest.raises(StudyError, match=r"can't be kept, for not its code alone .*: parameter seed was 1 and is 2"):
        plan.keep("tiny", "t")
    for run_, says in (("", "RUN=: no parameter file"), ("u", "RUN=u: no parameter file of profile tiny trains it")):
        with pytest.raises(StudyError, match=says):
            plan.keep("tiny", run_)
    assert runs.train_once(training(seed=2)).get("kept") is None  # trained anew


def test_a_setting_that_there_was_not_yet_counts_as_code():
    old = {"settings": {"a": 1}, "code": {"m": "1"}}
    said = runs.differences(old, {"settings": {"a": 1, "b": 2}, "code": {"m": "2"}})
    assert said == {"code": "the code has changed: m"}
    said = runs.differences(old, {"settings": {"a": 2}, "code": {"m": "1"}})
    assert said == {"settings": "setting a was 1 and is 2"}


def test_before_the_first_training_make_says_what_will_be_trained(discharge, tmp_path, monkeypatch, capsys):
    _, training = discharge
    _asked(tmp_path, monkeypatch, **{f"05_train_{name}": f"run: {name}\nmodel: tfidf\nseed: 1\n" for name in "tuvw"})
    runs.train_once(training())
    record = runs.train_once(training(run="u", seed=2))
    write_json(training(run="u").folder / "run.json", record | {"cost": {"fit_seconds": 462.4}})
    record = runs.train_once(training(run="w"))
    record["key"]["code"]["models.tfidf"] = "another"
    write_json(training(run="w").folder / "run.json", record | {"cost": {"fit_seconds": 3.2}})
    plan.plan("tiny", "report")
    assert capsys.readouterr().err.splitlines() == [
        "tiny: to be trained: 3; there already, and taken as they are: 1",
        "  u: parameter seed was 2 and is 1 (last time 7 min 42 s)",
        "  v: it had not been trained before",
        "  w: the code has changed: models.tfidf (last time 0 min 3 s); `make keep RUN=w PROFILE=tiny` keeps it",
    ]


def _asked(tmp_path, monkeypatch, **files):
    """Parameter files of a profile of nothing but these steps, in place of ours."""
    monkeypatch.setattr(study.places, "NOTEBOOKS", tmp_path)
    folder = tmp_path / "params" / "tiny"
    folder.mkdir(parents=True)
    for notebook in (*NOTEBOOKS.glob("*.ipynb"), NOTEBOOKS / "studies.yaml"):
        shutil.copy(notebook, tmp_path)
    for name, text in files.items():
        (folder / f"{name.replace('_', '-')}.yaml").write_text("profile: tiny\n" + text)


def test_before_the_first_training_all_of_the_profile_is_checked(discharge, tmp_path, monkeypatch, capsys, tiny_llama):
    """A base that is wrong is not found days later, and a run of the other study is looked at too."""
    (tmp_path / "vectors").write_text("no vectors\n")
    base = f"model: llama\nsettings: {{base: {tiny_llama}, max_tokens: 8, layers: "
    _asked(
        tmp_path, monkeypatch,
        **{"05_train_a": "run: a\nmodel: tfidf\n", "05_train_b": f"run: b\n{base}1}}\n", "05_train_c": f"run: c\n{base}9}}\n"},
        **{"05_train_d": "run: d\nmodel: llama\nsettings: {base: /no/llama-13b}\n", "05_train_e": "run: e\nmodel: tfidf\nsplit: x\n"},
        **{"05_train_f": "run: f\nlike: 05-train-d\n", "05_train_g": f"run: g\nmodel: caml\nsettings: {{vectors: {tmp_path}/vectors}}\n"},
        **{"23_early_train_h": "run: h\nmodel: tfidf\nfolds: [7]\n", "20_icu": f"mimic3: {tmp_path}\n"},
        **{"02_harmonization": "review: sheet.csv\n", "05_train_i": "run: i\nmodel: tfidf\nlabels: two\n"},
    )  # fmt: skip
    with pytest.raises(StudyError, match="nothing is trained yet") as refused:
        plan.plan("tiny", "report", "report early")
    said = str(refused.value).splitlines()[1:]
    expected = {
        "05-train-c": "its weights lack", "05-train-d, 05-train-f": "there is no such folder", "05-train-e": "parameter split",
        "05-train-g": "word2vec", "05-train-i": "one label a stay", "23-early-train-h": "folds 1 to 5",
        "20-icu": "has no", "02-harmonization": "parameter review: 'sheet.csv' is not a file",
    }  # fmt: skip
    found = {name: why for name, _, why in (line.strip().partition(": ") for line in said)}
    assert found.keys() == expected.keys() and all(expected[name] in why for name, why in found.items()), found
    assert capsys.readouterr().err.startswith("tiny: to be trained: 8;") and not (Paths("tiny").runs / "a").exists()
    with pytest.raises(StudyError) as refused:  # whoever has MIMIC-IV alone is not asked for MIMIC-III
        plan.plan("tiny", "report")
    assert "20-icu" not in str(refused.value) and "05-train-d" in str(refused.value)


def test_before_the_first_training_a_shard_that_is_missing_or_cut_is_found(tmp_path, tiny_llama, tiny_bert):
    for model, base in (("llama", tiny_llama), ("bert", tiny_bert)):
        folder = shutil.copytree(base, tmp_path / model, ignore=shutil.ignore_patterns("*.safetensors"))
        transformers.AutoModel.from_pretrained(base).save_pretrained(folder, max_shard_size="10KB")
        shard = sorted(folder.glob("*-of-*.safetensors"))[-1]
        models.check(model, {"base": str(folder), "max_tokens": 8})
        shard.write_bytes(shard.read_bytes()[:-10])
        with pytest.raises(StudyError, match="can't be loaded"):
            models.check(model, {"base": str(folder), "max_tokens": 8})
        shard.unlink()
        with pytest.raises(StudyError, match="can't be loaded"):
            models.check(model, {"base": str(folder), "max_tokens": 8})


# --- what of the code a training hangs on -----------------------------------------------------------------------------
SHAPES_NOTHING = {"study", "checkpoints", "predictions", "provenance", "models", "models.weights", "drgs"}
"""Runner, resuming, readers of files and of facts: what labels a stay has is in the key itself."""
LLAMA, BERT, CAML = (f"models.{name}" for name in ("llama", "bert", "caml"))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return shutil.copytree(graph.LIBRARY, tmp_path_factory.mktemp("copy") / "drgstudy")


@functools.cache
def demo_runs():
    """The code that each run of the demo is made by, as `runs.code_of` is asked for it."""
    about = {file.stem: read_params(file) for file in (NOTEBOOKS / "params" / "demo").glob("*-train-*.yaml")}
    more = {name: "inputs" if "system" in given else "labels.TwoLabels" if given.get("labels") == "two" else ""
            for name, given in about.items()}  # fmt: skip
    return {name.partition("train-")[2]: (given["model"], more[name]) for name, given in about.items()}


def keys(library):
    code = {asked: runs.code_of(*asked, library=library) for asked in set(demo_runs().values())}
    return {run: code[asked] for run, asked in demo_runs().items()}


@functools.cache
def as_it_is():
    return keys(graph.LIBRARY)


def retrained(library, edits):
    """The demo's runs whose key is another after edits of a copy of the library, by file, which are undone."""
    texts = {file: (library / file).read_text() for file in edits}
    try:
        for file, change in edits.items():
            (library / file).write_text(change(texts[file]))
        return {run for run, code in keys(library).items() if code != as_it_is()[run]}
    finally:
        for file, text in texts.items():
            (library / file).write_text(text)


OF = {
    "llama": {"llama", "llama-32", "llama-64", "llama-known", "llama-patients", "llama-small", "llama-small-32",
              "llama-small-64", "llama-two", "probe", "llama-ms"},
    "bert": {"bert", "bert-ms", "bert-apr"},
    "caml": {"caml", "caml-known", "caml-patients", "caml-ms", "caml-apr", "caml-ms-weight", "caml-apr-weight", "caml-ms-known"},
    "lstm": {"lstm-ms", "lstm-apr"},
    "tfidf": {"tfidf", "tfidf-clinicians", "tfidf-known", "tfidf-patients"},
    "tree": {"tree", "titles"},
}  # fmt: skip
DECODERS = OF["llama"] | OF["tree"]
NEURAL = DECODERS | OF["bert"] | OF["caml"] | OF["lstm"]
TRAINED_AGAIN = {
    **{f"models/{name}.py": made for name, made in OF.items()},
    "models/llama.py": DECODERS,
    "models/fast_lora.py": DECODERS,
    "models/frozen.py": DECODERS,
    "models/pooling.py": DECODERS | OF["bert"],
    "models/sentencepieces.py": DECODERS | OF["bert"],
    "models/vectors.py": OF["caml"],
    "training.py": NEURAL,
    "inputs.py": {name for made in OF.values() for name in made if {"ms", "apr"} & set(name.split("-"))},
}


@pytest.mark.parametrize("file", TRAINED_AGAIN)
def test_which_runs_a_changed_file_trains_again(library, file):
    assert retrained(library, {file: lambda text: f"{text}\nx = 1\n"}) == TRAINED_AGAIN[file]


def test_no_other_file_trains_anything_again(library):
    files = {str(file.relative_to(library)) for file in library.rglob("*.py")} - TRAINED_AGAIN.keys()
    assert len(files) > 40 and retrained(library, dict.fromkeys(files, lambda text: f"{text}\nx = 1\n")) == set()


def test_a_new_model_trains_nothing_that_is_there(library):
    (library / "models" / "gru.py").write_text("class Model: ...\n")
    assert retrained(library, {"models/gru.py": lambda text: text + "x = 1\n"}) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "again"),
    [
        ("training.py", 'desc="predicting"', 'desc="scoring"', set()),
        ("training.py", "            bar.update(len(rows))\n", "            bar.update(1)\n", set()),
        ("training.py", "with progress(total=len(order), desc=\"predicting\", unit=\"text\") as bar:", "if True:", NEURAL),
        ("training.py", "holds more than a checkpoint does", "holds more than that", set()),
        ("models/caml.py", "words that one filter sees", "the filters' width", set()),
        ("models/caml.py", "setting(5,", "setting(7,", OF["caml"]),
        ("models/caml.py", '"""CAML over whole words."""', '"""Another sentence."""', set()),
        ("models/caml.py", "PAD, UNKNOWN = 0, 1\n", "PAD, UNKNOWN = 0, 1  # a comment\n\n\n", set()),
        ("models/caml.py", "PAD, UNKNOWN = 0, 1\n", "PAD, UNKNOWN = 1, 0\n", OF["caml"]),
        ("models/caml.py", "from drgstudy.study import StudyError", "from drgstudy.study import short_repr, StudyError", set()),
        ("labels.py", "own = self._code != \"\"", "own = self._code == \"\"", set()),  # reading two labels
        ("labels.py", "logits[:, ~known] = ", "logits[:, known] = ", {"llama-two"}),
    ],
)  # fmt: skip
def test_messages_bars_help_and_layout_shape_nothing(library, file, old, new, again):
    assert old in (library / file).read_text()
    assert retrained(library, {file: lambda text: text.replace(old, new)}) == again


def test_a_bar_can_go_altogether():
    with_bar = "def f(a):\n    with progress(total=1) as bar:\n        for x in progress(a, desc='b'):\n            g(x)\n            bar.update()\n"
    without = "def f(a):\n    for x in a:\n        g(x)\n"
    assert graph._plain(graph._Bare().visit(ast.parse(with_bar))) == graph._plain(
        graph._Bare().visit(ast.parse(without))
    )


def test_each_room_that_a_model_is_made_by_is_known_to_shape_it_or_not():
    """A new helper must be sorted into one of the lists: otherwise a run could be taken as it is that is stale."""
    for name in OF:
        used = graph.closure([f"models.{name}"]) - {f"models.{name}"}
        assert {place for place in used if not place.startswith("study")} <= {*runs.SHAPES} | SHAPES_NOTHING, name


# --- five folds -------------------------------------------------------------------------------------------------------
def test_the_hold_out_stays_are_asked_at_every_hour(paths):
    for fold in (1, 2):
        run(paths, fold)
    early_day, later = (predictions.read_folds(paths, "r", hours) for hours in (24, 48))
    assert [made.run["fold"] for made in later] == [1, 2] and later[0].run["hours"] == 48
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
    assert later[0].stay_ids.tolist() == stays.loc[stays["fold"] == 0, "stay_id"].tolist()
    assert (later[0].logits.argmax(1) == later[0].truth).all()  # what tells them apart is written by then
    assert (early_day[0].logits == early_day[0].logits[0]).all()  # and not a day earlier


def test_a_fold_that_is_there_is_not_trained_again_unless_something_changed(paths, trained):
    first = run(paths)
    assert run(paths) == first and len(trained) == 1
    run(paths, settings={"ngrams": 2})
    (paths.runs / "r" / "fold-1" / "hour+48" / "run.json").unlink()  # killed before the last hour was written
    run(paths, settings={"ngrams": 2})
    assert len(trained) == 3
    record = run(paths, settings={"ngrams": 2}, hours=[48])
    assert record["trained_because"] == "parameter hours was [24, 48] and is [48]"
    assert [place.name for place in (paths.runs / "r" / "fold-1").glob("hour*")] == ["hour+48"]


def test_a_fold_goes_by_its_code_too(paths, trained):
    record = run(paths)
    for hour in (24, 48):
        file = paths.runs / "r" / "fold-1" / f"hour+{hour}" / "run.json"
        old = read_json(file)
        old["key"]["code"]["inputs"] = "another"
        write_json(file, old)
    assert run(paths)["trained_because"] == "the code has changed: inputs" and len(trained) == 2
    assert set(record["key"]["code"]) == {"models.tfidf", "inputs"}


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

    monkeypatch.setattr(models, "build", lambda *given: Model())
    run(paths, fold=3)
    assert seen == {"train": 60, "validation": 15, "test": 15}


def test_a_run_on_weights_leaves_weights_and_is_taken_as_it_is(paths, monkeypatch):
    built = []

    class Model:
        def fit(self, texts, y, validation):
            self.mean = y.mean()
            return {}

        def predict(self, texts):
            return np.full((len(texts), 1), self.mean, np.float32)

    monkeypatch.setattr(models, "build", lambda *given: built.append(given) or Model())
    given = {"target": "weight", "hours": [48], "model": "caml", "settings": {}}
    assert run(paths, **given) == run(paths, **given) and len(built) == 1
    made = predictions.read_weights(paths, "r")[0]
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS).set_index("stay_id")
    assert made["true"].to_numpy() == pytest.approx(stays.loc[made["stay_id"], "weight"].to_numpy())
    assert results.weights_by_regression(paths, "r", made["stay_id"][::-1]).shape == (1, 15)


def test_named_weights_are_those_of_2013(paths):
    run(paths)
    ids = pd.Series(predictions.read_folds(paths, "r")[0].stay_ids[::-1])  # in the order that is asked for
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS).set_index("stay_id")
    assert results.weights_by_drg(paths, "r", ids)[0] == pytest.approx(stays.loc[ids, "weight"].to_numpy())


def test_measurements_after_the_hour_are_unknown_and_the_scale_stays_the_trainings(paths):
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
    values = np.random.default_rng(1).normal(5, 2, (90, 48, 104)).astype(np.float32)
    measurements.write_measurements(paths.measurements, stays["stay_id"].to_numpy()[::-1], values[::-1])
    training = (stays["fold"] > 1).to_numpy()
    known, test = runs.known_at(paths, stays, "measurements", 48), (stays["fold"] == 0).to_numpy()
    day, both = (known(test, hours, training) for hours in (24, 48))
    np.testing.assert_array_equal(day[:, :24], both[:, :24])  # the first day looks the same on either
    assert not day[:, 24:, 104:].any() and both[..., 104:].all()  # nothing is measured later
    np.testing.assert_array_equal(day[:, 24:, :104], np.repeat(both[:, 23:24, :104], 24, axis=1))  # values stand
    np.testing.assert_allclose(both[..., :104], inputs.standardised(values, training)[test][..., :104], rtol=1e-5)


def test_the_official_space_holds_every_target():
    space = target_space("apr", pd.Series(["1943"]), "official")
    assert len(space) == 1136 and len(target_space("ms", pd.Series(["291"]), "official")) == 738
    assert target_space("apr", pd.Series(["1943", "0021"]), "cohort").codes.tolist() == ["0021", "1943"]


def test_what_is_refused(paths):
    with pytest.raises(StudyError, match="run 'r' has no predictions at hour 48"):
        predictions.read_folds(paths, "r")
    with pytest.raises(StudyError, match="parameter reads: expected 'notes' or 'measurements'"):
        run(paths, reads="tea leaves")
    with pytest.raises(StudyError, match="parameter target: expected 'drg' or 'weight', got 'dollars'"):
        run(paths, target="dollars")
    with pytest.raises(StudyError, match="parameter target: model 'tfidf' learns no number"):
        run(paths, target="weight")
    with pytest.raises(StudyError, match="parameter space: expected 'official' or 'cohort'"):
        run(paths, space="all")
    with pytest.raises(StudyError, match="'1943' is not a code of this system"):
        target_space("ms", pd.Series(["1943"]), "cohort")
    with pytest.raises(StudyError, match="'999'"):
        LabelSpace(["999"], drgs.fiscal_2013("ms").query("target").index)
    for wrong in ({"split": "split"}, {"fold": 0}, {"fold": 6}):
        with pytest.raises(StudyError, match="parameters split and folds: expected one of"):
            run(paths, **wrong)
    run(paths)
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
    write_rows(stays.assign(diagnosis="OTHER"), paths.cohort("ms"), icu_cohort.STAYS, by="03-cohort")
    with pytest.raises(StudyError, match="made on another cohort"):
        predictions.read_folds(paths, "r")


def test_folds_that_are_no_longer_asked_for_go(paths):
    for fold in (1, 2, 3):
        run(paths, fold)
    runs.keep_folds(paths.runs / "r", [1, 3])
    assert [made.run["fold"] for made in predictions.read_folds(paths, "r")] == [1, 3]
