"""The timed notes of an ICU stay in MIMIC-III's categories, which reveal the stay bit by bit.

The two systems that charted MIMIC-III differ. CareVue has nurses' notes under "Nursing/other" and no physicians' notes;
MetaVision has a category for each profession. `icu_chart` knows what a note of an hour may tell.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache

import numpy as np

from drgstudy.synthetic.authors import capitalized
from drgstudy.synthetic.course import Writer
from drgstudy.synthetic.icu_chart import LAST_HOUR, PLANNED_KNOWN, Chart, Presentation, count_words, icu_phrases
from drgstudy.synthetic.icu_stays import IcuStay
from drgstudy.synthetic.patients import pick
from drgstudy.synthetic.tables import Condition

COUNTED = 48.0  # the number of words asked for is that of all notes up to this hour
_NAMED = 0.85  # how often a note names what is known, rather than only its findings and treatment
_DIFFERENTIAL_HAS_TRUTH = 0.35  # how often the true diagnosis is in a differential diagnosis
_TYPED, _SUSPECTED = 0.42, 0.15  # shares of admitting diagnoses: the principal one; another of the differential
_HIDDEN = re.compile(r"(Dr\. |[Oo]n |[Ii]n |last |of |contact )?___( ?(?:year[ -]old|yo\b|y/o|[MF]\b))?")
_MODE = (
    r"(?:chest |trauma |post-procedure )?"
    r"(?:CXR|CTA?|MRI|MRCP|US|NCHCT|KUB|XR|TTE|TEE|EKG|ultrasound|duplex|film|telemetry)\b"
)
_LABS = "(?:WBC|LDH|BNP|lactate|NIHSS|Hct|CK|ICP|INR|ALT|bili|MELD|lipase|CSF|sputum|HSV|EEG|purulent|bacteremia|P:F)"
_UNSEEN = re.compile(  # the parts of a finding that a radiologist does not see, and the name of the study
    rf"^anasarca with |^{_LABS}[^,]*?(?:, | and | with (?!.*cultures))|(?:,| with| and) {_LABS}\b.*$"
    rf"|^{_MODE}(?: head| brain)? with |(?: seen)? on {_MODE}"
)


@lru_cache(100_000)
def _study_showing(finding: str) -> str:
    """The study that shows a finding, "" if none does."""
    return next((name for name, exam in icu_phrases()["exams"].items() if re.search(exam["shows"], finding)), "")


def _minute(hour: float) -> float:
    """An hour cut off to the minute."""
    return float(np.floor(hour * 60 + 1e-6) / 60)


def write_notes(writer: Writer, icu: IcuStay, note_words: int) -> list[tuple[float | None, str, str, str]]:
    """Write all notes of a stay from hospital admission to the end of the ICU stay or to its 72nd hour.

    Parameters
    ----------
    writer : Writer
        The author, and the hospital stay, ``icu.stay``.
    icu : IcuStay
        The ICU stay, and from which hour each code shows.
    note_words : int
        Mean number of words, over stays, of all notes that have an hour up to the 48th; see `make_icu_hospital`.

    Returns
    -------
    list of (float or None, str, str, str)
        Hour after ICU admission (to the minute), CATEGORY, DESCRIPTION and TEXT. Reports without an hour have a date
        only, that of ICU admission; they tell what shows by hour 0, come first, and do not count towards the words.

    Notes
    -----
    Source: ours.
    """
    chart, rng, author = Chart(writer, icu), writer.rng, writer.author
    left = note_words * float(rng.lognormal(-0.045, 0.3))
    typical_length = 2 * note_words**0.57 * author.verbosity
    n_notes = max(3 if note_words > 100 else 2, round(left / typical_length) + int(rng.integers(-1, 2)))
    hours = _hours(icu, n_notes, rng)
    if chart.planned and rng.random() < 0.6:  # the first note is written when they come from the theatre
        hours[0] = 0.0
    if chart.died:
        hours[-1] = _minute(icu.hours)
    counted, notes = sum(hour <= COUNTED for hour in hours), []
    mean_words = left / counted
    for name, probability in (("ECG", 0.2), ("Echo", 0.08)):
        if rng.random() < probability + note_words / 4000:
            chart.hour = 0.0
            notes.append((None, name, "Report", _marked(chart, _study_report(chart, name, 12))))
    for number, hour in enumerate(hours):
        words = left / (counted - number) if number < counted else mean_words
        words *= 1.0 if number == counted - 1 else 0.7 + 0.6 * rng.random()
        category, description, text = _note(chart, hour, number, number == len(hours) - 1, max(8.0, words))
        notes.append((hour, category, description, _marked(chart, text)))
        left -= count_words(notes[-1][3])
    return notes


def admitting_diagnosis(writer: Writer) -> str:
    """What a clerk types on admission, in capitals: a diagnosis, a suspected diagnosis, or only the complaint."""
    chart, rng, at = Presentation(writer, writer.stay.codes[0]), writer.rng, writer.rng.random()
    if chart.planned:
        named = chart.procedures[:1] if rng.random() < 0.6 else []
        done = [writer.choose(writer.hospital.procedures[code]) for code in named]
        text = "\\".join([writer.name(chart.main) if at < PLANNED_KNOWN else chart.complaint, *done]) + "/SDA"
    elif at > 1 - _SUSPECTED and chart.differential:
        text = pick(rng, ["R/O ", "?", ""]) + writer.name(pick(rng, chart.differential))
    else:
        text = writer.name(chart.main) if at < _TYPED else chart.complaint
    return text.replace("___", "").strip().upper()


def _hours(icu: IcuStay, n_notes: int, rng: np.random.Generator) -> list[float]:
    """The hours of the notes: one by ICU admission, one early, the others through the stay; `n_notes` by `COUNTED`."""
    end, further = min(icu.hours, LAST_HOUR), n_notes - 2
    until = min(end, COUNTED)
    early = min(until / 2, 0.3 + 6 * rng.random())
    hours = [-min(icu.before, 10) * rng.random(), early]
    hours += [early + (until - early) * (0.08 + 0.92 * (i + rng.random()) / max(1, further)) for i in range(further)]
    hours += [until + (end - until) * rng.random() for _ in range(rng.poisson(n_notes * (end - until) / COUNTED))]
    return sorted(max(_minute(hour), -icu.before) + 0.0 for hour in hours)


def _note(chart: Chart, hour: float, number: int, last: bool, words: float) -> tuple[str, str, str]:
    """Write the note of an hour: category, description and text."""
    chart.hour, rng, metavision = hour, chart.rng, chart.icu.metavision
    died, at = last and chart.died, rng.random()
    radiology = (0.35 if chart.planned else 0.75) if number == 0 else 0.22 if number > 1 else 0
    if not died and at < radiology:
        name = _choose_study(chart)
        return "Radiology", name, _study_report(chart, name, words)
    if metavision and number > 1 and at > 0.92 and chart.ventilated and not died:
        text = "Respiratory Care:\n" + " ".join(chart.sentences(chart.phrases("RT"), words - 2))
        return "Respiratory ", "Respiratory Care Shift Note", text
    if metavision and number and not died and at < (0.6 if number == 1 else 0.5):
        kind = "Admission" if number == 1 else "Progress"
        title = f"{pick(rng, ['Physician Resident', 'Intensivist', 'Physician Attending'])} {kind} Note"
        return "Physician ", title, _physician_note(chart, words, kind == "Admission")
    text = _nursing_note(chart, words, chart.say("died") if died else "")
    if not metavision:
        return "Nursing/other", "Report", text
    ward = hour < 0 or at > 0.9
    return ("General", "Generic Note", text) if ward else ("Nursing", "Nursing Progress Note", text)


def _lead(chart: Chart, words: float) -> str:
    """The first sentences: who it is, why here, what it may be, and at times the chronic conditions."""
    writer, rng, operations, named = chart.writer, chart.rng, chart.operations[:2], chart.rng.random() < _NAMED
    kind = "_named" if chart.diagnosed and named else "_op" if operations else "_plain" if chart.diagnosed else ""
    kind = "_plain" if not kind and not chart.uncertain else kind
    kind = "_op_named" if kind == "_named" and operations else kind or ("_arrival" if not chart.told else "")
    name, procedures = writer.name(chart.main), [writer.choose(writer.hospital.procedures[c]) for c in operations]
    texts = [chart.say(f"lead{kind}", name=name, proc=writer.joined(procedures) if procedures else "")]
    if chart.uncertain and not chart.diagnosed and not operations and rng.random() < 0.5:
        one, other = (writer.name(pick(rng, chart.differential)) for _ in range(2))
        names = [one, name if rng.random() < _DIFFERENTIAL_HAS_TRUTH or other == one else other]
        first = int(rng.random() * 2)
        texts.append(chart.say("doubt", name=names[first], name2=names[1 - first]))
    chronic = [code for code in chart.codes if chart.look_up(code).kind in "ch" and chart.has_begun(code)]
    if chronic and (not chart.told or rng.random() < words / 1000):
        names = [writer.name(chart.look_up(code)) for code in chronic[: max(1, int(words / 12))]]
        texts.append(chart.say("history_line", hx=writer.joined(names)))
    chart.told |= {"", *operations}
    return " ".join(texts)


def _problems(chart: Chart, left: float, headed: bool) -> list[tuple[str, str, str]]:
    """What there is to tell, in up to `left` words: part of the note, name of the problem or "", text.

    If `headed`, the name of a problem will be its heading, so its text does not have it.
    """
    part, told, rng, writer = icu_phrases()["part"], chart.told, chart.rng, chart.writer
    here, items = part[chart.main.system], []
    if chart.ventilated and "on" not in told:
        items.append(("RESP", "", chart.say("vent_new" if chart.icu.ventilated[0] > 0 else "vent_arrived")))
    elif "on" in told and "off" not in told and not chart.ventilated and not chart.died:
        items.append(("RESP", "", chart.say("vent_over")))
        told.add("off")
    told |= {"on"} if chart.ventilated else set()
    for code, at in chart.performed.items():
        if at <= chart.hour and code not in told:
            items.append((here, "", chart.say("proc_new", proc=writer.choose(writer.hospital.procedures[code]))))
            told.add(code)
    acute = [code for code in chart.codes if chart.look_up(code).kind in "as" and chart.has_begun(code)]
    fresh, old = [c for c in acute if c not in told], [c for c in acute if c in told]
    main = [chart.apparent] if rng.random() < 0.7 and chart.has_begun(chart.apparent) else []
    at = int(rng.random() * 2)
    rng.shuffle(old)
    for code in [*fresh[:at], *main, *fresh[at:], *old]:
        if left - sum(count_words(name + text) for _, name, text in items) < (8 if items else 4):
            break
        condition = chart.look_up(code)
        known = chart.diagnosed or condition is not chart.main
        known = known and rng.random() < _NAMED and condition.kind != "s"
        name = writer.name(condition) if known else ""
        kind = "new" if code in fresh and chart.icu.onset[code] > 0 else "ongoing"
        text = chart.describe(kind, condition, "" if headed else name)
        if text or name:
            items.append((part[condition.system], name, text))
            told.add(code)
    if chart.lures and rng.random() < 0.3:
        items.append((here, "", chart.lures.pop()))
    return items


def _nursing_note(chart: Chart, words: float, ending: str) -> str:
    """A nurse's note by organ systems, or in prose; `ending` reports a death."""
    author, phrases = chart.writer.author, icu_phrases()
    lead = _lead(chart, words)
    left = words - count_words(lead + ending)
    sections: dict[str, list[str]] = {part: [] for part in phrases["headings"]}
    for part, _, text in _problems(chart, left, headed=False):
        sections[part].append(text)
        left -= count_words(text) + 1
    usual = [part for part in sections if part != "OTHER" and not (ending and part == "PLAN")]
    used: set[str] = set()
    for part in [str(part) for part in chart.rng.permutation(usual)] * 6:
        if left < 4:
            break
        sections[part].append(_filler(chart, part, used))
        left -= count_words(sections[part][-1]) + (len(sections[part]) == 1)
    order = sorted(sections, key=author.preference) if author.number % 3 == 0 else list(sections)
    if author.layout == "prose" and author.number % 2:
        lines = [" ".join([lead, *(text for part in order for text in sections[part])])]
    else:
        heads = {part: choices[author.number % len(choices)] for part, choices in phrases["headings"].items()}
        lines = [lead, *(f"{heads[part]} {' '.join(sections[part])}" for part in order if sections[part])]
    title = phrases["titles"][author.preference("title") % len(phrases["titles"])]
    return chart.writer.with_typos("\n".join(filter(None, [title if chart.hour >= 0 else "", *lines, ending])))


