"""Drawing patients: their stays, and each stay's diagnoses, procedures, DRG and dates.

The codes are drawn, and the grouper assigns the DRG. A stay falls into a fiscal year in which its v36 DRG had its
present meaning; otherwise it takes the code that the system of its year had instead (``fiscal_years.csv``).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from drgstudy.synthetic.tables import Hospital, Scenario

FIRST_DAY, LAST_DAY = datetime(2008, 1, 1), datetime(2019, 9, 1)
MAX_STAYS = 12
# Mean number of stays of a patient whose disease recurs (COPD, dialysis access, ...), and of any other patient.
_STAYS_RECURRENT, _STAYS_OTHER = 4.2, 2.1
# Probability that a coded secondary diagnosis is written down, by kind of condition, where its pool does not say.
_WRITTEN = {"a": 0.99, "c": 0.96, "h": 0.85, "s": 0.95}
_MAX_DRAWS = 30  # of a stay's codes, until the grouper assigns one of the scenario's DRGs


@dataclass
class Stay:
    """One admission; its dates are the true ones, before they are shifted for publication."""

    scenario: Scenario
    codes: list[str]  # of the diagnoses, the principal one first
    written: set[str]  # the codes that the notes may mention
    procedures: list[str]
    drg_v36: str  # by the grouper
    alive: bool
    status: str  # Medicare's discharge status: "20" died, "07" left against medical advice, "01" any other
    disposition: str = ""
    age: int = 0
    admitted: datetime = FIRST_DAY
    discharged: datetime = FIRST_DAY
    fiscal_year: int = 0
    drg: str = ""  # the code under which the stay's own fiscal year billed it
    hadm_id: int = 0

    @property
    def time(self) -> float:
        """The fiscal year on a scale from 0, the first, to 1, the last."""
        return (self.fiscal_year - FIRST_DAY.year) / (LAST_DAY.year - FIRST_DAY.year)


@dataclass
class Patient:
    """A person; `shift` years are added to each date when it is published."""

    subject_id: int
    sex: str
    shift: int
    stays: list[Stay]


def pick(rng: np.random.Generator, items):
    """One of the items, each with the same probability."""
    return items[int(rng.random() * len(items))]


def pick_weighted(rng: np.random.Generator, choices):
    """The item of one of the (item, weight) pairs, with a probability proportional to its weight."""
    at = rng.random() * sum(weight for _, weight in choices)
    for item, weight in choices:
        at -= weight
        if at < 0:
            return item
    return choices[-1][0]


def draw_patient(
    hospital: Hospital, index: int, rng: np.random.Generator, last_day: datetime = LAST_DAY, drift: float = 0.0
) -> Patient:
    """The patient with a number and all stays that begin before `last_day`; `rng` is the patient's own generator.

    With a `drift`, 0 to 1, each reason for a first admission becomes more or less frequent over the years. Its frequency
    runs, at most, from 1 - drift to 1 + drift times what it is without drift, rising or falling.
    """
    while True:
        patient = _draw_patient(hospital, index, rng, last_day)
        if not drift:
            return patient
        first = patient.stays[0]
        trend = 2 * zlib.crc32(first.scenario.name.encode()) / 2**32 - 1
        if rng.random() * (1 + drift) < 1 + drift * trend * (2 * first.time - 1):
            return patient


def _draw_patient(hospital: Hospital, index: int, rng: np.random.Generator, last_day: datetime) -> Patient:
    """A patient from a hospital in which the years do not differ."""
    first = pick_weighted(rng, [(scenario, scenario.weight) for scenario in hospital.scenarios])
    sex = first.sex or pick(rng, "FM")
    age = first.ages[int(len(first.ages) * rng.beta(1.6, 1.4))]
    patient = Patient(10_000_001 + index * 31 + int(rng.random() * 31), sex, 4 * int(26 + 21 * rng.random()), [])
    frailty = float(rng.gamma(4.0, 0.33))
    chronic: dict[str, float] = {}  # probability of being written down, by code; grows from stay to stay
    n_stays = min(MAX_STAYS, int(rng.geometric(1 / (_STAYS_RECURRENT if first.recurs else _STAYS_OTHER)))) if age else 1
    fitting = [(s, s.weight) for s in hospital.scenarios if s.sex in ("", sex) and age in s.ages]
    while len(patient.stays) < n_stays and (not patient.stays or patient.stays[-1].alive):
        again = not patient.stays or (first.recurs and rng.random() < 0.6)
        stay = _draw_stay(hospital, first if again else pick_weighted(rng, fitting), sex, age, frailty, chronic, rng)
        patient.stays += [stay] if stay else []
    _set_dates(hospital, patient, age, last_day, rng)
    for number, stay in enumerate(patient.stays):  # a bijection on 0 to 9,999,990: the ids are unique, but in no order
        stay.hadm_id = 20_000_001 + ((index * MAX_STAYS + number) * 7_654_321 + 1_234_567) % 9_999_991
    return patient


def _draw_stay(hospital: Hospital, scenario: Scenario, sex, age, frailty, chronic, rng) -> Stay | None:
    """Draw codes until the grouper assigns one of the scenario's DRGs, or return None; adds to `chronic`."""
    for _ in range(_MAX_DRAWS):
        principal = pick_weighted(rng, scenario.principal)
        side = hospital.laterality(principal[0])
        same_side = [c for c in scenario.procedures if not side or {*map(hospital.laterality, c[0])} <= {side, ""}]
        procedures = list(pick_weighted(rng, same_side or scenario.procedures))
        alive = rng.random() >= scenario.death * min(2.0, frailty)
        drawn = dict(chronic) if scenario.service != "OBSTETRICS" and rng.random() < 0.9 else {}
        for pool, weight in scenario.comorbidities.items():
            for entry in hospital.pools[pool]:
                kind = hospital.condition(entry.code).kind
                scale = frailty * scenario.acuity if kind == "a" else 0.5 + 0.5 * frailty
                if entry.sex in ("", sex) and rng.random() < entry.probability * weight * scale:
                    drawn[entry.code] = _WRITTEN[kind] if math.isnan(entry.written) else entry.written
        secondary = reconcile(hospital.rules, principal, [code for code in drawn if code not in principal])
        rest = sorted([*principal[1:], *secondary], key=lambda code: (-hospital.severity(code), rng.random()))
        status = "20" if not alive else "07" if "894" in scenario.drgs else "01"
        codes = [principal[0], *rest]
        drg = hospital.engine.get_drg(codes, procedures, sex, alive, discharge_status=status)
        if drg in scenario.drgs:
            lasting = [code for code in secondary if hospital.condition(code).kind in "ch" and code[0] not in "OPZ"]
            chronic.update((code, drawn.get(code, 0.8)) for code in lasting)
            written = {code for code in codes if code in principal or rng.random() < drawn.get(code, 0.8)}
            return Stay(scenario, codes, written, procedures, drg, alive, status)
    return None


