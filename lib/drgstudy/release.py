"""Released predictions: what trainings left that tables, figures and pages are made from, so that nobody must train again.

Under ``reports/<profile>/released/`` lies, as under ``data/<profile>/``, of each run its predictions and its ``run.json``,
and what the models said of the words of the stays that notebooks 12 and 27 show (``explained/``). git holds it. At the hours
of which no table needs the AUC, only the `TOP` highest logits of each stay are released.

`publish` puts there what lies under ``data/``. `place` does the contrary, where no run lies yet: such a run is marked as
released in its ``run.json``. A released run serves every analysis. It is no training that was done here, so make trains
it when it is asked for the report, unless it is kept by name (``make keep RUN=llama``).
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np

from drgstudy import plan, runs
from drgstudy.predictions import read_predictions, read_run_json, write_predictions
from drgstudy.study import Paths, StudyError, atomic, graph, read_json, run_and_exit, source_of, study_of, write_json

MOST = 40 * 2**20
"""Bytes that a profile's release may have, for every clone carries it."""
TOP, WHOLE_AT = 20, (24, 48)
"""How many logits of a stay are released at hours other than these."""


def publish(profile: str) -> None:
    """Release the runs of a profile that have been trained; what is released of other runs of the profile stays.

    Raises
    ------
    StudyError
        If the data are not synthetic, or the release would be larger than `MOST`.
    """
    left, waiting = set(), []
    for step, paths in _trainings(profile):
        if (kind := source_of(paths)["kind"]) != "synthetic":
            raise StudyError(f"the data of profile {profile} are {kind}: predictions for their stays are not released")
        for training in plan.of_params(step.params):
            record, why = runs.standing(training)
            files = [folder / each for folder in training.asked for each in (training.result, "run.json")]
            if record is None and not _is_released(training):
                waiting.append(f"  {training.folder.relative_to(paths.data)}: {why}")
            elif not _is_released(training):
                for folder in training.asked:
                    _release(folder, _released(folder, paths), training.result)
            left |= {file for file in (_released(file, paths) for file in files) if file.is_file()}
        left |= {_copied(file, _released(file, paths)) for file in paths.explained.glob("*.json")}
    folder = Paths(profile).released
    for file in {file for file in folder.rglob("*") if file.is_file()} - left:
        file.unlink()
    if (size := sum(file.stat().st_size for file in left)) > MOST:
        raise StudyError(f"{folder} has {size / 2**20:.0f} MB; at most {MOST / 2**20:.0f} MB are released")
    print(f"{folder}: {len(left)} files, {size / 2**20:.1f} MB; not trained, and so not released: {len(waiting)}", *waiting,
          sep="\n", file=sys.stderr)  # fmt: skip


def _release(folder: Path, target: Path, result: str) -> None:
    """Copy a run's result and its record, or write what is released of them (`TOP`)."""
    if folder.name.startswith("hour") and int(folder.name.removeprefix("hour")) not in WHOLE_AT:
        made = read_predictions(folder)
        low = np.partition(made.logits, -TOP, axis=1)[:, -TOP, None] if made.logits.shape[1] > TOP else -np.inf
        logits = np.where(made.logits >= low, made.logits, np.finfo(np.float16).min)
        write_predictions(target, dataclasses.replace(made, logits=logits, run=made.run | {"top": TOP}))
        trained = {part: made.run[part] for part in ("versions", "model_files") if part in made.run}
        write_json(target / "run.json", read_json(target / "run.json") | trained)
    else:
        for name in (result, "run.json"):
            _copied(folder / name, target / name)


def place(profile: str) -> None:
    """Lay the released runs of a profile where no run lies yet, so that all analyses can be made without training.

    Raises
    ------
    StudyError
        If a run neither lies here nor is released; or if one was released under other settings, or for other stays, than
        the profile now has.
    """
    missing, taken = [], 0
    for step, paths in _trainings(profile):
        for training in plan.of_params(step.params):
            if not all((folder / "run.json").is_file() for folder in training.asked) or _is_released(training):
                missing += [] if _placed(training, paths) else [str(training.folder.relative_to(paths.data))]
                taken += 1
        for file in _released(paths.explained, paths).glob("*.json"):
            if not (paths.explained / file.name).is_file():
                _copied(file, paths.explained / file.name)
    if missing:
        raise StudyError(
            f"profile {profile}: neither trained nor released: {', '.join(missing)}; make report PROFILE={profile} trains them"
        )
    print(f"{profile}: released runs are used for {taken} trainings; the others lie here already", file=sys.stderr)


def _trainings(profile: str) -> list[tuple[graph.Step, Paths]]:
    """The profile's steps that train, each with the paths of its study."""
    steps = graph.steps(profile).items()
    return [(step, study_of(name).paths(profile)) for name, step in steps if step.is_training]


def _placed(training: runs.Training, paths: Paths) -> bool:
    """Lay one training's results where it would have left them, unless the same lie there; False if none is released."""
    for folder in training.asked:
        released = _released(folder, paths)
        if not (released / "run.json").is_file():
            return False
        record = read_run_json(released, training.result)
        said = runs.differences(record["key"], training.key)
        if other := [why for part, why in said.items() if part != "code"]:
            raise StudyError(f"run {record['run']} was released for something else: {'; '.join(other)}; train it")
        here = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
        if here.get("predictions") != record["predictions"]:
            _copied(released / training.result, folder / training.result)
            write_json(folder / "run.json", record | {"released": True})
    return True


def _is_released(training: runs.Training) -> bool:
    """Whether what lies there came from a release."""
    record = next(iter(training.asked)) / "run.json"
    return record.is_file() and "released" in read_json(record)


def _released(file: Path, paths: Paths) -> Path:
    return paths.released / file.relative_to(paths.of_profile)


def _copied(source: Path, target: Path) -> Path:
    """Copy a file, unless it is there; returns the target."""
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        with atomic(target) as beside:
            shutil.copyfile(source, beside)
    return target


if __name__ == "__main__":
    run_and_exit({"publish": publish, "place": place}[sys.argv[1]], *sys.argv[2:])
