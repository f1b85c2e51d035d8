"""The report's pages, made from the tables, figures and numbers that the notebooks wrote."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined
from markupsafe import Markup

from drgstudy import cards, headline, metrics, notebook_pages, plots, provenance, tables
from drgstudy.exhibits import Exhibits, glance
from drgstudy.names import name_of
from drgstudy.study import (
    Paths,
    Study,
    StudyError,
    atomic,
    graph,
    least_open,
    locked,
    notebook_of,
    outlook,
    places,
    read_json,
    run_and_exit,
    studies,
    study_of,
    topic,
    write_json,
)  # fmt: skip

ELSEWHERE = {
    "DEVIATIONS.md": "../../DEVIATIONS.md",
    "docs/claims.md": "../../docs/claims.md",
    "benchmarks": "../benchmarks.html",
}
"""What the index links outside its own folder, where it is there."""


def build(profile: str) -> None:
    """Write a profile's report: merged numbers, cards, a page for each executed notebook and for each paper, and the index.

    All pages are self-contained. They name the steps that have not run yet. A study has no page, ``paper-1.html``, before
    its headline has run. The index is written last. While another process writes the same pages, this one waits.

    Raises
    ------
    StudyError
        If the profile does not exist, or if a notebook's numbers were changed or do not fit the files that lie there.
    """
    paths, planned = Paths(profile), places.NOTEBOOKS / "params" / profile
    if not planned.is_dir():
        raise StudyError(f"{planned} does not exist; the profiles are the folders beside it")
    with locked(paths.running / "pages", f"{profile}/pages"):
        _build(profile, paths, planned)


def _build(profile: str, paths: Paths, planned: Path) -> None:
    began = time.time()
    written = [file for file in sorted(paths.report.glob("numbers/[!.]*.json")) if not file.stem.endswith(".made")]
    parts = {file.stem: read_json(file) for file in written if _is_current(file, paths)}
    numbers = {topic(name): part["numbers"] for name, part in parts.items()}
    known = studies()
    begun = [study for study in known if study.topic in numbers]
    if not begun:
        return
    numbers["text"] = {key: value for part in parts.values() for key, value in part["text"].items()}
    numbers["dataset"] = {
        study.topic: least_open([part.get("dataset", {}) for name, part in parts.items() if name in study])
        for study in begun
    }
    costs = {topic(name): part["costs"] for name, part in parts.items() if part["costs"]}
    costs |= {"dataset": numbers["dataset"], "seconds": outlook.times(paths)}
    write_json(paths.report / "numbers.json", numbers)
    write_json(paths.report / "costs.json", costs)
    if "results" in numbers:
        source = numbers["results"]["dataset"]["name"]
        beside = f"MIMIC-IV (published) beside {source}"
        compared = tables.text_numbers(numbers["text"])
        tables.write_table(tables.text_table(compared, source), compared, paths.tables, "text-numbers", beside)
    if "early_cohort" in numbers:
        source = numbers["early_cohort"]["dataset"]["name"]
        beside = f"MIMIC-III (published) beside {source}"
        compared = tables.early_text_numbers(numbers["text"])
        tables.write_table(
            tables.early_text_table(compared, source), compared, paths.tables, "early-text-numbers", beside
        )
    pages = _environment()
    steps = sorted(file.stem for file in planned.glob("*.yaml"))
    of_begun = [step for step in steps if study_of(step) in begun]
    notebooks = [
        notebook_pages.about(file) | {"of_run": _of_run(step, profile)}
        for step in of_begun
        if (file := paths.executed / f"{step}.ipynb").is_file()
    ]
    made = [notebook["name"] for notebook in notebooks]
    released = [step for step in of_begun if step not in made and _is_released(step, profile)]
    idle = {name for name, step in graph.steps(profile).items() if graph.needs_training(step)} if released else set()
    kept = [*released, *(step for step in idle - {*made} if not notebook_pages.run_of(step))]
    listed = [*notebooks, *(about for step in kept if (about := _page_of(step, paths)))]
    listed.sort(key=lambda about: about["name"])
    trained = [notebook for notebook in listed if notebook_pages.run_of(notebook["name"])]
    shown = [notebook for notebook in listed if notebook not in trained] + [notebook_pages.TRAININGS] * bool(trained)
    shared = {"profile": profile, "numbers": numbers, "notebooks": shown}
    for file in set(paths.report.glob("pages/*.html")) - {paths.report / page["page"] for page in [*listed, *shown]}:
        file.unlink()
    code = [Path(__file__), Path(notebook_pages.__file__), *graph.TEMPLATES.iterdir()]
    ours = max(file.stat().st_mtime for file in code)
    for notebook in notebooks:
        page = paths.report / notebook["page"]
        if not page.is_file() or page.stat().st_mtime < max(notebook["made"], ours):
            about = notebook_pages.content(notebook["file"], paths.report, {each["name"] for each in listed})
            about |= {"studies": [numbers[study_of(notebook["name"]).topic]], "steps": of_begun}
            _write(page, pages.get_template("notebook.html").render(shared | about, **notebook))
    if trained:
        about = {"trainings": notebook_pages.compared(profile, listed)}
        about["studies"] = [numbers[study.topic] for study in begun]
        page = pages.get_template("trainings.html").render(shared | about, **notebook_pages.TRAININGS)
        _write(paths.report / notebook_pages.TRAININGS["page"], page)
    outdated = {file.stem for file in written} - set(parts)
    waiting = [step for step in of_begun if step not in {*made, *idle} or step in outdated]
    shared["to_come"] = {
        study.topic: [_of_run(step, profile) or step for step in waiting if step in study] for study in begun
    }
    shared |= {
        "metrics": metrics.METRICS,
        "released": [_of_run(step, profile) for step in released],
        "studies": [numbers[study.topic] for study in begun],
    }
    shared["order"] = plots.in_order(numbers["results"]["models"]) if "results" in numbers else []
    shared |= {
        "begun": [study.topic for study in begun],
        "cards": cards.write(paths, numbers),
        "elsewhere": {words: place for words, place in ELSEWHERE.items() if (paths.report / place).is_file()},
        "explore": (paths.report / "explore.html").is_file(),
        "papers": cards.papers(),
        "parts": list(enumerate(known, 1)),
        "said": headline.said(numbers),
    }
    shown = Exhibits(paths.report, places.NOTEBOOKS, {notebook["name"]: notebook["page"] for notebook in listed})
    papers = [_paper(study, place, shown, pages, shared) for place, study in shared["parts"] if study in begun]
    for file in set(paths.report.glob("paper-*.html")) - set(papers):
        file.unlink()
    index = paths.report / "index.html"
    _write(index, pages.get_template("index.html").render(shared | {"show": shown.refer}))
    os.utime(index, (began, began))  # for make: the page does not show what was made since it was begun


def _environment() -> Environment:
    pages = Environment(loader=PackageLoader("drgstudy"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    pages.filters |= {"count": _count, "glance": glance, "most": _most, "reference": _reference}
    pages.filters["percent"] = lambda share: headline.percent(None if isinstance(share, Undefined) else share)
    return pages


def _count(n: float | None) -> str:
    """A count in print; a small one of credentialed data is masked."""
    return "few" if n is None or isinstance(n, Undefined) else f"{n:,.10g}"


def _most(parts: dict[str, dict], key: str) -> str:
    """The largest part by `key`, and its number; "" if all are masked."""
    known = {name: part[key] for name, part in parts.items() if part.get(key) is not None}
    return f"most of all, {max(known, key=known.get)} ({max(known.values()):,})" if known else ""


def _reference(paper: str) -> Markup:
    """A paper's line of `cards.papers` with its DOI as a link."""
    said, _, doi = paper.rpartition("doi:")
    return Markup('{}<a href="https://doi.org/{}">doi:{}</a>').format(said, doi, doi)


