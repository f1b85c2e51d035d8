"""Vital signs, laboratory values and urine output of an ICU stay, as its diagnoses and procedures shift them.

``vitals.csv`` lists what is measured. It has MIMIC-III's item in each charting system, and the mean and standard
deviation between patients whom no diagnosis affects; where `scale` is "log", the standard deviation is that of the
logarithm, and the mean is the median. `wobble` is the standard deviation within a patient, `every` the number of hours
between measurements. Variables of one `signal` move together (systolic and mean pressure); those of one `panel` are
measured together. `when` says when: in all hours, in ventilated hours, or in a share of the stays, which is larger
where there is a reason.

``physiology.csv`` lists effects: how far a signal shifts, in standard deviations between patients, once a code with one
of the prefixes shows; after how many hours the shift is full; and its half-life in hours (0: it stays). "age" (per
decade over 60), "female", "ventilated" and "died" act as codes do.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from drgstudy.synthetic.icu_stays import IcuStay
from drgstudy.synthetic.tables import FOLDER, Hospital

BEFORE, HORIZON = 24, 60  # hours before and after ICU admission in which anything is measured
_AUTOCORRELATION = 0.85  # of the variation within a patient, from hour to hour
_MISSED = 0.06  # share of the due measurements that are not made
_OPERATED = 3.0  # procedures act from so many hours before ICU admission
_SHIFTED, _MORE_OFTEN = 1.0, 6  # a panel with a signal that shifts by more than that is measured in more stays
_BETWEEN = 0.6  # of the standard deviation between patients, what no cause explains
_CLARITY = 1.7  # mean strength of a cause: how much of ``physiology.csv``'s shifts shows
_MAX_SHIFT = 6.0  # standard deviations that the sum of many shifts approaches
_NUMBERS = ["mean", "sd", "wobble", "low", "high", "decimals"]
Rows = list[tuple[float, int, float, str]]


class _Knowledge(NamedTuple):
    """What both tables say."""

    variables: pd.DataFrame  # vitals.csv
    panel: np.ndarray  # the number of each variable's panel
    signal: np.ndarray  # the number of each variable's signal
    effects: np.ndarray  # shape (effects, 4): number of the signal, shift, hours until it is full, half-life
    rows_of: dict[str, list[int]]  # the effects of each prefix


@functools.cache
def _knowledge() -> _Knowledge:
    """Both tables, read once in each process."""
    variables = pd.read_csv(FOLDER / "vitals.csv").fillna({"unit": "", "scale": ""})
    effects = pd.read_csv(FOLDER / "physiology.csv")
    panel, signal = (pd.factorize(variables[column])[0] for column in ("panel", "signal"))
    rows_of: dict[str, list[int]] = {}
    for row, prefixes in enumerate(effects["prefix"]):
        for prefix in prefixes.split():
            rows_of.setdefault(prefix, []).append(row)
    effects["signal"] = effects["signal"].map(dict(zip(variables["signal"], signal, strict=True)))
    effects["half"] = effects["half"].replace(0, np.inf)
    return _Knowledge(variables, panel, signal, effects.drop(columns="prefix").to_numpy(float), rows_of)


def _causes(icu: IcuStay, rng: np.random.Generator) -> list[tuple[str, float, float]]:
    """What acts on the patient: code (or "age" and so on), hour of onset, and strength."""
    stay = icu.stay
    strength = iter((_CLARITY * rng.gamma(4.0, 0.25, len(stay.codes) + len(stay.procedures) + 2)).tolist())
    causes = [(code, icu.onset[code], next(strength)) for code in stay.codes]
    causes += [(code, -min(icu.before, _OPERATED), next(strength)) for code in stay.procedures]
    causes.append(("age", -np.inf, (stay.age - 60) / 10))
    if icu.sex == "F":
        causes.append(("female", -np.inf, 1.0))
    if icu.ventilated:
        causes.append(("ventilated", icu.ventilated[0], next(strength)))
    if not stay.alive:
        death = (stay.discharged - stay.admitted).total_seconds() / 3600 - icu.before
        causes.append(("died", death - 36, next(strength)))
    return causes


def _shifts(knowledge: _Knowledge, icu: IcuStay, hours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts of shape (signals, hours), in standard deviations: the sum over all effects that some cause brings about.

    An effect that has several causes acts once, from the earliest onset.
    """
    acting: dict[int, tuple[float, float]] = {}
    for code, onset, strength in _causes(icu, rng):
        for length in range(1, len(code) + 1):
            for row in knowledge.rows_of.get(code[:length], ()):
                acting[row] = min(acting.get(row, (np.inf, 0.0)), (onset, strength))
    signal, shift, peak, half = knowledge.effects[list(acting)].T[..., None]
    onset, strength = np.array(list(acting.values())).reshape(-1, 2).T[..., None]
    since = hours - np.maximum(onset, -BEFORE)  # those who come from the ward after days are still ill
    grown = np.clip((since + 0.5) / (peak + 0.5), 0, 1) * (since >= 0)
    course = strength * shift * grown * 0.5 ** (np.maximum(since - peak, 0) / half)
    total = np.zeros((knowledge.signal.max() + 1, len(hours)))
    np.add.at(total, signal[:, 0].astype(int), course)
    return _MAX_SHIFT * np.tanh(total / _MAX_SHIFT)


