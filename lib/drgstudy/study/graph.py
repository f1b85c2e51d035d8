"""What each step of a study depends on: found in the code, and written as an include file for make.

A notebook depends on what its first cell says it *reads*, on the modules that it imports directly or not, on its
parameter file and on the files that this one names by `like`. A module depends on the files of ``data/reference`` that
it names. Nobody keeps a list by hand: ``python -m drgstudy.study.graph demo FILE`` writes the rules, as a compiler's
``-MMD`` does.

The code of a training also has a fingerprint here, of what it does and not of how it is laid out (`fingerprints`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from drgstudy.study import places
from drgstudy.study.files import atomic
from drgstudy.study.parameters import base_of, notebook_of, notebook_parameters, own_params, read_params
from drgstudy.study.problems import StudyError, run_and_exit
from drgstudy.study.registry import studies

LIBRARY = Path(__file__).parents[1]
TEMPLATES = LIBRARY / "templates"
INTERFACE = re.compile(r"\*Reads\*(.*?)\*Writes\*(.*?)(?:\n\n|\Z)", re.DOTALL)


# --- code -------------------------------------------------------------------------------------------------------------
@functools.cache
def _tree(file: Path) -> ast.Module:
    """The syntax tree of a module, or of a notebook's code cells."""
    try:
        return ast.parse(notebook_code(file) if file.suffix == ".ipynb" else file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise StudyError(f"{file} is not valid Python: {error.msg}, line {error.lineno} of its code") from None


def notebook_code(notebook: Path) -> str:
    """The code of a notebook's cells, without IPython's own commands (lines that begin with % or !)."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return _python("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def _python(code: str) -> str:
    """Code of a notebook without IPython's own commands."""
    return re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE)


def writes(code: str) -> list[tuple[str, str]]:
    """The tables and figures that code writes into a report, in its order.

    Returns
    -------
    list of (kind, name)
        Kind is "tables" or "figures". The name is the first text that stands in a call of ``write_table`` or ``save``; what
        an f-string fills in is a "*".
    """
    calls = [node for node in ast.walk(ast.parse(_python(code))) if isinstance(node, ast.Call)]
    found = []
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        kind = {"save": "figures", "write_table": "tables"}.get(getattr(call.func, "attr", ""))
        if kind and (names := [name for name in map(_text, call.args) if name]):
            found.append((kind, names[0]))
    return found


def _text(node: ast.expr) -> str:
    """A text of the code; "" if it is none, or nothing of it is known."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value if isinstance(part, ast.Constant) else "*" for part in parts]
    known = all(isinstance(text, str) for text in texts) and texts != ["*"]
    return "".join(texts) if known else ""


def module_file(module: str, library: Path = LIBRARY) -> Path | None:
    """The file of a module of the library, named without "drgstudy." ("models.llama"); None if there is none."""
    place = library.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


@functools.cache
def imports(file: Path, library: Path = LIBRARY) -> frozenset[str]:
    """The library's modules that a file imports, functions included, and their packages, named as for `module_file`."""
    named = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["drgstudy", *file.relative_to(library).parts[: -node.level]] if node.level else []
            source = ".".join([*package, *filter(None, [node.module])])
            named |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    ours = {name.removeprefix("drgstudy.") for name in named if name.startswith("drgstudy.")}
    packages = {package for name in ours for package in (name.rpartition(".")[0],) if package}
    return frozenset(name for name in ours | packages if module_file(name, library))


def closure(modules: Iterable[str], library: Path = LIBRARY) -> set[str]:
    """These modules, and all modules of the library that they import, directly or not."""
    found, waiting = set(), set(modules)
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= imports(module_file(module, library), library) - found
    return found


def files_of(modules: Iterable[str]) -> set[Path]:
    """The files on which code that imports these modules depends: their source, and the reference data and templates it names."""
    code = {module_file(module) for module in closure(modules)} | {LIBRARY / "__init__.py"}
    return code.union(*map(_data_named, code))