def _paper(study: Study, place: int, shown: Exhibits, pages: Environment, shared: dict) -> Path:
    """Write a study's page, with every table and figure of its notebooks that its template leaves out at the end."""
    file = shown.report / f"paper-{place}.html"
    about = shared | {"show": shown.on(file.name, place), "part": study}
    about["told"] = Markup(pages.get_template(study.part).render(about))
    more = {
        kind: [key for key in sorted(keys - shown.shown(kind)) if (made_by := shown.made_by(key)) and made_by in study]
        for kind, keys in shown.known.items()
    }
    about["further"] = [key for key in more["figures"] if shown.caption(key)]
    _write(file, pages.get_template("paper.html").render(about, more_tables=more["tables"]))
    return file


def _is_released(step: str, profile: str) -> bool:
    """Whether a step trains a run of which the released predictions lie here."""
    return "released" in _record(step, profile)


def _record(step: str, profile: str) -> dict:
    """What is recorded of the run that a step trains; of models of several folds and hours the first; {} if nothing is."""
    run = study_of(step).paths(profile).runs / (notebook_pages.run_of(step) or step)
    return next((read_json(file) for file in sorted(run.rglob("run.json"))), {})


def _of_run(step: str, profile: str) -> str:
    """What the run that a step trains is called; "" if it trains none."""
    run = notebook_pages.run_of(step)
    return run and name_of(_record(step, profile), run)


def _page_of(step: str, paths: Paths) -> dict:
    """As `notebook_pages.about`, of a step that was not executed here, if its page lies in the report; else {}."""
    page = f"pages/{step}.html"
    notebook = notebook_pages.about(notebook_of(places.NOTEBOOKS / "params" / paths.profile / f"{step}.yaml"))
    about = notebook | {"name": step, "page": page, "of_run": _of_run(step, paths.profile)}
    return about if (paths.report / page).is_file() else {}


def _is_current(file: Path, paths: Paths) -> bool:
    """Whether a notebook's numbers were made from what lies there now. If not, make will make them again.

    Raises
    ------
    StudyError
        If make would not do so, for they are newer than the files that they should have been made from.
    """
    record = provenance.record_of(file)
    try:
        provenance.verified(file)
        return True
    except StudyError:
        made_from = read_json(record)["inputs"] if record.is_file() else []
        flows = [study.paths(paths.profile).flow for study in studies()]
        inputs = [*flows, *(file.parent / place for place in made_from)]
        if file.stat().st_mtime >= max((place.stat().st_mtime for place in inputs if place.is_file()), default=0):
            raise
    return False


def _write(path: Path, text: str) -> None:
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_and_exit(build, *sys.argv[1:])