def draw(hospital: Hospital, icu: IcuStay, rng: np.random.Generator) -> dict[str, Rows]:
    """Draw what is measured in an ICU stay.

    Parameters
    ----------
    hospital : Hospital
        Knows which diagnoses are MCCs; each of them makes more measurements likely.
    icu : IcuStay
        The stay.
    rng : numpy.random.Generator
        The patient's own generator.

    Returns
    -------
    dict
        "chart", "lab" and "output": rows of (hours after ICU admission, item id, value, unit), ordered by time. Chart
        and output begin at hour 0, and labs up to 24 hours before if the patient was in hospital by then. All end with
        the ICU stay, or after 60 hours.

    Notes
    -----
    Source: ours; means and deviations were tuned to the open demo of MIMIC-III.
    """
    knowledge = _knowledge()
    variables, panel = knowledge.variables, knowledge.panel
    lab = (variables["source"] == "lab").to_numpy()
    first, last = int(np.ceil(-min(icu.before, BEFORE))), int(min(icu.hours, HORIZON))
    hours = np.arange(first, max(last, 0))
    shifts = _shifts(knowledge, icu, hours, rng)
    noise = rng.standard_normal(shifts.shape)
    noise[:, 1:] *= np.sqrt(1 - _AUTOCORRELATION**2)
    wobble = lfilter([1], [1, -_AUTOCORRELATION], noise)
    patient = _BETWEEN * rng.standard_normal((len(shifts), 1)) + shifts
    mean, sd, within, low, high, decimals = variables[_NUMBERS].to_numpy(float).T[..., None]
    deviation = sd * patient[knowledge.signal] + within * wobble[knowledge.signal]
    log = (variables["scale"] == "log").to_numpy()[:, None]
    values = np.clip(np.where(log, mean * np.exp(log * deviation), mean + deviation), low, high)
    values = np.round(values * 10**decimals) / 10**decimals

    n_panels = panel.max() + 1
    largest_shift = np.zeros(n_panels)
    np.maximum.at(largest_shift, panel, np.abs(shifts).max(axis=1, initial=0)[knowledge.signal])
    mccs = sum(hospital.severity(code) == 2 for code in icu.stay.codes)
    reason = (1 + 0.15 * mccs) * np.where(largest_shift > _SHIFTED, _MORE_OFTEN, 1)
    share = pd.to_numeric(variables["when"].replace({"all": 1, "ventilated": 1})).to_numpy()
    chosen = rng.random(n_panels)[panel] < share * reason[panel]
    every = variables["every"].to_numpy()[:, None]
    offset = np.floor(rng.random((n_panels, 1))[panel] * np.minimum(every, 4))
    begin = np.where(lab, first, 0)[:, None] + offset
    done = rng.random((n_panels, len(hours)))[panel] > _MISSED
    due = (hours >= begin) & ((hours - begin) % every == 0) & done
    start, stop = icu.ventilated or (np.inf, np.inf)
    due &= (variables["when"] != "ventilated").to_numpy()[:, None] | ((hours >= start) & (hours + 1 <= stop))
    minutes = np.floor(60 * rng.random((n_panels, len(hours))) ** 3)  # most are soon after the full hour

    items = variables["itemid_metavision" if icu.metavision else "itemid_carevue"].to_numpy()
    which, when = np.nonzero(due & (chosen & ~np.isnan(items))[:, None])
    times = hours[when] + minutes[panel[which], when] / 60
    order = np.lexsort((items[which], times))
    which, when, times = which[order], when[order], times[order]
    source, unit = variables[["source", "unit"]].to_numpy()[which].T
    found = times.tolist(), items[which].astype(int).tolist(), values[which, when].tolist(), unit
    rows: dict[str, Rows] = {"chart": [], "lab": [], "output": []}
    for name, row in zip(source, zip(*found, strict=True), strict=True):
        rows[name].append(row)
    return rows
