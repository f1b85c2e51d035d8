"""Vital signs, laboratory values and urine of an ICU stay, as its diagnoses and procedures make them.

``vitals.csv`` has what is measured: MIMIC-III's item in each charting system, mean and standard deviation between
patients whom no diagnosis changes (of the logarithm, the mean then being the median, where `scale` is "log"), the
deviation within a patient (`wobble`), and the hours between measurements (`every`). Variables of one `signal` move
together (systolic and mean pressure); those of one `panel` are measured together, `when` all, in ventilated hours, or
in a share of the stays, a larger one where there is reason. ``physiology.csv`` has how far a signal shifts, in standard
deviations between patients, when a code with one of the prefixes sets in; the hours until the shift is full; and its
half-life (0: it stays). "age" (per decade over 60), "female", "ventilated" and "died" act as codes do.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from drgstudy.synthetic.tables import FOLDER, Hospital

if TYPE_CHECKING:
    from drgstudy.synthetic.icu import IcuStay

BEFORE, HORIZON = 24, 60  # hours before and after ICU admission
_MEMORY = 0.85  # correlation of a wobble with that of the hour before
_MISSED = 0.06  # of the measurements due
_OPERATED = 3.0  # hours before ICU admission
_MOVED, _REASON = 1.0, 6  # a panel one of whose signals shifts that far is measured in so many times more stays
_MOST = 6.0  # standard deviations that shifts tend to as they add up
_NUMBERS = ["mean", "sd", "wobble", "low", "high", "decimals"]
Rows = list[tuple[float, int, float, str]]


class _Knowledge(NamedTuple):
    """Both tables; `panel` and `signal` number those of each variable, `effects` has signal, shift, peak, half-life."""

    variables: pd.DataFrame
    panel: np.ndarray
    signal: np.ndarray
    effects: np.ndarray
    rows_of: dict[str, list[int]]  # of the effects, by prefix


@functools.cache
def _knowledge() -> _Knowledge:
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
    """What acts on the patient: code (or "age", ...), hour of onset, and how strongly it acts (1 on average)."""
    stay = icu.stay
    strength = iter(rng.gamma(4.0, 0.25, len(stay.codes) + len(stay.procedures) + 2).tolist())
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


def _shifts(know: _Knowledge, icu: IcuStay, hours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts (signals, hours) in standard deviations: those of all causes added up; a row acts once."""
    acting: dict[int, tuple[float, float]] = {}
    for code, onset, strength in _causes(icu, rng):
        for length in range(1, len(code) + 1):
            for row in know.rows_of.get(code[:length], ()):
                acting[row] = min(acting.get(row, (np.inf, 0.0)), (onset, strength))
    signal, shift, peak, half = know.effects[list(acting)].T[..., None]
    onset, strength = np.array(list(acting.values())).reshape(-1, 2).T[..., None]
    since = hours - np.maximum(onset, -BEFORE)  # who comes from the ward after days is still ill
    grown = np.clip((since + 0.5) / (peak + 0.5), 0, 1) * (since >= 0)
    course = strength * shift * grown * 0.5 ** (np.maximum(since - peak, 0) / half)
    total = np.zeros((know.signal.max() + 1, len(hours)))
    np.add.at(total, signal[:, 0].astype(int), course)
    return _MOST * np.tanh(total / _MOST)


def draw(hospital: Hospital, icu: IcuStay, rng: np.random.Generator) -> dict[str, Rows]:
    """Draw what is measured in an ICU stay.

    Parameters
    ----------
    hospital : Hospital
        Knows which diagnoses are MCCs; with each of them more is measured.
    icu : IcuStay
        The stay.
    rng : numpy.random.Generator
        The stay's own; all randomness comes from it.

    Returns
    -------
    dict
        "chart", "lab", "output": rows (hours after ICU admission, item id, value, unit) by time. Chart and output begin
        at 0, labs up to 24 hours before, if the patient was in hospital; all end with the ICU stay, or after 60 hours.
    """
    know = _knowledge()
    v, panel, lab = know.variables, know.panel, (know.variables["source"] == "lab").to_numpy()
    first, last = int(np.ceil(-min(icu.before, BEFORE))), int(min(icu.hours, HORIZON))
    hours = np.arange(first, max(last, 0))
    shifts = _shifts(know, icu, hours, rng)
    noise = rng.standard_normal(shifts.shape)
    noise[:, 1:] *= np.sqrt(1 - _MEMORY**2)
    wobble = lfilter([1], [1, -_MEMORY], noise)
    patient = rng.standard_normal((len(shifts), 1)) + shifts
    mean, sd, within, low, high, decimals = v[_NUMBERS].to_numpy(float).T[..., None]
    deviation = sd * patient[know.signal] + within * wobble[know.signal]
    log = (v["scale"] == "log").to_numpy()[:, None]
    values = np.clip(np.where(log, mean * np.exp(log * deviation), mean + deviation), low, high)
    values = np.round(values * 10**decimals) / 10**decimals

    moved = np.zeros(panel.max() + 1)
    np.maximum.at(moved, panel, np.abs(shifts).max(axis=1, initial=0)[know.signal])
    mccs = sum(hospital.severity(code) == 2 for code in icu.stay.codes)
    reason = (1 + 0.15 * mccs) * np.where(moved > _MOVED, _REASON, 1)
    share = pd.to_numeric(v["when"].replace({"all": 1, "ventilated": 1})).to_numpy()
    chosen = rng.random(len(moved))[panel] < share * reason[panel]
    every = v["every"].to_numpy()[:, None]
    begin = np.where(lab, first, 0)[:, None] + np.floor(rng.random((len(moved), 1))[panel] * np.minimum(every, 4))
    due = (hours >= begin) & ((hours - begin) % every == 0) & (rng.random((len(moved), len(hours)))[panel] > _MISSED)
    on, off = icu.ventilated or (np.inf, np.inf)
    due &= (v["when"] != "ventilated").to_numpy()[:, None] | ((hours >= on) & (hours + 1 <= off))
    minutes = np.floor(60 * rng.random((len(moved), len(hours))) ** 3)  # most soon after the full hour

    items = v["itemid_metavision" if icu.metavision else "itemid_carevue"].to_numpy()
    which, when = np.nonzero(due & (chosen & ~np.isnan(items))[:, None])
    times = hours[when] + minutes[panel[which], when] / 60
    order = np.lexsort((items[which], times))
    which, when, times = which[order], when[order], times[order]
    source, unit = v[["source", "unit"]].to_numpy()[which].T
    found = times.tolist(), items[which].astype(int).tolist(), values[which, when].tolist(), unit
    rows: dict[str, Rows] = {"chart": [], "lab": [], "output": []}
    for name, row in zip(source, zip(*found, strict=True), strict=True):
        rows[name].append(row)
    return rows
