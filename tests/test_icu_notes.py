"""Notes of an ICU stay tell what has begun, are as long as asked for, and say nothing that a bill would say."""

import re
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from drgstudy.synthetic.authors import Author
from drgstudy.synthetic.course import Writer
from drgstudy.synthetic.icu_notes import admitting_diagnosis, count_words, write_notes
from drgstudy.synthetic.patients import draw_patient, pick
from drgstudy.synthetic.tables import Hospital

CATEGORIES = {"Nursing/other", "Radiology", "Nursing", "Physician ", "Respiratory ", "General", "ECG", "Echo"}
PHYSICIANS = {"Nursing", "Physician ", "Respiratory ", "General"}  # MetaVision's


def timed(hospital, stay, sex, rng):
    """A simple timing of our own: acute secondary diagnoses begin on arrival or within two days."""
    total = (stay.discharged - stay.admitted) / timedelta(hours=1)
    before = min(float(rng.exponential(6.0)), total / 2)
    hours = min(float(max(8.0, rng.lognormal(4.0, 0.8))), total - before)
    onset = {}
    for code in stay.codes:
        late = hospital.condition(code).kind == "a" and code != stay.codes[0] and rng.random() < 0.5
        onset[code] = float(rng.uniform(0, hours)) if late else -before
    ventilated = (0.5 * hours, 0.8 * hours) if rng.random() < 0.3 else None
    return SimpleNamespace(stay=stay, sex=sex, before=before, hours=hours, onset=onset, ventilated=ventilated,
                           metavision=bool(rng.random() < 0.5))  # fmt: skip


@pytest.fixture(scope="module")
def hospital():
    return Hospital(0.3)


@pytest.fixture(scope="module")
def staff(hospital):
    return Author.staff(hospital)


def draw(hospital, staff, patients, note_words, seed=0):
    """Pairs of an ICU stay and its notes, and the clerk's diagnosis."""
    for number in patients:
        rng = np.random.default_rng([seed, number])
        patient = draw_patient(hospital, number, rng)
        for stay in patient.stays:
            if stay.age and stay.discharged - stay.admitted > timedelta(hours=12):
                icu = timed(hospital, stay, patient.sex, rng)
                writer = Writer(pick(rng, staff[stay.scenario.service]), stay, patient.sex, rng)
                diagnosis = admitting_diagnosis(writer)
                yield icu, write_notes(writer, icu, note_words), diagnosis


@pytest.fixture(scope="module")
def short(hospital, staff):
    return list(draw(hospital, staff, range(300), 150))


@pytest.fixture(scope="module")
def long(hospital, staff):
    return list(draw(hospital, staff, range(1000, 1060), 1500))


def plain(text):
    return re.sub(r"\W+", " ", text.lower())


def test_hours_and_categories_are_mimic_s(short, long):
    for icu, notes, _ in [*short, *long]:
        hours = [hour for hour, *_ in notes if hour is not None]
        assert hours == sorted(hours) and hours[0] <= 0
        assert all(-icu.before <= hour <= min(icu.hours, 72) for hour in hours)
        assert [hour is None for hour, *_ in notes] == sorted([hour is None for hour, *_ in notes], reverse=True)
        for hour, category, description, text in notes:
            assert category in CATEGORIES and description and text.strip()
            assert (hour is None) == (category in ("ECG", "Echo"))
            assert category not in PHYSICIANS if not icu.metavision else category != "Nursing/other"


def test_no_slot_is_left_unfilled(short, long):
    for _, notes, diagnosis in [*short, *long]:
        assert diagnosis and diagnosis == diagnosis.upper() and not re.search(r"[{}]|___", diagnosis)
        for *_, text in notes:
            assert not re.search(r"[{}]|___|\bNone\b|\.\.", text), text


