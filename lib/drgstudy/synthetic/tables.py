"""What the synthetic hospital knows: conditions, procedures, scenarios, comorbidities and phrases, as data.

The tables are in ``data/reference/synthetic``. A condition is looked up by the longest prefix of its ICD-10-CM code;
what the lexicon lacks is worded from the classification's own description and inclusion terms.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import yaml
from drgpy.msdrg import DRGEngine

from drgstudy import drgs
from drgstudy.study import REFERENCE

FOLDER = REFERENCE / "synthetic"
GROUPER = "v36"  # MS-DRG v36, fiscal year 2019: the oldest that drgpy has, and the last of MIMIC's years

# The classification's way of saying "nothing more is known", which nobody writes.
_OFFICIAL = re.compile(
    r",? ?\b(?:unspecified(?: (?:organism|whether[^,]*|site|type|severity|part[^,]*))?|other specified|NEC|NOS"
    r"|not elsewhere classified|initial encounter(?: for closed fracture)?|without (?:mention of )?complications?"
    r"|as the cause of diseases classified elsewhere)\b|\s*[\[(].*?[\])]",
    re.IGNORECASE,
)
_SIDE = re.compile(r"\b(?:right|left|[RL](?:LE|UE|UL|LL|IH|CA|SO)?)\b")


@dataclass(frozen=True)
class Condition:
    """How one diagnosis is spoken of; `kind` is "a" (acute), "c" (chronic), "h" (history) or "s" (a statement)."""

    code: str
    kind: str
    system: str
    syndrome: str
    names: tuple[str, ...]
    presenting: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    treatments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """A reason for admission: what may be the principal diagnosis, what is done, and what comes with it.

    `principal` and `procedures` are weighted choices of code lists, `comorbidities` weighs pools, `drgs` is the set of
    v36 DRGs that such a stay may be grouped into.
    """

    name: str
    weight: float
    drgs: frozenset[str]
    principal: tuple[tuple[tuple[str, ...], float], ...]
    procedures: tuple[tuple[tuple[str, ...], float], ...]
    comorbidities: dict[str, float]
    acuity: float
    sex: str
    ages: tuple[int, int]
    service: str
    admission: str
    death: float
    recurs: bool


@dataclass(frozen=True)
class Comorbidity:
    """A secondary diagnosis of a pool: its probability, how often it is written down, the sex it needs ("" for any)."""

    code: str
    probability: float
    written: float | None
    sex: str


@dataclass(frozen=True)
class Lure:
    """A condition denied, suspected or long past, or a finding that nobody codes; `code` is what it must not be."""

    kind: str
    syndromes: frozenset[str]
    code: str
    texts: tuple[str, ...]


def _rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(";") if part)


def _choices(text: str) -> tuple[tuple[tuple[str, ...], float], ...]:
    """Parse ``A+B:2 C -:1``: weighted lists of codes, "-" for none."""
    parsed = []
    for entry in text.split():
        codes, _, weight = entry.partition(":")
        parsed.append((() if codes == "-" else tuple(codes.split("+")), float(weight or 1)))
    return tuple(parsed)


def _scenario(row: dict[str, str]) -> Scenario:
    first, _, last = row["drgs"].partition("-")
    low, _, high = row["ages"].partition("-")
    return Scenario(
        name=row["name"],
        weight=float(row["weight"]),
        drgs=frozenset(f"{drg:03d}" for drg in range(int(first), int(last or first) + 1)),
        principal=_choices(row["principal"]),
        procedures=_choices(row["procedures"]),
        comorbidities={codes[0]: weight for codes, weight in _choices(row["comorbidities"])},
        acuity=float(row["acuity"]),
        sex=row["sex"],
        ages=(int(low), int(high)),
        service=row["service"],
        admission=row["admission"],
        death=float(row["death"]),
        recurs=row["recurs"] == "y",
    )


@dataclass
class Hospital:
    """Everything that is read once; `tail` (0 to 1] is the share of the scenarios that occur, the commonest first."""

    tail: float
    engine: DRGEngine = field(default_factory=lambda: DRGEngine(version=GROUPER))

    def __post_init__(self) -> None:
        self.lexicon = {
            row["code"]: Condition(
                *(row[key] for key in ("code", "kind", "system", "syndrome")),
                *(_split(row[key]) for key in ("names", "presenting", "findings", "treatments")),
            )
            for row in _rows("conditions.csv")
        }
        everything = sorted(map(_scenario, _rows("scenarios.csv")), key=lambda s: (-s.weight, s.name))
        kept, chapters = [], set()
        for position, scenario in enumerate(everything):
            mdc = self.engine.drgmap[min(scenario.drgs)]["mdc"]
            if position < self.tail * len(everything) or mdc not in chapters:
                kept.append(scenario)
                chapters.add(mdc)
        self.scenarios = kept
        self.pools: dict[str, list[Comorbidity]] = {}
        for row in _rows("comorbidities.csv"):
            entry = Comorbidity(
                row["code"], float(row["probability"]), float(row["written"]) if row["written"] else None, row["sex"]
            )
            self.pools.setdefault(row["pool"], []).append(entry)
        self.procedures = {row["code"]: _split(row["names"]) for row in _rows("procedures.csv")}
        self.rules = [(row["present"].split(), row["replaces"], row["by"]) for row in _rows("rules.csv")]
        self.lures = [
            Lure(row["kind"], frozenset(row["syndromes"].split()), row["code"], _split(row["texts"]))
            for row in _rows("lures.csv")
        ]
        self.rivals: dict[str, list[Condition]] = {}  # acute principal diagnoses by syndrome
        self.operations: list[tuple[str, str]] = []  # (procedure, sex that it needs)
        self._conditions: dict[str, Condition] = {}
        self._sides: dict[str, str] = {}
        for scenario in kept:
            for codes, _ in scenario.principal:
                condition = self.condition(codes[0])
                if condition.kind == "a" and codes[0][0] not in "OPRZ" and condition.syndrome not in ("", "elec"):
                    self.rivals.setdefault(condition.syndrome, []).append(condition)
            if scenario.admission == "L" and scenario.service != "OBSTETRICS" and scenario.weight > 1:
                self.operations += [
                    (codes[0], scenario.sex) for codes, _ in scenario.procedures if codes and codes[0] in self.engine.orpcsmap
                ]
        self.strangers = [c for syndrome in self.rivals if syndrome != "psych" for c in self.rivals[syndrome]]
        self.phrases = yaml.safe_load((FOLDER / "phrases.yaml").read_text(encoding="utf-8"))
        self.first_year = {row["drg"]: int(row["first_fiscal_year"]) for row in _rows("fiscal_years.csv")}
        self.drg_before = {row["drg"]: row["drg_before"] for row in _rows("fiscal_years.csv") if row["drg_before"]}

    @cached_property
    def facts(self) -> dict[tuple[int, str], tuple[str, float]]:
        """Title and geometric mean length of stay (days) by fiscal year and code."""
        table = drgs.titles_by_year()
        return {
            (year, drg): (title, gmlos if gmlos > 0 else 4.0)
            for year, drg, title, gmlos in table[["fiscal_year", "drg", "title", "gmlos"]].itertuples(index=False)
        }

    def condition(self, code: str) -> Condition:
        """The lexicon's entry for an ICD-10-CM code (without dot), the longest prefix first."""
        if code not in self._conditions:
            prefix = next((code[:n] for n in range(len(code), 2, -1) if code[:n] in self.lexicon), None)
            found = self.lexicon[prefix] if prefix else Condition(code, "a", "GEN", "", ())
            self._conditions[code] = found if found.names else replace(found, names=official_names(code))
        return self._conditions[code]

    def side(self, code: str) -> str:
        """The side of the body that a diagnosis or procedure names: "R", "L" or "" for both or none."""
        if code not in self._sides:
            names = " ".join(self.procedures[code] if code in self.procedures else self.condition(code).names)
            sides = {name[0].upper() for name in _SIDE.findall(names)}
            self._sides[code] = sides.pop() if len(sides) == 1 else ""
        return self._sides[code]

    def severity(self, code: str) -> int:
        """2 for an MCC, 1 for a CC, 0 for neither, before any exclusion by the principal diagnosis."""
        return {"MCC": 2, "CC": 1}.get(self.engine.ccmap.get(code, {}).get("level"), 0)

    def group(self, codes: list[str], procedures: list[str], sex: str, alive: bool, status: str = "01") -> str:
        """The MS-DRG v36 of a stay, "000" if the grouper finds none."""
        return self.engine.get_drg(codes, procedures, sex, alive, discharge_status=status)


@cache
def official_names(code: str) -> tuple[str, ...]:
    """Wordings of a code from ICD-10-CM's description and inclusion terms, freed of what only coders say."""
    import simple_icd_10_cm as icd  # reads the whole classification, so only where the lexicon has no entry

    if not icd.is_valid_item(code):
        return ("other condition",)
    cleaned = (_OFFICIAL.sub("", name).strip(" ,") for name in [icd.get_description(code), *icd.get_inclusion_term(code)])
    return tuple(dict.fromkeys(name[:1].lower() + name[1:] for name in cleaned if name))
