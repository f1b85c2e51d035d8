"""Drawing patients: their stays, and each stay's diagnoses, procedures, DRG and dates.

The codes are drawn, the grouper decides the DRG, and the stay is put into a fiscal year in which that DRG had its
present meaning, or takes the code that the earlier system gave it (``fiscal_years.csv``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from drgstudy.synthetic.tables import Hospital, Scenario

FIRST_DAY, LAST_DAY = datetime(2008, 1, 1), datetime(2019, 9, 1)
MAX_STAYS = 8
_WRITTEN = {"a": 0.88, "c": 0.85, "h": 0.75, "s": 0.75}  # how often a coded secondary diagnosis is written down, by kind
_DRAWS = 30


@dataclass
class Stay:
    """One admission; `codes` begins with the principal diagnosis, `written` holds the codes meant for the course."""

    scenario: Scenario
    codes: list[str]
    written: set[str]
    procedures: list[str]
    drg_v36: str
    alive: bool
    age: int = 0
    admitted: datetime = FIRST_DAY  # true dates, before they are shifted
    discharged: datetime = FIRST_DAY
    fiscal_year: int = 0
    drg: str = ""
    hadm_id: int = 0


@dataclass
class Patient:
    """A person: `shift` is what is added to each year for publication."""

    subject_id: int
    sex: str
    shift: int
    stays: list[Stay]
    dod: datetime | None = None


def pick(rng: np.random.Generator, items):
    """One of the items, all alike."""
    return items[int(rng.random() * len(items))]


def weighted(rng: np.random.Generator, choices):
    """One of the (item, weight) pairs' items."""
    at = rng.random() * sum(weight for _, weight in choices)
    for item, weight in choices:
        at -= weight
        if at < 0:
            return item
    return choices[-1][0]


def draw_patient(hospital: Hospital, index: int, rng: np.random.Generator) -> Patient | None:
    """A patient with all stays; None in the rare case that no draw of the first stay is grouped as it should.

    Parameters
    ----------
    hospital : Hospital
    index : int
        The patient's number; ids are made from it.
    rng : numpy.random.Generator
        This patient's own.
    """
    first = weighted(rng, [(scenario, scenario.weight) for scenario in hospital.scenarios])
    sex = first.sex or ("F" if rng.random() < 0.52 else "M")
    low, high = first.ages
    age = low + int((high - low + 1) * rng.beta(1.6, 1.4))
    patient = Patient(10_000_001 + index * 31 + int(rng.random() * 31), sex, 4 * int(26 + 21 * rng.random()), [])
    frailty = float(rng.gamma(4.0, 0.33))
    chronic: dict[str, float] = {}
    n_stays = min(MAX_STAYS, int(rng.geometric(0.5 if first.recurs else 0.8))) if age > 0 else 1
    scenario = first
    for _ in range(n_stays):
        stay = _draw_stay(hospital, scenario, sex, age, frailty, chronic, rng)
        if stay:
            patient.stays.append(stay)
            if not stay.alive:
                break
        if not (first.recurs and rng.random() < 0.6):
            fitting = [s for s in hospital.scenarios if s.sex in ("", sex) and s.ages[0] <= age <= s.ages[1]]
            scenario = weighted(rng, [(s, s.weight) for s in fitting])
        else:
            scenario = first
    _date(hospital, patient, age, rng)
    for number, stay in enumerate(patient.stays):  # a bijection on 0..9,999,990, so ids are unique and out of order
        stay.hadm_id = 20_000_001 + ((index * MAX_STAYS + number) * 7_654_321 + 1_234_567) % 9_999_991
    return patient if patient.stays else None