def test_nothing_is_named_before_it_begins(hospital, short, long):
    """By names that no other condition has, nor any name of the same stay contains."""
    texts = {}
    for condition in hospital.lexicon.values():
        for text in (*condition.names, *condition.presenting, *condition.findings, *condition.treatments):
            texts[plain(text)] = texts.get(plain(text), 0) + 1
    whole = " | ".join(f" {text} " for text in texts)
    early = late = 0
    for icu, notes, _ in [*short, *long]:
        for code in icu.stay.codes[1:]:
            look = hospital.condition(code)
            own = [n for n in map(plain, look.names) if len(n) > 9 and whole.count(f" {n} ") == 1]
            if icu.onset[code] <= 0 or not own:
                continue
            for hour, *_, text in notes:
                named = any(f" {name} " in f" {plain(text)} " for name in own)
                before = (0.0 if hour is None else hour) < icu.onset[code]
                early += named and before
                late += named and not before
                assert not (named and before), (code, hour, icu.onset[code], text)
    assert late > 25 and early == 0


def test_what_is_not_written_down_is_in_no_note(hospital, short):
    for icu, notes, _ in short:
        unwritten = [code for code in icu.stay.codes if code not in icu.stay.written]
        if "E785" in unwritten:
            assert not re.search(r"hyperlipid|dyslipid|\bHLD\b", " ".join(text for *_, text in notes))
        if "Z66" in unwritten:
            assert "DNR" not in " ".join(text for *_, text in notes)


def test_the_principal_diagnosis_is_named_ever_more_often(hospital, short):
    named = {"early": [], "middle": [], "late": []}
    for icu, notes, _ in short:
        if icu.stay.scenario.admission == "L":
            continue
        names = {plain(name) for name in hospital.condition(icu.stay.codes[0]).names if "{" not in name}
        for hour, category, _, text in notes:
            if hour is not None and category not in ("Radiology", "Respiratory "):
                when = "early" if hour < 6 else "middle" if hour < 24 else "late"
                named[when].append(any(f" {name} " in f" {plain(text)} " for name in names))
    early, middle, late = (np.mean(values) for values in named.values())
    assert 0.1 < early < middle - 0.05 and middle < late - 0.05 and late < 0.9


def test_no_wording_of_a_drg_title(hospital, short, long):
    titles = {plain(entry["desc"]).strip() for entry in hospital.engine.drgmap.values()}
    titles |= {plain(hospital.base_title(drg)).strip() for drg in hospital.engine.drgmap}
    words = plain(" ".join(text for _, notes, _ in [*short, *long] for *_, text in notes))
    assert not [title for title in titles if len(title.split()) >= 4 and f" {title} " in words]


def test_the_dial_sets_the_mean_length(short, long):
    for stays, meant, tolerance in ((short, 150, 0.1), (long, 1500, 0.2)):
        words = [sum(count_words(n[3]) for n in notes if n[0] is not None and n[0] <= 48) for _, notes, _ in stays]
        assert abs(np.mean(words) / meant - 1) < tolerance
    numbers = [sum(hour is not None and hour <= 48 for hour, *_ in notes) for _, notes, _ in short]
    assert np.percentile(numbers, 10) >= 3 and np.percentile(numbers, 90) <= 8
    second_day = [any(hour and 24 < hour <= 48 for hour, *_ in notes) for icu, notes, _ in short if icu.hours > 48]
    assert np.mean(second_day) > 0.75


def test_same_seed_same_notes(hospital, staff, short):
    again = list(draw(hospital, staff, range(20), 150))
    assert [notes for _, notes, _ in again] == [notes for _, notes, _ in short[: len(again)]]
    assert [diagnosis for *_, diagnosis in again] == [diagnosis for *_, diagnosis in short[: len(again)]]


def test_only_the_ventilated_have_a_tube(short):
    for icu, notes, _ in short:
        procedures = " ".join(icu.stay.procedures)
        for hour, category, _, text in notes:
            tube = re.search(r"Sedated on|RASS|SBT in am|Vent bundle|ETT rotated", text)
            if hour is not None and (category == "Respiratory " or tube):
                assert icu.ventilated and icu.ventilated[0] <= hour < icu.ventilated[1], (procedures, text)


def test_marks_of_mimic_iii(short):
    text = "\n".join(text for _, notes, _ in short for *_, text in notes)
    assert re.search(r"\[\*\*\d{4}-\d{1,2}-\d{1,2}\*\*\]", text) and re.search(r"\[\*\*Hospital \d+\*\*\]", text)
    assert count_words("seen at [**Hospital 18**] today") == 3
    assert not re.search(r"\b9\d (?:yo|year old|y/o|y\.o\.)", text)  # ages over 89 are hidden
