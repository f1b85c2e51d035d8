"""Parameter files: strict YAML that overrides a notebook's defaults, and the values of a file named by `like`."""

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
    """The notebook that a parameter file belongs to: the file's name begins with the notebook's."""
    fitting = [
        n for n in places.NOTEBOOKS.glob("*.ipynb") if params.stem == n.stem or params.stem.startswith(n.stem + "-")
    ]
    if not fitting:
        raise StudyError(f"{params}: no notebook's name begins this file's name; see {places.NOTEBOOKS.name}/*.ipynb")
    return max(fitting, key=lambda n: len(n.stem))


def notebook_parameters(notebook: Path, text: str = "") -> dict:
    """Names and defaults in the notebook's cell tagged ``parameters``: plain literals, read without running the cell.

    If `text` is given, it is read instead of the file.
    """
    cells = json.loads(text or notebook.read_text(encoding="utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def plain_yaml(text: str):
    """The value of a YAML text, which must have no anchors, aliases or tags, and no key twice in one mapping.

    A parameter file needs none of these. Aliases let a few lines grow to gigabytes, and of two equal keys PyYAML would
    silently take the last.

    Raises
    ------
    ValueError
        If it is no such text. The message is one line.
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

    # YAML 1.1 reads 1e-3 as text; 1.2, as everybody writes numbers, does not.
    Plain.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
    try:
        values = yaml.load(text, Plain)
        repr(values)  # fails for integers of thousands of digits, which no message could show
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(one_line(error)) from None
    return values


def read_params(params: Path, heirs: tuple[Path, ...] = ()) -> dict:
    """The values of one parameter file, checked against its notebook. They override those of the file named by `like`.

    Parameters
    ----------
    params : Path
    heirs : tuple of Path
        The files whose `like` led to this one; none of them may be named again.

    Returns
    -------
    dict
        The values that the files give, without the notebook's own defaults.

    Raises
    ------
    StudyError
        If a file is no flat YAML mapping, names an unknown parameter, or gives a value of the wrong type; if its `like`
        names a file that does not exist, belongs to another notebook, or leads back to this one; or if the name of a
        training's file does not end with its run.
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
    """The values that one parameter file gives itself, without those of its `like`; checked as in `read_params`."""
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
        if isinstance(value, int | float) and value < 0 and name != "hours":  # which may lie before ICU admission
            raise StudyError(f"{params}: parameter {name}: expected 0 or more, got {value}")
    if values.get("profile") != params.parent.name:
        raise StudyError(f"{params}: parameter profile must be {params.parent.name!r}, the name of the file's folder")
    if values.get("seed", 0) >= 2**31:  # transformers seeds numpy's old generator, which takes less than 2**32
        raise StudyError(f"{params}: parameter seed: expected less than 2**31, got {values['seed']}")
    return values


def base_of(params: Path, like: str) -> Path:
    """The parameter file that `params` names by `like`: "05-train-llama", or "paper/05-train-llama" of another profile.

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
    """`base` overridden by `values`; parameters that are dicts, such as settings, are overridden key by key."""
    both = {name: base[name] | value for name, value in values.items() if isinstance(base.get(name), dict)}
    return base | values | both


def resolved(notebook: str, values: dict) -> dict:
    """The parameters of a notebook that runs by hand, or by papermill alone, over those of the file named by `like`.

    Each notebook calls this after its parameters and takes over what it returns. What papermill has set is read from
    the cell that papermill inserts. By hand, a parameter that still has the notebook's default counts as not set. The name
    of a run that is trained is never taken from another. What
    is taken from the other file is printed. A notebook that make runs gets all values, and an empty `like`, from
    `run_notebook`.

    Parameters
    ----------
    notebook : str
        Its name, such as "05-train".
    values : dict
        The notebook's variables, parameters among them.

    Returns
    -------
    dict
        Values by parameter; empty if `like` is empty.
    """
    if not (like := values["like"]):
        return {}
    defaults = _defaults(places.NOTEBOOKS / f"{notebook}.ipynb")
    by_hand = {name for name, default in defaults.items() if values[name] != default}
    its_own = {"profile", "run"} if "model" in defaults else {"profile"}  # a training would replace the run it is like
    given = {name: values[name] for name in ((_set_by_papermill() or by_hand) | its_own) & defaults.keys()}
    params = places.NOTEBOOKS / "params" / values["profile"] / f"{notebook}.yaml"
    base = read_params(base_of(params, like))
    taken = {name: value for name, value in base.items() if name not in given}
    print(f"taken from {like}: " + ", ".join(f"{name} = {value!r}" for name, value in taken.items()))
    return over(base, given)


def _set_by_papermill() -> set[str]:
    """The parameters that papermill has set in the running notebook, in the cell that begins with its comment."""
    ran = getattr(sys.modules.get("__main__"), "In", [])  # IPython's cells so far
    cell = next((source for source in reversed(ran) if source.startswith("# Parameters\n")), "")
    return {node.targets[0].id for node in ast.parse(cell).body if isinstance(node, ast.Assign)}


def _defaults(notebook: Path) -> dict:
    """As `notebook_parameters`, with the defaults at git's HEAD if it has them: Jupyter saves what a person changes."""
    command = ["git", "show", f"HEAD:./{notebook.name}"]
    with contextlib.suppress(OSError):
        held = subprocess.run(command, cwd=notebook.parent, capture_output=True, encoding="utf-8")
        if held.returncode == 0:
            return notebook_parameters(notebook) | notebook_parameters(notebook, held.stdout)
    return notebook_parameters(notebook)
