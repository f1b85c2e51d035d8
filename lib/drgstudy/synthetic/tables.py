"""What the synthetic hospital knows: scenarios, comorbidities, conditions, procedures and phrases, all of them data.

The tables lie in ``data/reference/synthetic``. Conditions are named in clinicians' words and by ICD-10-CM's
descriptions and inclusion terms. The titles of DRGs are never used.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import yaml
from drgpy.msdrg import DRGEngine

from drgstudy import drgs
from drgstudy.study import REFERENCE

FOLDER = REFERENCE / "synthetic"
GROUPER = "v36"  # fiscal year 2019: the oldest MS-DRG version that drgpy has, and within MIMIC's years
_SIDE = re.compile(r"\b(?:right|left|[RL](?:LE|UE|UL|LL|IH|CA|SO)?)\b")
_MALE_ONLY = re.compile("N4|N5[0-3]|C6[0-3]|D29|D40")
_FEMALE_ONLY = re.compile("O|N7|N8|N9[0-8]|C5[1-8]|D2[5-8]|D39")
# In no differential diagnosis: obstetric and perinatal conditions, symptoms, statuses, laboratory values, bleeding.
_NO_DIFFERENTIAL = ("O", "P", "R", "Z", "E86", "E87", "K920", "K921", "K922", "K625")

Choices = tuple[tuple[tuple[str, ...], float], ...]


@dataclass(frozen=True)
class Condition:
    """How notes speak of a diagnosis."""

    code: str
    kind: str  # "a" (acute), "c" (chronic), "h" (history or status) or "s" (a statement rather than a name)
    system: str  # the organ system
    syndrome: str  # what it looks like on arrival
    names: tuple[str, ...]
    presenting: tuple[str, ...]  # complaints
    findings: tuple[str, ...]  # noun phrases
    treatments: tuple[str, ...]  # each begins with a participle, such as "diuresed with IV Lasix"

    @property
    def can_lead(self) -> bool:
        """Whether notes can tell it as the reason for admission."""
        return bool(self.presenting and self.findings and self.treatments)


@dataclass(frozen=True)
class Scenario:
    """A reason for admission: its principal diagnoses and procedures, what accompanies it, and its possible DRGs."""

    name: str
    weight: float
    drgs: frozenset[str]
    principal: Choices  # lists of codes, each beginning with the principal diagnosis
    procedures: Choices
    comorbidities: dict[str, float]  # factors on the probabilities of each pool
    acuity: float  # factor on the probabilities of acute comorbidities
    sex: str  # "" for either
    ages: range
    service: str
    admission: str  # E(mergency), U(rgent), e(L)ective or N(ewborn)
    death: float  # probability at a frailty of 1
    recurs: bool  # patients come again for the same reason


class Comorbidity(NamedTuple):
    """A secondary diagnosis of a pool; `written` is the probability that notes mention it, `sex` is "" for either."""

    pool: str
    code: str
    probability: float
    written: float
    sex: str


class Lure(NamedTuple):
    """A distractor: what is denied, suspected, past, or found but not coded; no stay with one of `codes` has it."""

    kind: str
    syndromes: tuple[str, ...]
    codes: tuple[str, ...]
    texts: tuple[str, ...]


def _rows(name: str, **parse) -> Iterator[dict]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {column: parse.get(column, str)(text) for column, text in row.items()}


def _split(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(";")))


def _choices(text: str) -> Choices:
    """Parse ``A+B:2 C -:1``: lists of codes with weights, "-" for no code."""
    entries = (entry.partition(":") for entry in text.split())
    return tuple((() if codes == "-" else tuple(codes.split("+")), float(weight or 1)) for codes, _, weight in entries)


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


class Hospital:
    """All tables and the grouper; `tail` is the share of scenarios that occur, as `make_hospital` explains."""

    def __init__(self, tail: float) -> None:
        self.engine = DRGEngine(version=GROUPER)
        lists = dict.fromkeys(["names", "presenting", "findings", "treatments"], _split)
        self.lexicon = {row["code"]: Condition(**row) for row in _rows("conditions.csv", **lists)}
        self.procedures = {row["code"]: row["names"] for row in _rows("procedures.csv", names=_split)}
        self.rules = [(row["present"].split(), row["replaces"], row["by"]) for row in _rows("rules.csv")]
        self.lures = [Lure(**row) for row in _rows("lures.csv", syndromes=str.split, codes=str.split, texts=_split)]
        self.phrases = {}
        for name in ("phrases.yaml", "summary.yaml"):
            self.phrases |= yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
        self.shorthand: dict[str, list[str]] = {}  # abbreviations by the words that they may replace anywhere
        for row in _rows("shorthand.csv", swap=int):
            if row["swap"]:
                self.shorthand.setdefault(row["long"].lower(), []).append(row["short"])
        forms = "|".join(map(re.escape, sorted(self.shorthand, key=len, reverse=True)))
        self._abbreviable = re.compile(rf"(?<![\w{{/-])({forms})(?![\w}}/-])", re.IGNORECASE)
        self._parts: dict[str, list[str]] = {}
        self.rewordings = {row["words"]: row["forms"] for row in _rows("rewordings.csv", forms=_split)}
        words = "|".join(map(re.escape, sorted(self.rewordings, key=len, reverse=True)))
        self.rewordable = re.compile(rf"(?<![\w/-])({words})(?![\w/-])", re.IGNORECASE)
        years = list(_rows("fiscal_years.csv", first_fiscal_year=int))
        self.first_year = {row["drg"]: row["first_fiscal_year"] for row in years}
        self.drg_before = {row["drg"]: row["drg_before"] for row in years if row["drg_before"]}
        self.drg_facts = {  # title and geometric mean length of stay (days) by fiscal year and code
            (year, drg): (title, gmlos if gmlos > 0 else 4.0)
            for year, drg, title, gmlos in drgs.titles_by_year()[["fiscal_year", "drg", "title", "gmlos"]].to_numpy()
        }
        self.demographics: dict[tuple[str, str], list[tuple[str, float]]] = {}  # by MIMIC's number and column
        for row in _rows("demographics.csv", weight=float):
            self.demographics.setdefault((row["mimic"], row["column"]), []).append((row["value"], row["weight"]))
        self.pools: dict[str, list[Comorbidity]] = {}
        for row in _rows("comorbidities.csv", probability=float, written=lambda text: float(text or "nan")):
            self.pools.setdefault(row["pool"], []).append(Comorbidity(**row))
        self.base_code = {self.base_title(drg): drg for drg in sorted(self.engine.drgmap, reverse=True)}  # the lowest
        self._conditions: dict[str, Condition] = {}
        self._lateralities: dict[str, str] = {}
        self.services: dict[str, float] = {}  # of all scenarios, also those that do not occur, with their weight
        self.scenarios = self._scenarios(tail)
        self.differentials: dict[str, list[Condition]] = {}  # conditions that present alike, by syndrome
        self.elective_operations: list[tuple[str, str]] = []  # procedure, and the sex that it presupposes or ""
        for scenario in self.scenarios:
            for condition in (self.condition(codes[0]) for codes, _ in scenario.principal):
                if condition.kind == "a" and not condition.code.startswith(_NO_DIFFERENTIAL):
                    self.differentials.setdefault(condition.syndrome, []).append(condition)
            if scenario.admission == "L" and scenario.service != "OBSTETRICS" and scenario.weight > 1:
                first = [codes[0] for codes, _ in scenario.procedures if self.operative(codes)]
                self.elective_operations += [(code, scenario.sex) for code in first]
        self.past_conditions = [
            c for syndrome, group in self.differentials.items() if syndrome != "psych" for c in group
        ]

    def _scenarios(self, tail: float) -> list[Scenario]:
        """The scenarios that occur, the commonest first."""
        numbers = dict.fromkeys(["weight", "acuity", "death"], float)
        rows = _rows(
            "scenarios.csv",
            drgs=lambda text: frozenset(f"{drg:03d}" for drg in _range(text)),
            principal=_choices,
            procedures=_choices,
            comorbidities=lambda text: {codes[0]: weight for codes, weight in _choices(text)},
            ages=_range,
            recurs=bool,
            **numbers,
        )
        everything = sorted((Scenario(**row) for row in rows), key=lambda s: (-s.weight, s.name))
        for scenario in everything:
            self.services[scenario.service] = self.services.get(scenario.service, 0.0) + scenario.weight
        kept, chapters = [], set()
        for position, scenario in enumerate(everything):
            mdc = self.engine.drgmap[min(scenario.drgs)]["mdc"]
            if position < tail * len(everything) or mdc not in chapters:
                kept.append(scenario)
                chapters.add(mdc)
        return kept

    def abbreviable(self, text: str) -> list[str]:
        """A text split into parts, every second of which is an expression that may be abbreviated."""
        if text not in self._parts:
            self._parts[text] = self._abbreviable.split(text)
        return self._parts[text]

    def condition(self, code: str) -> Condition:
        """The lexicon's entry for an ICD-10-CM code (without its dot): that of its longest known prefix."""
        if code not in self._conditions:
            prefixes = (code[:length] for length in range(len(code), 2, -1))
            self._conditions[code] = self.lexicon[next(prefix for prefix in prefixes if prefix in self.lexicon)]
        return self._conditions[code]

    @staticmethod
    def sex_of(code: str) -> str:
        """The only sex that can have a diagnosis, or "" for either."""
        return "M" if _MALE_ONLY.match(code) else "F" if _FEMALE_ONLY.match(code) else ""

    def laterality(self, code: str) -> str:
        """The side that the names of a diagnosis or procedure mention: "R", "L", or "" for both or none."""
        if code not in self._lateralities:
            names = self.procedures[code] if code in self.procedures else self.condition(code).names
            sides = {name[0].upper() for name in _SIDE.findall(" ".join(names))} if code else set()
            self._lateralities[code] = sides.pop() if len(sides) == 1 else ""
        return self._lateralities[code]

    def drg_of_year(self, drg_v36: str, fiscal_year: int) -> str:
        """The code that a fiscal year's system had for a v36 DRG, "" if none."""
        known = fiscal_year >= self.first_year.get(drg_v36, 2008)
        return drg_v36 if known else self.drg_before.get(drg_v36, "")

    def base_title(self, drg: str) -> str:
        """The title of a v36 DRG without its severity."""
        return drgs.SEVERITY.sub("", self.engine.drgmap[drg]["desc"])

    def operative(self, procedures) -> bool:
        """Whether the grouper counts one of the procedures as an operating room procedure."""
        return any(code in self.engine.orpcsmap for code in procedures)

    def severity(self, code: str) -> int:
        """2 for an MCC, 1 for a CC, 0 for neither; exclusions by the principal diagnosis are ignored."""
        return {"MCC": 2, "CC": 1}.get(self.engine.ccmap.get(code, {}).get("level"), 0)