def reconcile(rules: list[tuple[list[str], str, str]], principal, secondary: list[str]) -> list[str]:
    """The secondary diagnoses that ICD-10-CM allows beside the principal one and beside one another.

    Parameters
    ----------
    rules : list of (list of str, str, str)
        A rule (present, replaces, by) acts on each code that begins with `replaces` if there are codes with all the
        prefixes `present` beside it. The code is removed, and `by`, unless empty, takes its place.

    Notes
    -----
    Source: ICD-10-CM's rules on codes that combine, exclude or contain others; ``rules.csv`` lists them.
    """
    secondary = [code for code in secondary if code[:3] != principal[0][:3] or code[0] in "SZOP"]
    for present, replaces, by in rules:
        for code in [code for code in secondary if code.startswith(replaces)]:
            others = [c for c in [*secondary, *([] if by else principal)] if c != code]
            if all(code == prefix or any(c.startswith(prefix) for c in others) for prefix in present):
                secondary.remove(code)
                secondary += [by] if by and by not in (*secondary, *principal) else []
    return secondary


def _set_dates(hospital: Hospital, patient: Patient, age: int, last_day: datetime, rng: np.random.Generator) -> None:
    """Date the stays in their order, each in a year that knew its DRG; drop those after the last day."""
    offset, plan, earliest = 0, [], FIRST_DAY  # offset: days from the first admission
    for stay in patient.stays:
        length = max(0.3, hospital.drg_facts[2019, stay.drg_v36][1] * float(rng.lognormal(0.08, 0.45)))
        first_year = 2008 if stay.drg_v36 in hospital.drg_before else hospital.first_year.get(stay.drg_v36, 2008)
        begin = max(earliest, datetime(first_year - 1, 10, 1) - timedelta(days=offset))
        if (last_day - begin).days > offset:
            plan.append((stay, offset, length))
            earliest = begin
            offset += int(length) + 3 + int(rng.exponential(220.0))
    patient.stays = [stay for stay, _, _ in plan]
    start = earliest + timedelta(days=int(rng.random() * ((last_day - earliest).days - (plan[-1][1] if plan else 0))))
    for stay, days, length in plan:
        stay.admitted = start + timedelta(days=days, minutes=int(rng.random() * 1440))
        stay.discharged = stay.admitted + timedelta(days=length)
        stay.age = age + (stay.admitted.year - plan[0][0].admitted.year)
        stay.fiscal_year = stay.admitted.year + (stay.admitted.month >= 10)
        stay.drg = hospital.drg_of_year(stay.drg_v36, stay.fiscal_year)
        elderly = stay.age > 70 and rng.random() < 0.35
        home = pick(rng, ["HOME", "HOME", "HOME HEALTH CARE"]) if stay.age else "HOME"
        living = "AGAINST ADVICE" if stay.status == "07" else "SKILLED NURSING FACILITY" if elderly else home
        stay.disposition = living if stay.alive else "DIED"


def apr_levels(hospital: Hospital, stay: Stay) -> tuple[int, int]:
    """Severity of illness and risk of mortality, 1 to 4 each: our surrogate, since there is no free APR grouper."""
    levels = [hospital.severity(code) for code in stay.codes[1:]]
    severity = min(4, 1 + min(1, levels.count(1)) + min(2, levels.count(2)) + (levels.count(1) > 3))
    return severity, min(4, 1 + min(2, levels.count(2)) + (stay.age > 75))
