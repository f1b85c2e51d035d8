"""The studies: entries of ``notebooks/studies.yaml``, in the order of the report."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from drgstudy.study import places
from drgstudy.study.files import read_text
from drgstudy.study.parameters import checked_value, plain_yaml
from drgstudy.study.places import Paths
from drgstudy.study.problems import StudyError


@dataclass(frozen=True)
class Study:
    """One entry of ``studies.yaml``.

    Attributes
    ----------
    name : str
        For readers, such as "DRG-LLaMA".
    goal : str
        The target of make that runs it.
    notebooks : list of int
        The numbers of its first and its last notebook.
    headline : str
        The notebook whose numbers the study's part of the report can't do without.
    part : str
        The template of that part.
    folder : str
        `study` of its `Paths`.
    sections : dict of str to str
        Headings of its part that the top of the page links to, by HTML id.
    map : dict of str to str
        What each notebook makes, for the map of all studies.
    """

    name: str = ""
    goal: str = ""
    notebooks: list[int] = field(default_factory=lambda: [0])
    headline: str = ""
    part: str = ""
    folder: str = ""
    sections: dict[str, str] = field(default_factory=dict)
    map: dict[str, str] = field(default_factory=dict)

    @property
    def topic(self) -> str:
        """The name of its headline's numbers in ``numbers.json``."""
        return topic(self.headline)

    def __contains__(self, step: str) -> bool:
        first, last = self.notebooks
        return first <= int(step[:2]) <= last

    def paths(self, profile: str) -> Paths:
        return Paths(profile, self.folder)


def topic(notebook: str) -> str:
    """The name of a notebook's numbers in ``numbers.json``: "two_labels" for 07-two-labels."""
    return notebook[3:].replace("-", "_")


def studies() -> list[Study]:
    """All studies.

    Raises
    ------
    StudyError
        If ``studies.yaml`` is no list of entries, or an entry lacks a key, has an unknown one or a value of a wrong
        type.
    """
    file = places.NOTEBOOKS / "studies.yaml"
    try:
        entries = plain_yaml(read_text(file, "is missing; it names the studies"))
        return [_study(f"{file}, entry {i}", entry) for i, entry in enumerate(entries, 1)]
    except (ValueError, TypeError) as error:
        raise StudyError(f"{file}: expected a list of studies, each with name, goal, …; {error}") from None


def _study(place: str, entry: dict) -> Study:
    defaults = vars(Study())
    if unknown := [key for key in entry if key not in defaults]:
        raise StudyError(f"{place}: unknown key {unknown[0]!r}; the keys are {', '.join(defaults)}")
    if missing := [each.name for each in fields(Study)[:5] if each.name not in entry]:
        raise StudyError(f"{place}: {missing[0]} is missing")
    made = Study(**{key: checked_value(f"{place}: {key}", value, defaults[key]) for key, value in entry.items()})
    if len(made.notebooks) != 2:
        raise StudyError(f"{place}: notebooks: expected the numbers of its first and its last notebook, like [0, 19]")
    return made


def study_of(step: str) -> Study:
    """The study of a step or notebook, by the number its name begins with; raises StudyError if there is none."""
    known = studies()
    if found := [study for study in known if step[:2].isdigit() and step in study]:
        return found[0]
    numbers = ", ".join(f"{s.name} has {s.notebooks[0]:02} to {s.notebooks[1]:02}" for s in known)
    raise StudyError(f"{step}: no study of notebooks/studies.yaml has a notebook of this number ({numbers})")
