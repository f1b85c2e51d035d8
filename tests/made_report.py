"""A report on credentialed data without any training: the synthetic hospital unmarked, made predictions, all notebooks."""

import ast
import contextlib
import gzip
import html
import io
import shutil
from types import SimpleNamespace

import IPython.display
import matplotlib
import nbformat
import numpy as np
import pandas as pd
from IPython.core.formatters import DisplayFormatter

from drgstudy import attribution, cohort, icu_cohort, models, report, runs, study, synthetic
from drgstudy.flow import read_flow, read_rows
from drgstudy.labels import TwoLabels
from drgstudy.predictions import Predictions, write_predictions
from drgstudy.synthetic.icu import make_icu_hospital


def pages(paths: study.Paths) -> str:
    """The text of the report's own pages, one after the other."""
    return html.unescape("".join(page.read_text() for page in sorted(paths.report.glob("*.html"))))


RANGES = {"SUBJECT_ID": (2, 99_999), "HADM_ID": (100_001, 199_999), "ICUSTAY_ID": (200_001, 299_999)}
DENSITY = {"SUBJECT_ID": 0.47, "HADM_ID": 0.59, "ICUSTAY_ID": 0.61}  # of MIMIC-III's numbers in their ranges
SMALL = {"resamples_sd": 5, "resamples_interval": 40, "resamples": 40, "draws": 3, "relabelings": 3, "trainings": 3}


def as_mimic_iii(folder, rng) -> dict[str, set[int]]:
    """Give a synthetic ICU MIMIC-III's ids, in their order and as dense as there, and remove what says it is synthetic.

    Returns the ids that it has, those of patients and stays included of whom nothing but the number is known.
    """
    tables = {file.name.split(".")[0]: file for file in folder.glob("*.csv.gz") if file.name[0].isupper()}
    read = {name: pd.read_csv(file, dtype=str, keep_default_na=False) for name, file in tables.items()}
    known = {}
    for column, (first, last) in RANGES.items():
        old = sorted({int(value) for table in read.values() if column in table for value in table[column] if value})
        dense = np.flatnonzero(rng.random(last + 1 - first) < DENSITY[column]) + first
        if column == "SUBJECT_ID":
            dense = np.union1d(np.arange(2, 20_000), dense)  # the first tables lack nearly none
        chosen = np.sort(rng.choice(dense, len(old), replace=False))
        new = {str(a): str(b) for a, b in zip(old, chosen, strict=True)}
        for table in (table for table in read.values() if column in table):
            table[column] = table[column].map(new).fillna("")
        known[column] = set(dense.tolist())
    for name, column in (("PATIENTS", "SUBJECT_ID"), ("ADMISSIONS", "HADM_ID")):  # of whom nothing else is known
        others = sorted(known[column] - set(map(int, read[name][column])))
        more = pd.DataFrame({column: map(str, others), "ROW_ID": range(10**6, 10**6 + len(others))})
        if name == "ADMISSIONS":
            more["SUBJECT_ID"], more["HOSPITAL_EXPIRE_FLAG"], more["HAS_CHARTEVENTS_DATA"] = "2", "0", "0"
            more["ADMITTIME"], more["DISCHTIME"] = "2101-01-01 00:00:00", "2101-01-02 00:00:00"
        else:
            more["EXPIRE_FLAG"], more["DOB"] = "0", "2050-01-01 00:00:00"
        read[name] = pd.concat([read[name], more]).fillna("")
    for name, table in read.items():
        with gzip.open(tables[name], "wt", compresslevel=1, newline="") as file:
            table.to_csv(file, index=False)
    _unmark(folder)
    return known


def _unmark(folder) -> None:
    for file in [*folder.rglob("hospital.json"), *folder.rglob("truth.csv.gz")]:
        file.unlink()