def _filler(chart: Chart, part: str, used: set[str]) -> str:
    """A sentence about a part of the note that is true of most patients; `used` collects the phrases used."""
    phrases, stay = icu_phrases(), chart.writer.stay
    holds = {
        "ok": part not in chart.abnormal and not (chart.ventilated and f"{part}_vent" in phrases),
        "vent": chart.ventilated,
        "op": bool(chart.operations) and stay.scenario.service != "CARDIOLOGY",
        "full": {"Z66", "Z515"}.isdisjoint(stay.codes),
        "out": stay.alive and chart.hour > chart.icu.hours - 6,
    }
    kinds = [part, *(f"{part}_{key}" for key, true in holds.items() if true and f"{part}_{key}" in phrases)]
    texts = [text for kind in kinds for text in chart.phrases(kind)]
    text = pick(chart.rng, chart.fitting([text for text in texts if text not in used] or texts))
    used.add(text)
    return chart.fill(text)


def _physician_note(chart: Chart, words: float, admission: bool) -> str:
    """A physician's note: complaint, history or events, and a list of problems."""
    lead, bullet = _lead(chart, words), chart.writer.author.bullet or "- "
    head = [f"Chief Complaint: {chart.complaint}"] if words > 40 else []
    left = words - count_words(" ".join([lead, *head])) - 4
    items = _problems(chart, left, headed=True)
    unnamed = " ".join(text for _, name, text in items if not name)
    listed = [bullet + capitalized(": ".join(filter(None, [name, text]))) for _, name, text in items if name]
    left -= count_words(" ".join([unnamed, *listed]))
    listed = listed or [bullet + capitalized(chart.complaint)]
    lines = chart.sentences(chart.phrases("ICU"), left)
    history = [f"HPI: {lead}", unnamed] if admission else [f"24 Hour Events: {unnamed}" if unnamed else "", lead]
    return "\n".join(filter(None, [*head, *history, "Assessment and Plan", *listed, *lines]))


