"""Which runs make will train, and why; and keeping a run of which only the code has changed."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from drgstudy import mimic, models, runs
from drgstudy.predictions import check_model, read_run_json
from drgstudy.study import (
    Paths,
    StudyError,
    graph,
    notebook_of,
    notebook_parameters,
    outlook,
    places,
    progress,
    read_json,
    read_params,
    run_and_exit,
    write_json,
)  # fmt: skip

FILES = {"review", "title_table", "hold_out_ms", "hold_out_apr"}
"""Parameters that name a file which somebody made."""


def of_params(params: Path) -> list[runs.Training]:
    """The trainings of a parameter file of notebook 05 or 23."""
    return of_values(notebook_parameters(notebook_of(params)) | read_params(params))


def of_values(values: dict) -> list[runs.Training]:
    """The trainings that the parameters of notebook 05 or 23 ask for."""
    if "system" in values:
        return runs.of_icu_stays(Paths(values["profile"], "early"), **_taken(runs.of_icu_stays, values))
    return [runs.of_stays(Paths(values["profile"]), **_taken(runs.of_stays, values))]


def _taken(function, values: dict) -> dict:
    """Those of a notebook's parameters that a function takes."""
    return {name: values[name] for name in inspect.signature(function).parameters if name in values}


def plan(profile: str, goals: str = "", coming: str = "") -> None:
    """Print which runs make will train for its goals, why, and how long each took last time.

    Parameters
    ----------
    profile : str
    goals : str
        As they are typed, such as "report"; if empty, all that the profile has.
    coming : str
        Goals that make will turn to afterwards.

    Raises
    ------
    StudyError
        If a training, or a step that reads a table or file which its parameters name, would fail by what the parameter
        files say, now or for what is coming: better now than after days of training.
    """
    steps = graph.steps(profile)

    def needed(goals: str) -> set[str]:
        return graph.waits_for(steps, [name for goal in goals.split() for name in graph.wanted(steps, goal)])

    asked, due, finished, faults = needed(goals) or {*steps}, [], set(), {}
    for name in sorted(graph.trainings(steps, asked | needed(coming))):
        try:
            trainings = of_params(steps[name].params)
            whys = dict.fromkeys(why for record, why in map(runs.standing, trainings) if record is None)
        except StudyError as error:
            trainings, whys = [], {str(error): None}
            if name in asked:  # the cohort of what is coming need not be there yet
                faults.setdefault(str(error), []).append(name)
        if not whys:
            finished.add(name)
        elif name in asked:
            run, seconds = steps[name].values["run"], sum(map(_seconds, trainings))
            took = f" (last time {seconds // 60:.0f} min {seconds % 60:.0f} s)" if seconds else ""
            code_alone = all(why.startswith(runs.CODE) and ";" not in why for why in whys)
            keeps = f"; `make keep RUN={run} PROFILE={profile}` keeps it" if code_alone else ""
            due.append(f"  {run}: {'; '.join(whys)}{took}{keeps}")
    outlook.taken_as_they_are(finished)
    said = f"{profile}: to be trained: {len(due)}; there already, and taken as they are: {len(asked & finished)}"
    print(said, *due, sep="\n", file=sys.stderr)
    if due:
        check([steps[name] for name in sorted((asked | needed(coming)) - finished)], faults)


def check(steps: list[graph.Step], faults: dict[str, list[str]] | None = None) -> None:
    """Raise StudyError if one of these steps would fail by what its parameters say, whatever the data.

    `faults` are what is known already: names of steps by what is wrong with them.
    """
    faults = faults or {}
    for step in progress(steps, desc="checking settings, fetching bases", delay=5):
        try:
            _check(step.values)
        except StudyError as error:
            faults.setdefault(str(error), []).append(step.name)
    if faults:
        said = (f"{', '.join(names)}: {fault}" for fault, names in faults.items())
        raise StudyError("nothing is trained yet, for later this would fail:\n  " + "\n  ".join(said))


def _check(values: dict) -> None:
    if "model" in values:
        if "system" in values:
            runs.refuse_impossible(**_taken(runs.refuse_impossible, values))
        models.check(values["model"], values["settings"], values.get("labels") == "two")
    for table in mimic.MIMIC_III if values.get("mimic3") else ():
        mimic.find(Path(values["mimic3"]).expanduser(), table.upper())
    for name in FILES & values.keys():
        if values[name] and not (places.ROOT / Path(values[name]).expanduser()).is_file():
            raise StudyError(f"parameter {name}: {values[name]!r} is not a file; paths begin at the repository's root")


def _seconds(training: runs.Training) -> float:
    """How long a training took when it was last done; 0 if it never was."""
    record = next(reversed(training.asked)) / "run.json"
    return read_json(record).get("cost", {}).get("fit_seconds", 0.0) if record.is_file() else 0.0


def keep(profile: str, run: str = "") -> None:
    """Keep a run although code that shapes it has changed since: take it as if the present code had trained it.

    Its ``run.json`` and its page say so.

    Raises
    ------
    StudyError
        If there is no such run, its training was not finished, or its key differs in anything but code.
    """
    found = [
        file for file in (places.NOTEBOOKS / "params" / profile).glob("*.yaml") if file.stem.endswith(f"-train-{run}")
    ]
    if not run or not found:
        raise StudyError(f"RUN={run}: no parameter file of profile {profile} trains it; name one, as in RUN=llama")
    trainings = [training for file in found for training in of_params(file)]
    records = {place: read_run_json(place, each.result) for each in trainings for place in each.asked}
    for training in trainings:
        check_model(training.folder, records[next(reversed(training.asked))])
        for place in training.asked:
            if "key" not in records[place]:
                raise StudyError(f"run {run} can't be kept, for its record has no key; train it again")
            said = runs.differences(records[place]["key"], training.key)
            if other := [why for part, why in said.items() if part != "code"]:
                raise StudyError(f"run {run} can't be kept, for not its code alone has changed: {'; '.join(other)}")
    for training in trainings:
        for place in training.asked:
            record = records[place]
            new = runs.changed_places(record["key"]["code"], training.key["code"])
            kept = sorted({*record.get("kept", []), *new})
            now = record | training.about | {"key": training.key}
            write_json(place / "run.json", now | ({"kept": kept} if kept or "released" in record else {}))
    print(f"{run} is kept; `make` takes it as it is, and its page says so")


if __name__ == "__main__":
    run_and_exit({"plan": plan, "keep": keep, "outlook": outlook.announce}[sys.argv[1]], *sys.argv[2:])