def run_by_hand(name: str, profile: str, patch, **parameters) -> dict:
    """Run a notebook in this process and write it with its outputs where papermill would; returns what it defined."""
    notebook = nbformat.read(study.places.NOTEBOOKS / f"{name.split('+')[0]}.ipynb", 4)
    outputs: list = []

    def display(*shown, **_):
        for each in shown:
            data, _ = DisplayFormatter().format(each)
            outputs.append(nbformat.v4.new_output("display_data", {k: v for k, v in data.items() if k[0] != "a"}))

    patch.setattr(IPython.display, "display", display)
    patch.setitem(matplotlib.rcParams, "savefig.dpi", 75)  # nobody looks at these images
    names: dict = {"display": display}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        outputs.clear()
        body = ast.parse(cell.source).body
        last = [body.pop()] if body and isinstance(body[-1], ast.Expr) else []
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(ast.Module(body, []), f"<{name}>", "exec"), names)
            for expression in last:
                if (value := eval(compile(ast.Expression(expression.value), f"<{name}>", "eval"), names)) is not None:
                    display(value)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {key: value for key, value in SMALL.items() if key in names} | {"profile": profile} | parameters
        if printed.getvalue():
            outputs.insert(0, nbformat.v4.new_output("stream", name="stdout", text=printed.getvalue()))
        cell.outputs = list(outputs)
    notebook.metadata["papermill"] = {"parameters": {"profile": profile, **parameters}}
    file = study.Paths(profile).executed / f"{name.replace('+', '-')}.ipynb"
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(study.results_only(notebook), file)
    return names


def _logits(rng, truth, k: int, signal: float) -> np.ndarray:
    return (rng.normal(size=(len(truth), k)) + signal * (np.arange(k) == truth[:, None])).astype("float32")


COST = {
    "predict_seconds": 3.0,
    "predict_examples": 150,
    "peak_memory_gb": 1.5,
    "train_seconds": 60.0,
    "fit_seconds": 60.0,
}
COST |= {"train_examples": 1200, "dtype": "float32", "history": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]}
PLACE = "/srv/author/models"


def drg_llama(root, patch, patients: int, tail: float, seed: int = 3) -> study.Paths:
    """Notebooks 01 to 19 of DRG-LLaMA's study (but for 04, 05, 12 and 13), on an unmarked hospital."""
    paths, rng = study.Paths("secret"), np.random.default_rng(seed)
    synthetic.make_hospital(root / "iv", patients=patients, seed=seed, course_words=56, tail=tail)
    _unmark(root / "iv")
    run_by_hand("01-hospital", "secret", patch, mimic=str(root / "iv"), mimic_note=str(root / "iv"))
    run_by_hand("02-harmonization", "secret", patch)
    run_by_hand("03-cohort", "secret", patch)
    stays = read_rows(paths.stays, cohort.STAYS)
    dataset = read_flow(paths)["source"] | {"fingerprint": study.fingerprint(paths.stays)}
    codes = np.unique(stays["drg_v34"])
    bases = {"llama": "llama-7b", "llama-13b": "llama-13b", "llama-two": "llama-7b"}
    signals = {"llama": 4.0, "llama-two": 3.5, "llama-13b": 5.0, "caml": 2.5, "tfidf": 3.0}
    signals |= {"llama-patients": 3.5, "caml-patients": 2.5, "llama-known": 3.6, "caml-known": 2.6}
    signals |= {"tree": 3.8, "titles": 1.5}
    for run, signal in signals.items():
        split = {"patients": "split_patients", "known": "split_known"}.get(run.partition("-")[2], "split")
        train, test = cohort.parts(stays, split)
        truth = np.searchsorted(codes, test["drg_v34"])
        base = {"base": f"{PLACE}/{bases[run]}", "layers": 0, "max_tokens": 512} if run in bases else {"max_tokens": 99}
        about = {"run": run, "model": run.split("-")[0], "settings": base, "split": split, "seed": 1}
        about |= {"cost": COST | {"train_seconds": 90.0 if run == "llama" else 60.0}, "dataset": dataset}
        outputs, logits = None, _logits(rng, truth, len(codes), signal)
        if run == "llama-two":
            space = TwoLabels(stays["drg_v34"], train["drg_v34"])
            parts = space.encode(test["drg_v34"]).T
            sizes = space.n_bases, len(space.outputs) - space.n_bases
            outputs = np.hstack([_logits(rng, part, k, 4.0) for part, k in zip(parts, sizes, strict=True)])
            logits, about["labels"] = space.drg_logits(outputs), "two"
        ids = test["stay_id"].to_numpy()
        write_predictions(paths.runs / run, Predictions(ids, truth, codes, logits, about, outputs))
    three = ["llama", "caml", "tfidf"]
    run_by_hand("06-results", "secret", patch, runs=three)
    run_by_hand("07-two-labels", "secret", patch)
    run_by_hand("08-size-and-length", "secret", patch, runs=["llama", "llama-13b"], other_runs=["caml", "tfidf"])
    run_by_hand("09-errors", "secret", patch)
    again = {
        f"{way}_runs": [f"{run}-{name}" for run in three[:2]]
        for way, name in (("known", "known"), ("apart", "patients"))
    }
    run_by_hand("10-splits", "secret", patch, runs=three[:2], **again)
    run_by_hand("11-trust", "secret", patch, runs=three)
    run_by_hand("16-time", "secret", patch)
    run_by_hand("17-served", "secret", patch)
    run_by_hand(
        "14-claims", "secret", patch, bert_run="tfidf", larger_run="llama-13b", smaller_run="llama", shorter_run=""
    )
    run_by_hand(
        "15-seeds",
        "secret",
        patch,
        llama_runs=["llama", "llama-13b"],
        bert_runs=[],
        caml_runs=["caml"],
        curve_runs=["tfidf"],
    )
    run_by_hand("19-tree", "secret", patch)
    run_by_hand("18-coder", "secret", patch, runs=three)
    return paths