@functools.cache
def _data_named(file: Path) -> frozenset[Path]:
    """The files of ``data/reference``, and the templates, that a module or notebook names in a string."""
    texts = {node.value for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant)}
    facts = {data for data in places.REFERENCE.rglob("*") if data.name in texts and data.is_file()}
    return frozenset(facts.union(*(_parts(template) for template in TEMPLATES.iterdir() if template.name in texts)))


def _parts(template: Path) -> set[Path]:
    """A template, and those that it extends or includes."""
    text = template.read_text(encoding="utf-8")
    return {template}.union(*(_parts(other) for other in TEMPLATES.iterdir() if f'"{other.name}" %}}' in text))


# --- the fingerprint of what code does --------------------------------------------------------------------------------
class _Bare(ast.NodeTransformer):
    """Removes what no result depends on: docstrings, messages, bars, help and limits of settings, our own imports."""

    def visit_Expr(self, node):
        call = node.value.func if isinstance(node.value, ast.Call) else None
        on_bar = isinstance(call, ast.Attribute) and getattr(call.value, "id", "") == "bar"
        said = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if on_bar or said else self.generic_visit(node)

    def visit_Call(self, node):
        name = _called(node)
        if name in ("setting", "progress") and node.args:
            return self.visit(node.args[0])
        if name == "StudyError":
            return node.func
        return self.generic_visit(node)

    def visit_With(self, node):
        node.items = [item for item in node.items if _called(item.context_expr) != "progress"]
        self.generic_visit(node)
        return node if node.items else node.body

    def visit_ImportFrom(self, node):
        return None if node.level or node.module.startswith("drgstudy") else node


def _called(node) -> str:
    """The name of the function that is called; "" for anything but a call by a plain name."""
    return getattr(getattr(node, "func", None), "id", "")


def _plain(node):
    """A syntax tree as nested lists and strings, without empty fields: so it is the same in all versions of Python."""
    if isinstance(node, ast.AST):
        parts = ((name, _plain(value)) for name, value in ast.iter_fields(node))
        return [type(node).__name__, *([name, value] for name, value in parts if value not in ("None", []))]
    return [_plain(each) for each in node] if isinstance(node, list) else repr(node)


def fingerprints(places: Iterable[str], library: Path = LIBRARY) -> dict[str, str]:
    """A fingerprint of what the code in each place does: 16 hexadecimal digits, equal however the code is laid out.

    Parameters
    ----------
    places : iterable of str
        Modules, named as for `module_file`, or classes and functions in them ("labels.TwoLabels.encode").
    """
    return {place: _fingerprint(place, library) for place in sorted(places)}


def _fingerprint(place: str, library: Path) -> str:
    module, inside = place, []
    while not (file := module_file(module, library)):
        module, _, name = module.rpartition(".")
        inside.insert(0, name)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for name in inside:
        tree = next(node for node in tree.body if getattr(node, "name", "") == name)
    return hashlib.sha256(json.dumps(_plain(_Bare().visit(tree))).encode()).hexdigest()[:16]


# --- steps ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """One run of a notebook: a parameter file, and what the notebook says it reads and writes.

    Attributes
    ----------
    params : Path
    values : dict
        All parameters, the notebook's defaults included.
    reads, writes : list of str
        Paths, or patterns of paths, of the notebook's first cell: from ``data/<profile>`` or the repository's root.
    """

    params: Path
    values: dict
    reads: list[str]
    writes: list[str]

    @property
    def name(self) -> str:
        return self.params.stem

    @property
    def is_training(self) -> bool:
        return {"run", "model"} <= self.values.keys()

    def files(self) -> set[Path]:
        """What it reads that no step writes: notebook, parameter files, code, reference data, the user's files."""
        notebook, files = notebook_of(self.params), {self.params}
        params = self.params
        while like := own_params(params).get("like"):
            files.add(params := base_of(params, like))
        modules = imports(notebook) | ({f"models.{self.values['model']}"} if self.is_training else set())
        if missing := [module for module in modules if not module_file(module)]:
            raise StudyError(f"{self.params}: parameter model: there is no {missing[0].replace('.', '/')}.py")
        return {notebook} | files | files_of(modules) | _data_named(notebook) | self._users_files()

    def _users_files(self) -> set[Path]:
        """Files that its parameters or settings name, such as a review sheet, a note or word vectors."""
        values = [*self.values.values(), *self.values.get("settings", {}).values()]
        named = [os.path.expanduser(value) for value in values if isinstance(value, str) and value]
        return {
            folder / file for folder in (places.ROOT, places.NOTEBOOKS) for file in named if (folder / file).is_file()
        }


