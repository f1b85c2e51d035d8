"""Parameter files: strict YAML over a notebook's own parameters, and over the file that one is like."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

from drgstudy.study import places
from drgstudy.study.files import read_text
from drgstudy.study.problems import StudyError, one_line, short_repr
from drgstudy.study.settings import checked_value

LONGEST_PARAMS = 100_000  # characters; ours have some 800


def notebook_of(params: Path) -> Path:
    """The notebook that a parameter file belongs to: the one whose name begins the file's name."""
    fitting = [
        n for n in places.NOTEBOOKS.glob("*.ipynb") if params.stem == n.stem or params.stem.startswith(n.stem + "-")
    ]
    if not fitting:
        raise StudyError(f"{params}: no notebook's name begins this file's name; see {places.NOTEBOOKS.name}/*.ipynb")
    return max(fitting, key=lambda n: len(n.stem))


def notebook_parameters(notebook: Path, text: str = "") -> dict:
    """Names and defaults in the notebook's cell tagged ``parameters``: plain literals, read without running it.

    `text` is read instead of the file, if it is given.
    """
    cells = json.loads(text or notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def plain_yaml(text: str):
    """The value of a YAML text without what a parameter file has no use for: anchors, aliases, tags, and keys said twice.

    Aliases let a text of a few lines grow to gigabytes, and of two equal keys PyYAML would silently take the last.

    Raises
    ------
    ValueError
        With one line that says why it isn't such a text.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent, index):
            event = self.peek_event()
            if event.anchor or getattr(event, "tag", None):
                raise yaml.MarkedYAMLError(problem="anchor, alias or tag", problem_mark=event.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node, deep=False):
            values = super().construct_mapping(node, deep)
            if len(values) < len(node.value):
                raise yaml.MarkedYAMLError(problem="a key occurs twice", problem_mark=node.start_mark)
            return values

    try:
        values = yaml.load(text, Plain)
        repr(values)  # Python refuses to write numbers of thousands of digits
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(one_line(error)) from None
    return values


def read_params(params: Path, heirs: tuple[Path, ...] = ()) -> dict:
    """The values of one parameter file, over those of the file that its `like` names, checked against its notebook.

    Parameters
    ----------
    params : Path
    heirs : tuple of Path
        The files that are, one after the other, like this one: none of them can be its base again.

    Returns
    -------
    dict
        What the files say; the notebook's own defaults are left out.

    Raises
    ------
    StudyError
        If a file is no flat YAML mapping, names an unknown parameter, gives a value of the wrong type, or is like a
        file that there is not, that belongs to another notebook, or that is like itself.
    """
    values, notebook = own_params(params), notebook_of(params)
    if like := values.get("like"):
        base = base_of(params, like)
        if base in (*heirs, params):
            raise StudyError(f"{params}: parameter like: {like!r} is, by way of others, like this file itself")
        values = over(read_params(base, (*heirs, params)), values)
    if "run" in values and "model" in values and params.stem != f"{notebook.stem}-{values['run']}":
        raise StudyError(
            f"{params}: parameter run is {short_repr(values['run'])}, but the file's name says another run"
        )
    return values


def own_params(params: Path) -> dict:
    """What one parameter file says itself, checked as `read_params` does."""
    text = read_text(params, f"does not exist; the profiles are the folders of {places.NOTEBOOKS / 'params'}")
    if len(text) > LONGEST_PARAMS:
        raise StudyError(f"{params} has {len(text):,} characters; expected some lines of the form `name: value`")
    try:
        values = plain_yaml(text)
    except ValueError as error:
        raise StudyError(f"{params} is not valid YAML: {error}; expected lines of the form `name: value`") from None
    if not isinstance(values, dict):
        raise StudyError(f"{params}: expected lines of the form `name: value`")
    defaults = notebook_parameters(notebook_of(params))
    for name, value in values.items():
        if name not in defaults:
            raise StudyError(
                f"{params}: unknown parameter {short_repr(name)}; the parameters are {', '.join(defaults)}"
            )
        values[name] = value = checked_value(f"{params}: parameter {name}", value, defaults[name])
        if isinstance(value, int | float) and value < 0 and name != "hours":  # which count from ICU admission
            raise StudyError(f"{params}: parameter {name}: expected 0 or more, got {value}")
    if values.get("profile") != params.parent.name:
        raise StudyError(f"{params}: parameter profile must be {params.parent.name!r}, the name of the file's folder")
    if values.get("seed", 0) >= 2**31:  # numpy's old generator, which transformers seeds, takes little more
        raise StudyError(f"{params}: parameter seed: expected less than 2**31, got {values['seed']}")
    return values


def base_of(params: Path, like: str) -> Path:
    """The parameter file that `like` names in the file `params`: "05-train-llama", or "paper/05-train-llama".

    Raises
    ------
    StudyError
        If there is no such file, or it belongs to another notebook.
    """
    base = params.parent.joinpath(*[".."] * like.count("/"), f"{like}.yaml").resolve()
    fits = re.fullmatch(r"([\w-]+/)?[\w.-]+", like) and base.is_file()
    if not fits or notebook_of(base) != notebook_of(params):
        raise StudyError(
            f"{params}: parameter like: {short_repr(like)} is not a parameter file of {notebook_of(params).name}; name one of "
            "the same folder (05-train-llama), or one of another profile (paper/05-train-llama)"
        )
    return base


def over(base: dict, values: dict) -> dict:
    """`values` over those of `base`; of a parameter that is a dict, such as settings, key by key."""
    both = {name: base[name] | value for name, value in values.items() if isinstance(base.get(name), dict)}
    return base | values | both


def resolved(notebook: str, values: dict) -> dict:
    """The parameters of a notebook that runs by hand, or by papermill alone, over those that its `like` names.

    Each notebook calls this after its parameters, and takes what it returns. What papermill has set is known from the
    cell in which it did. By hand, what still has the notebook's default counts as not set; so that nobody is surprised,
    it is printed what is taken from elsewhere. A step that make runs is like no other any more: `run_notebook` sets all.

    Parameters
    ----------
    notebook : str
        Its name, "05-train".
    values : dict
        Its variables.

    Returns
    -------
    dict
        The parameters' values; nothing where `like` is empty.
    """
    if not (like := values["like"]):
        return {}
    defaults = _defaults(places.NOTEBOOKS / f"{notebook}.ipynb")
    by_hand = {name for name, default in defaults.items() if values[name] != default}
    given = {name: values[name] for name in {*(_set_by_papermill() or by_hand), "profile"} & defaults.keys()}
    params = places.NOTEBOOKS / "params" / values["profile"] / f"{notebook}.yaml"
    base = read_params(base_of(params, like))
    taken = {name: value for name, value in base.items() if name not in given}
    print(f"taken from {like}: " + ", ".join(f"{name} = {value!r}" for name, value in taken.items()))
    return over(base, given)


def _set_by_papermill() -> set[str]:
    """The parameters that papermill has set in the running notebook, in a cell that begins with its comment."""
    ran = getattr(sys.modules.get("__main__"), "In", [])  # IPython's cells so far
    cell = next((source for source in reversed(ran) if source.startswith("# Parameters\n")), "")
    return {node.targets[0].id for node in ast.parse(cell).body if isinstance(node, ast.Assign)}


def _defaults(notebook: Path) -> dict:
    """As `notebook_parameters`, of the notebook that git holds, if it holds it: Jupyter saves what was changed by hand."""
    command = ["git", "show", f"HEAD:./{notebook.name}"]
    with contextlib.suppress(OSError):
        held = subprocess.run(command, cwd=notebook.parent, capture_output=True, encoding="utf-8")
        if held.returncode == 0:
            return notebook_parameters(notebook) | notebook_parameters(notebook, held.stdout)
    return notebook_parameters(notebook)