def _visible_findings(chart: Chart) -> list[tuple[Condition, str]]:
    """The findings that may be told at the hour, each with its condition."""
    codes = filter(chart.has_begun, [chart.apparent, *chart.codes])
    told = [(c, chart.worded(finding)) for c in map(chart.look_up, codes) for finding in c.findings]
    return [(condition, text) for condition, text in told if chart.tellable(text)]


def _choose_study(chart: Chart) -> str:
    """The name of a study that shows a finding of the stay, or of one that its complaint calls for."""
    found = [exam for _, text in _visible_findings(chart) if (exam := _study_showing(text))]
    if found and chart.rng.random() < 0.7:
        return pick(chart.rng, found)
    asked = [name for name, exam in icu_phrases()["exams"].items() if chart.main.syndrome in exam["for"]]
    return pick(chart.rng, [*asked, "CHEST (PORTABLE AP)"])


def _study_report(chart: Chart, name: str, words: float) -> str:
    """The report of a radiological study, an ECG or an echocardiogram."""
    phrases, rng, writer = icu_phrases()["radiology"], chart.rng, chart.writer
    dated = icu_phrases()["dated"].get(name)
    exam = dated or icu_phrases()["exams"][name]
    fits = (lambda text: re.search(dated["shows"], text)) if dated else lambda text: _study_showing(text) == name
    visible = [(condition, text) for condition, text in _visible_findings(chart) if fits(text)]
    known, shown, means = chart.diagnosed and rng.random() < _NAMED, [], chart.fill(pick(rng, phrases["open"]))
    if visible and rng.random() < 0.85:
        condition, text = pick(rng, visible)
        shown = [chart.fill(pick(rng, phrases["shown"]), finding=_UNSEEN.sub("", text))]
        if (known or condition is not chart.main) and condition.kind != "s" and rng.random() < 0.4:
            means = chart.fill(pick(rng, phrases["means"]), name=writer.name(condition))
    elif chart.abnormal.isdisjoint(exam["parts"]):
        means = chart.fill(pick(rng, exam["well"]))
    if dated:
        return " ".join([*shown, means, *chart.sentences(exam["body"], words - count_words(" ".join([*shown, means])))])
    why = chart.fill(pick(rng, phrases["why"] + exam.get("why", [])))
    if chart.uncertain and not chart.diagnosed and rng.random() < 0.5:
        why = chart.fill(pick(rng, phrases["suspect"]), name=writer.name(pick(rng, chart.differential)))
    about = writer.name(chart.main) if known else chart.complaint
    hour, minute = int(24 * rng.random()), int(60 * rng.random())
    head = [name, f"{chart.slots['age']} year old {chart.slots['man']} with {about}"]
    if words > 28:
        time = f"On ___ at {hour % 12 + 1}:{minute:02} {'AP'[hour > 11]}M"
        head = [time, name, "MEDICAL CONDITION:", f" {head[1]}"]
        head += ["REASON FOR THIS EXAMINATION:", f" {why}", "FINAL REPORT"]
    left = words - count_words(" ".join([*head, *shown, means])) - 1
    body = [*shown, *chart.sentences(exam["body"], left)]
    return "\n".join([*head, *(["FINDINGS: " + " ".join(body)] if body else []), f"IMPRESSION: {means}"])


def _marked(chart: Chart, text: str) -> str:
    """A text with MIMIC-III's marks of de-identification in place of what is hidden."""
    day = chart.writer.stay.admitted + timedelta(hours=chart.icu.before + chart.hour)

    def mark(match: re.Match) -> str:
        before, age = match[1] or "", match[2] or ""
        number = int(1 + 9000 * chart.rng.random())
        kinds = {
            "Dr. ": f"Last Name (STitle) {number}",
            "contact ": f"Name (NI) {number}",
            "": f"Hospital {number % 60 + 1}",
        }
        past = before in ("in ", "In ", "last ")
        hidden = kinds.get(before, day.year - 1 - number % 9 if past else f"{day.year}-{day.month}-{day.day}")
        return before + (chart.slots["age"] + age if age else f"[**{hidden}**]")

    return _HIDDEN.sub(mark, text)