def steps(profile: str) -> dict[str, Step]:
    """The steps of a profile by name, one for each parameter file.

    Raises
    ------
    StudyError
        If there is no such profile, a notebook does not say what it reads and writes, or as `study.read_params`.
    """
    folder = places.NOTEBOOKS / "params" / profile
    if not folder.is_dir():
        raise StudyError(f"PROFILE={profile}: there is no folder {folder}; the profiles are the folders beside it")
    return {params.stem: _step(params) for params in sorted(folder.glob("*.yaml"))}


def _step(params: Path) -> Step:
    notebook = notebook_of(params)
    values = notebook_parameters(notebook) | read_params(params)
    first = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
    if not (said := INTERFACE.search(first)):
        raise StudyError(f"{notebook}: its first cell does not say what it *Reads* and what it *Writes*")
    reads, writes = ([place for name in re.findall(r"`([^`\s]+[./][^`\s]*)`", part) for place in _filled(name, values)]
                     for part in said.groups())  # fmt: skip
    return Step(params, values, reads, writes)


def _filled(place: str, values: dict) -> list[str]:
    """A path with its ``<parameter>`` marks filled in: one path for each value of a list, none if a value is empty."""
    for name in re.findall(r"<(\w+)>", place):
        value = values.get(name, values.get("settings", {}).get(name, ""))
        each = value if isinstance(value, list) else [value]
        return [done for one in each if one for done in _filled(place.replace(f"<{name}>", str(one)), values)]
    return [place]


def needed(step: Step, among: dict[str, Step]) -> tuple[set[str], set[Path]]:
    """What a step waits for because its notebook reads it: names of other steps, and files that no other step writes.

    Raises
    ------
    StudyError
        If the step reads a run that no parameter file of its profile trains.
    """
    names, files = set(), set()
    for place in step.reads:
        writers = {other.name for other in among.values() if any(fnmatch(has, place) for has in other.writes)}
        found = [
            file for root in (places.ROOT / "data" / step.params.parent.name, places.ROOT) for file in root.glob(place)
        ]
        if not writers and "runs/" in place:
            raise StudyError(f"{step.params}: no parameter file beside it trains the run {Path(place).name!r}")
        names |= writers - {step.name}
        files |= set() if writers - {step.name} else {file for file in found if file.is_file()}
    return names, files


def wanted(among: dict[str, Step], goal: str) -> list[str]:
    """The steps that a goal of make asks for, in the order in which make shall run them.

    A study's headline and what it waits for come first, without trainings. The other analyses follow, those first that
    wait for fewer further trainings. The trainings come last: make does them before, as far as an analysis needs them.

    Parameters
    ----------
    among : dict of str to Step
        As `steps` returns them.
    goal : str
        A study's goal; "headline" or "train", both of the first study; or an executed notebook.
    """
    known = {study.goal: study for study in studies()}
    study = known.get(goal) or (studies()[0] if goal in ("headline", "train") else None)
    if not study:
        return [name for name in among if goal.endswith(f"/{name}.ipynb")]
    ours = [name for name in among if name in study]
    trained = [name for name in ours if among[name].is_training]
    waited_for = waits_for(among, [study.headline])
    first = [name for name in ours if name in waited_for and name not in trained]
    before = trainings(among, first)
    later = [name for name in ours if name not in first and name not in trained]
    later.sort(key=lambda name: (len(trainings(among, [name]) - before), name))
    return {"headline": first, "train": trained}.get(goal, [*first, *later, *trained])


