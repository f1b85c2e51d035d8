"""Which settings each model of both studies should have, chosen on stays kept back from training, with equal budgets.

    python benchmarks/settings.py [--profile demo] [--models NAME …] [--trials N] [--json FILE]

Every model has the same number of trials: first the settings of its parameter file, then random draws from `SEARCH`, in
which only what is listed there varies. Each trial is trained and judged on training stays alone: on all but a share of
them, drawn from each DRG in proportion, which is the same for all models. By a third of that share a model chooses its
epoch, and its top-1 accuracy on the rest is the trial's. The share is larger than the one by which a run chooses its
epoch, for a tenth of the demo's stays can't tell settings apart. No test stay is read. What has been tried is written as
it goes, under the training's key, so a search that is stopped goes on, and one of other stays or code begins anew. The
frozen states are those of run `probe`, which is to be trained first.

The early-DRG study's models are judged in the same way on their first fold, which here takes the part of the share. Its
BERT and LLaMA have the settings found for DRG-LLaMA's study.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np

from drgstudy import models, plan, runs
from drgstudy.study import (
    NOTEBOOKS,
    ROOT,
    notebook_of,
    notebook_parameters,
    progress,
    read_json,
    read_params,
    write_json,
)

SHARE = 0.3
SEARCH = {
    "tfidf": {"strength": [3.0, 10.0, 30.0, 100.0, 300.0], "ngrams": [1, 2, 3], "min_df": [1, 2, 3]},
    "caml": {
        "learning_rate": [3e-4, 1e-3, 3e-3],
        "filters": [128, 256, 512],
        "kernel": [3, 5, 9],
        "dropout": [0.2, 0.5],
    },
    "bert": {
        "learning_rate": [2e-4, 5e-4, 1e-3],
        "epochs": [2.5, 4.0, 6.0],
        "dropout": [0.0, 0.1],
        "warmup": [0.1, 0.2],
    },
    "probe": {"probe_strength": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]},
    "llama": {
        "learning_rate": [5e-4, 1e-3, 2e-3],
        "epochs": [1.25, 2.0, 3.0],
        "probe_strength": [0.0003, 0.001, 0.003],
        "batch_size": [4, 8, 16],
    },
    "lstm-ms": {
        "learning_rate": [3e-4, 1e-3, 3e-3],
        "hidden": [64, 128, 256],
        "dropout": [0.1, 0.3, 0.5],
        "batch_size": [32, 64],
    },
}
SEARCH["caml-ms"] = SEARCH["caml"]


def trials(run: str, n: int) -> list[dict]:
    """What differs from the run's own settings in each of its trials; in the first nothing does."""
    rng, drawn = np.random.default_rng([7, *run.encode()]), [{}]
    most = int(np.prod([len(values) for values in SEARCH[run].values()]))
    while len(drawn) < min(n, most + 1):
        changed = {name: values[rng.integers(len(values))] for name, values in SEARCH[run].items()}
        drawn += [changed] if changed not in drawn else []
    return drawn


def training_of(profile: str, run: str, changed: dict) -> runs.Training:
    """The training of a run with some of its settings changed, on all training stays but the share."""
    (file,) = (NOTEBOOKS / "params" / profile).glob(f"*-train-{run}.yaml")
    values = notebook_parameters(notebook_of(file)) | read_params(file)
    values["settings"] |= changed
    if "folds" in values:
        return plan.of_values(values | {"folds": [1]})[0]
    if values["model"] == "llama":
        values["settings"] |= {"features_of": "probe", "cuts": []}
    return plan.of_values(values | {"kept_back": SHARE})[0]


def judged(training: runs.Training, changed: dict, tried: list[dict]) -> dict:
    """Do a training, unless it is among those tried: its accuracy, and the seconds that it took."""
    if done := [trial for trial in tried if trial["key"] == training.key]:
        return done[0]
    rows, y, (asked, true) = training.learn()
    choosing = np.random.default_rng(0).permutation(len(true)) < len(true) / 3
    some = asked.__getitem__ if isinstance(asked, np.ndarray) else lambda mask: list(itertools.compress(asked, mask))
    judges, asked = some(choosing), some(~choosing)
    start, place = time.perf_counter(), training.folder.parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".trial-") as folder:
        about = training.about
        model = models.build(about["model"], about["settings"], training.outputs, Path(folder), about["seed"])
        model.fit(rows, y, (judges, true[choosing]))
        right = model.predict(asked).argmax(1) == true[~choosing]
    return {
        "changed": changed,
        "key": training.key,
        "accuracy": float(right.mean()),
        "stays": len(right),
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Search, and print each model's trials, the best first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--models", nargs="+", default=list(SEARCH), choices=list(SEARCH))
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--json", type=Path, default=ROOT / "reports" / "settings.json")
    asked = parser.parse_args()
    tried, made = read_json(asked.json) if asked.json.is_file() else {}, {}
    for run in asked.models:
        for changed in progress(trials(run, asked.trials), desc=run, unit="trial"):
            trial = judged(training_of(asked.profile, run, changed), changed, tried.get(run, []))
            made[run] = [*made.get(run, []), trial]
            write_json(asked.json, tried | made)
        for trial in sorted(made[run], key=lambda trial: -trial["accuracy"]):
            print(
                f"{run}  {trial['accuracy']:.3f}  {trial['seconds']:6.0f} s  {trial['changed'] or 'as it is'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
