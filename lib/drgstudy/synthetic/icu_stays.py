"""Who comes to intensive care, when and for how long, and from which hour each code shows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from drgstudy.synthetic.patients import FIRST_DAY, Stay
from drgstudy.synthetic.tables import Hospital

LAST_DAY = datetime(2012, 10, 1)  # MIMIC-III ends with fiscal year 2012
SHOWS_LATER = 1 / 3  # share of the acute secondary diagnoses that begin to show during the ICU stay
OPEN_HEART = re.compile("02..0")  # procedures on the heart by an open approach
CRANIOTOMY = re.compile("00[9BC][0-7]|03[CV]G|0N[8S]0")
VENTILATION = re.compile("5A19|5A1522|0BH17E|0B11")  # with intubation, tracheostomy and ECMO
_CRITICAL = re.compile("R652|R57|R402|I46|I60|I61|I21[034]|J96[02]|J80|K72|D65|E872|T811|I63|S06|K920|I85|I71")
_HOURS_VENTILATED = {"5A1935Z": (4, 24), "5A1945Z": (24, 96), "5A1955Z": (97, 260)}  # as the codes define them
_SERVICE_LOG_ODDS = {  # what a service adds to the log odds of intensive care
    "CARDIAC SURGERY": 2.0,
    "NEUROSURGERY": 1.0,
    "VASCULAR": 0.8,
    "THORACIC": 0.8,
    "TRANSPLANT": 0.8,
    "CARDIOLOGY": 0.6,
    "ACS": 0.4,
    "MEDICINE": 0.3,
    "NEUROLOGY": 0.2,
    "SURGERY": 0.2,
    "ORTHOPAEDICS": -0.7,
    "OBSTETRICS": -2.0,
    "PSYCHIATRY": -4.0,
}


@dataclass
class IcuStay:
    """The (first) ICU stay of an admission; hours count from ICU admission, those before it are negative."""

    stay: Stay
    sex: str
    before: float  # hours from hospital to ICU admission, to the minute
    hours: float  # in the ICU, to the minute
    onset: dict[str, float]  # the hour from which each of the stay's codes shows
    ventilated: tuple[float, float] | None  # from which hour to which
    metavision: bool  # charted by MetaVision, otherwise by CareVue


def draw_icu(hospital: Hospital, stay: Stay, sex: str, rng: np.random.Generator) -> IcuStay | None:
    """Draw the ICU stay of an admission, or return None if it has none.

    A planned operation takes place on the day of admission, so the admission is moved to that day's morning.
    """
    if not stay.age or rng.random() > _probability(hospital, stay):
        return None
    if planned := stay.scenario.admission == "L" and hospital.operative(stay.procedures):
        morning = stay.admitted.replace(hour=6, minute=int(60 * rng.random()))
        stay.admitted, stay.discharged = morning, stay.discharged + (morning - stay.admitted)
    total = (stay.discharged - stay.admitted).total_seconds() // 60 / 60
    open_heart = _any(OPEN_HEART, stay.procedures)
    coded = [_HOURS_VENTILATED.get(code, (12, 90)) for code in stay.procedures if VENTILATION.match(code)]
    hours_ventilated = rng.uniform(*max(coded, default=(3, 20) if open_heart else (12, 90)))
    hours = max(float(rng.lognormal(np.log(54), 1.1)), hours_ventilated + 4 if coded else 6.0)
    before = 2.5 + 6.5 * rng.beta(2, 3) if planned else 8 * rng.beta(1, 2)
    if not planned and rng.random() < 0.18:  # deteriorated on the ward
        before = 10 + rng.exponential(40.0)
    before = round(60 * min(before, total / 2)) / 60
    hours = round(60 * min(hours if stay.alive or rng.random() < 0.25 else total, total - before)) / 60
    presenting = {code for codes, _ in stay.scenario.principal if codes[0] == stay.codes[0] for code in codes}
    onset = {}
    for code in stay.codes:
        on_admission = code in presenting or hospital.condition(code).kind in "ch"
        onset[code] = -before if on_admission or rng.random() > SHOWS_LATER else rng.uniform(0, min(72.0, hours))
    failure = [onset[code] for code in stay.codes if code.startswith("J96")]
    ventilated = None
    if coded or open_heart or (failure and rng.random() < 0.5):
        start = 0.0 if open_heart else max(-min(before, 3 * rng.random()), *failure[:1], -before)
        ventilated = (start, min(start + hours_ventilated, hours))
    metavision = rng.random() < 0.15 + 0.8 * (stay.admitted - FIRST_DAY) / (LAST_DAY - FIRST_DAY)
    return IcuStay(stay, sex, before, hours, onset, ventilated, metavision)


def _probability(hospital: Hospital, stay: Stay) -> float:
    """The probability of intensive care: near 1 after open-heart surgery or a craniotomy, or with a ventilator."""
    mccs = sum(hospital.severity(code) == 2 for code in stay.codes[1:])
    critical = sum(bool(_CRITICAL.match(code)) for code in stay.codes)
    log_odds = -2.35 + 3 * (stay.scenario.acuity - 0.8) + _SERVICE_LOG_ODDS.get(stay.scenario.service, -0.4)
    log_odds += 0.5 * min(3, mccs) + 1.2 * min(3, critical) + 1.8 * (not stay.alive)
    log_odds -= 1.2 * stay.codes[0].startswith("A4")  # most patients with sepsis stay on the ward
    log_odds += 5.0 * any(_any(pattern, stay.procedures) for pattern in (OPEN_HEART, CRANIOTOMY, VENTILATION))
    return 1 / (1 + np.exp(-log_odds))


def _any(pattern: re.Pattern, codes: Iterable[str]) -> bool:
    return any(map(pattern.match, codes))