def trainings(among: dict[str, Step], names: Iterable[str]) -> set[str]:
    """The trainings among these steps and all that they wait for, directly or not."""
    return {name for name in waits_for(among, names) if among[name].is_training}


def waits_for(among: dict[str, Step], names: Iterable[str]) -> set[str]:
    """These steps, if the profile has them, and all that they wait for, directly or not."""
    found, waiting = set(), {name for name in names if name in among}
    while waiting:
        found.add(name := waiting.pop())
        waiting |= needed(among[name], among)[0] - found
    return found


# --- the include file -------------------------------------------------------------------------------------------------
def needs_training(step: Step) -> bool:
    """Whether a step trains a model, or asks a trained one."""
    return step.is_training or "models.load(" in notebook_code(notebook_of(step.params))


def rules(profile: str, trained: str = "") -> str:
    """The graph of a profile as rules for make: what each executed notebook waits for, and the steps of each goal.

    If `trained` is "figures", no training has a step: the others wait for the records of the runs that lie there.
    """
    among = steps(profile)
    skipped = {name for name, step in among.items() if trained == "figures" and needs_training(step)}
    done = {name: f"data/{profile}/executed/{name}.ipynb" for name in among}
    lines = [f"# What the steps of profile {profile} read, by drgstudy.study.graph; make writes it again each time."]
    told = {name for name, step in among.items() if "write_numbers" in notebook_code(notebook_of(step.params))}
    training = {name for name, step in among.items() if step.is_training}
    goals = [study.goal for study in studies()]
    lists = {f"steps_of_{goal}": wanted(among, goal) for goal in ("headline", "train", *goals)}
    lists |= {"steps": among, "trainings": sorted(training), "shown": sorted(told | training)}
    lists["cohorts"] = sorted(waits_for(among, training) - training)
    lines += [
        f"{name} := {' '.join(done[each] for each in names if each not in skipped)}" for name, names in lists.items()
    ]
    lines += [f"goals := {' '.join(goals)}", *(f"{goal}: $(steps_of_{goal})" for goal in goals[1:])]
    for name, step in among.items():
        if name in skipped:
            continue
        others, files = needed(step, among)
        for run in others & skipped:
            folders = [places.ROOT / "data" / profile / place for place in among[run].writes if "runs/" in place]
            files |= {record for folder in folders for record in folder.rglob("run.json")}
        others -= skipped
        before = [done[other] for other in sorted(others)] + sorted(map(_target, files | step.files()))
        said = places.ROOT / "reports" / profile / "numbers" / f"{name}.json"
        if name in told and not said.is_file():
            before.append("FORCE")  # an analysis whose numbers were removed from the report runs again
        lines.append(f"{done[name]}: {' '.join(before)}")
    pages = files_of({"report"}) | set(TEMPLATES.iterdir()) | {places.NOTEBOOKS / "studies.yaml"}
    lines.append(f"reports/{profile}/index.html: {' '.join(sorted(map(_target, pages)))}")
    return "\n".join(lines) + "\n"


def _target(file: Path) -> str:
    place = str(file.relative_to(places.ROOT) if file.is_relative_to(places.ROOT) else file)
    return re.sub(r"([\s#$])", lambda sign: "$$" if sign[1] == "$" else f"\\{sign[1]}", place)


def write(profile: str, file: str, trained: str = "") -> None:
    """Write the rules of a profile, unless the file holds them already: make starts over if an include file changes."""
    text, place = rules(profile, trained), Path(file)
    if not place.is_file() or place.read_text(encoding="utf-8") != text:
        with atomic(place) as beside:
            beside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_and_exit(write, *sys.argv[1:])