def early(root, patch, patients: int, tail: float, seed: int = 3) -> tuple[study.Paths, dict[str, set[int]]]:
    """Notebooks 20 to 31 of the early-DRG study (but for 23), on an unmarked ICU with MIMIC-III's ids, and these ids."""
    paths, rng = study.Paths("secret", "early"), np.random.default_rng(seed)
    make_icu_hospital(root / "iii", patients=patients, seed=seed, note_words=60, tail=tail)
    ids = as_mimic_iii(root / "iii", rng)
    run_by_hand("20-icu", "secret", patch, mimic3=str(root / "iii"))
    run_by_hand("21-early-cohort", "secret", patch)
    run_by_hand("22-measurements", "secret", patch)
    for run, signal in {"caml-ms": 3.0, "lstm-ms": 2.0, "bert-ms": 2.5, "caml-apr": 3.0, "lstm-apr": 2.0, "caml-ms-known": 4.0,
                        "caml-ms-weight": 1.0, "caml-apr-weight": 1.0}.items():  # fmt: skip
        system, target = run.split("-")[1], "weight" if run.endswith("weight") else "drg"
        split, hours = "fold_known" if run.endswith("known") else "fold", [-24, 0, 24, 48] if target == "drg" else [48]
        about = (system, "notes", target, "cohort", split, [1, 2], hours, 1)
        trainings = runs.of_icu_stays(paths, run, run.split("-")[0], {}, *about)
        stays = read_rows(paths.cohort(system), icu_cohort.STAYS)
        held = stays[stays[split] == 0]
        for training in trainings:
            training.folder.mkdir(parents=True, exist_ok=True)
            for place in training.asked:
                made = training.about | {"cost": COST}
                if target == "weight":
                    said = held["weight"].to_numpy()[:, None] + rng.normal(size=(len(held), 1))
                else:
                    labels = list(training.outputs)
                    said = _logits(rng, np.array([labels.index(drg) for drg in held["drg"]]), len(labels), signal)
                training.write(place, said, made)

    def load(folder, made=None):
        return SimpleNamespace(predict=lambda texts: rng.normal(size=(len(texts), len(made.labels)))), made.labels

    patch.setattr(models, "load", load)
    patch.setattr(attribution, "top_ngrams", lambda *_, **__: [("one two three four five", 0.25)] * 3)
    run_by_hand("24-early-results", "secret", patch, ms_runs=["caml-ms", "lstm-ms", "bert-ms"], apr_runs=["caml-apr", "lstm-apr"],
                day_one_runs=["caml-ms"])  # fmt: skip
    run_by_hand("25-case-mix", "secret", patch, hours=[-24, 0, 24, 48], sizes=[20, 50], sample=50)
    run_by_hand("26-regression", "secret", patch)
    run_by_hand("27-attention", "secret", patch)
    run_by_hand("28-early-splits", "secret", patch)
    run_by_hand("29-early-claims", "secret", patch)
    run_by_hand("30-early-coder", "secret", patch, runs=["caml-ms", "lstm-ms", "bert-ms"])
    run_by_hand("31-early-served", "secret", patch)
    return paths, ids


def build(root, patch) -> None:
    """Write the pages, as make does at the end."""
    planned = root / "notebooks" / "params" / "secret"
    planned.mkdir(parents=True)
    for file in study.Paths("secret").executed.glob("*.ipynb"):
        (planned / f"{file.stem}.yaml").write_text("profile: secret\n", encoding="utf-8")
    shutil.copy(study.NOTEBOOKS / "studies.yaml", root / "notebooks")
    with patch.context() as there:
        there.setattr(study.places, "NOTEBOOKS", root / "notebooks")
        report.build("secret")