def _draw_stay(hospital, scenario, sex, age, frailty, chronic, rng) -> Stay | None:
    """Draw codes until the grouper puts them where the scenario belongs; chronic diagnoses stay with the patient."""
    for _ in range(_DRAWS):
        principal = weighted(rng, scenario.principal)
        side = hospital.side(principal[0])
        fitting = [c for c in scenario.procedures if not side or {hospital.side(code) for code in c[0]} <= {side, ""}]
        procedures = list(weighted(rng, fitting or scenario.procedures))
        alive = rng.random() >= scenario.death * min(2.0, frailty)
        written = dict.fromkeys(principal, 1.0)
        drawn = dict(chronic) if scenario.service != "OBSTETRICS" and rng.random() < 0.9 else {}
        for pool, weight in scenario.comorbidities.items():
            for entry in hospital.pools[pool]:
                kind = hospital.condition(entry.code).kind
                scale = frailty * scenario.acuity if kind == "a" else 0.5 + 0.5 * frailty
                if entry.sex in ("", sex) and rng.random() < entry.probability * weight * scale:
                    drawn[entry.code] = _WRITTEN[kind] if entry.written is None else entry.written
        secondary = reconcile(hospital, list(principal), [code for code in drawn if code not in principal])
        if "Z66" in secondary and "Z515" in secondary and alive:
            secondary.remove("Z515")
        codes = list(principal[:1]) + sorted(
            [*principal[1:], *secondary], key=lambda code: (-hospital.severity(code), rng.random())
        )
        status = "07" if "894" in scenario.drgs else "01"
        drg = hospital.group(codes, procedures, sex, alive, status)
        if drg in scenario.drgs:
            for code in secondary:
                if hospital.condition(code).kind in "ch" and code[0] not in "OPZ":
                    chronic[code] = drawn.get(code, 0.8)
            kept = {code for code in codes if rng.random() < written.get(code, drawn.get(code, 0.8))}
            return Stay(scenario, codes, kept, procedures, drg, alive, age)
    return None


def reconcile(hospital: Hospital, principal: list[str], secondary: list[str]) -> list[str]:
    """Apply the coding rules of ``rules.csv``: combination codes, and codes that exclude or contain one another."""
    secondary = [code for code in secondary if code[:3] != principal[0][:3] or code[0] in "SZOP"]
    for present, replaces, by in hospital.rules:
        for code in [c for c in secondary if c.startswith(replaces)]:
            others = [c for c in [*secondary, *([] if by else principal)] if c != code]
            if all(code == p or any(c.startswith(p) for c in others) for p in present):
                secondary.remove(code)
                if by and by not in secondary and by not in principal:
                    secondary.append(by)
    return secondary


def _date(hospital: Hospital, patient: Patient, age: int, rng: np.random.Generator) -> None:
    """Give the stays their dates, in order, so that each DRG exists in its fiscal year."""
    offset, offsets = 0, []
    for stay in patient.stays:
        gmlos = hospital.facts[2019, stay.drg_v36][1]
        length = max(0.3, gmlos * float(rng.lognormal(0.08, 0.45)))
        offsets.append((offset, length))
        offset += int(length) + 3 + int(rng.exponential(220.0))
    earliest = FIRST_DAY
    for stay, (days, _) in zip(patient.stays, offsets, strict=True):
        year = hospital.first_year.get(stay.drg_v36, 2008)
        if stay.drg_v36 not in hospital.drg_before and year > 2008:
            earliest = max(earliest, datetime(year - 1, 10, 1) - timedelta(days=days))
    span = (LAST_DAY - earliest).days
    while offsets[1:] and offsets[-1][0] >= span:  # the study period ends before this stay
        offsets.pop()
        patient.stays.pop()
    start = earliest + timedelta(days=int(rng.random() * (span - offsets[-1][0] if offsets else 1)))
    for stay, (days, length) in zip(patient.stays, offsets, strict=True):
        stay.admitted = start + timedelta(days=days, minutes=int(rng.random() * 1440))
        stay.discharged = stay.admitted + timedelta(days=length)
        stay.age = age + (stay.admitted.year - patient.stays[0].admitted.year)
        stay.fiscal_year = stay.admitted.year + (stay.admitted.month >= 10)
        known = stay.fiscal_year >= hospital.first_year.get(stay.drg_v36, 2008)
        stay.drg = stay.drg_v36 if known else hospital.drg_before[stay.drg_v36]
    last = patient.stays[-1] if patient.stays else None
    if last and not last.alive:
        patient.dod = last.discharged
