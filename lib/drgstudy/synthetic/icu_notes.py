"""The timed notes of an ICU stay in MIMIC-III's categories, which reveal the stay bit by bit.

A note tells only what has begun by its hour and is written down at all. The principal diagnosis is often open at first:
there is a complaint, or rivals. The two systems that charted MIMIC-III differ: CareVue has nurses' notes under
"Nursing/other" and no physicians', MetaVision a category for each profession.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import cache, lru_cache

import numpy as np
import yaml

from drgstudy.synthetic.authors import Author, capitalized
from drgstudy.synthetic.course import ADDITIONAL_CODES, Writer
from drgstudy.synthetic.icu_stays import IcuStay
from drgstudy.synthetic.patients import pick
from drgstudy.synthetic.tables import FOLDER, Condition

LAST_HOUR, COUNTED = 72.0, 48.0  # notes are written until the first; the words meant are those until the second
# Share of stays whose principal diagnosis is known, by hour; and of those that were planned.
_KNOWN_AT, _KNOWN, _PLANNED_KNOWN = (0.0, 6.0, 24.0, 48.0), (0.28, 0.36, 0.82, 0.9), 0.9
_NAMED = 0.85  # how often a note names what is known, instead of its findings and treatment
CONFUSED = 0.15  # share of medical stays told as if another acute problem had been the reason for admission
_OWN_RIVAL = 0.35  # how often the true diagnosis is among the rivals
_TYPED, _SUSPECTED = 0.42, 0.15  # admitting diagnoses that name the principal one, a rival
MARK = re.compile(r"\[\*\*.*?\*\*\]")
_HIDDEN = re.compile(r"(Dr\. |[Oo]n |[Ii]n |last |of |contact )?___( ?(?:year[ -]old|yo\b|y/o|[MF]\b))?")
_LATER = re.compile(  # what a treatment tells of the days to come
    r"\bthen\b|week|day|x\d|x ?\{|narrow|once|improv|PICC|discharg|until|resol|extubat|transition|bridg|downtrend"
    r"|net neg|advanc|stable|wean|conver|return|MWF|overnight|uncomplic|stopped|home|no events|clos|peak|nadir|repeat"
    r"|HD|incident"
)
_IN_THEATRE = re.compile(r"\bOR\b|taken |evacuat|resect|repair|washed|emergent|[Pp]ost-?op|PACU|operati|incision|graft")
_WARD_TALK = re.compile("HD ?#|POD|discharg|FYI|admission|follow|outpatient|clinic|SDA")  # of no note in intensive care
_ARRIVED = re.compile("Received|New admit|ADMIT|Admitted to|adm to|brought in")  # said in the first hours, and not:
_GOES_ON = re.compile("under treatment|per team|ongoing|Cont |still|no change|as before|no clear|No vent|recovering")
_TUBE = re.compile("intubat")
_UNIT = re.compile("ICU|unit|called out|call out")
_BREATHING = re.compile("nasal cannula|BiPAP|NRB|O2|speaking|IS$|spirometry|weaned")  # not said of the ventilated
_MODE = (
    r"(?:chest |trauma |post-procedure )?"
    r"(?:CXR|CTA?|MRI|MRCP|US|NCHCT|KUB|XR|TTE|TEE|EKG|ultrasound|duplex|film|telemetry)\b"
)
_LABS = "(?:WBC|LDH|BNP|lactate|NIHSS|Hct|CK|ICP|INR|ALT|bili|MELD|lipase|CSF|sputum|HSV|EEG|purulent|bacteremia|P:F)"
_UNSEEN = re.compile(  # what a finding says beside that which is seen, and where it is seen
    rf"^anasarca with |^{_LABS}[^,]*?(?:, | and | with (?!.*cultures))|(?:,| with| and) {_LABS}\b.*$"
    rf"|^{_MODE}(?: head| brain)? with |(?: seen)? on {_MODE}"
)
_PLAIN_TO_SEE = ("inj", "burn", "ob", "elec")
_VENTILATION = ("5A19", "0BH17")  # told by the ventilator; how long it runs is not known yet
_LATE, _BORN = ("0B11", "0DH6"), ("10D0", "10E")  # what is done for the long run; deliveries


@cache
def _icu() -> dict:
    return yaml.safe_load((FOLDER / "icu.yaml").read_text(encoding="utf-8"))


@lru_cache(4096)
def _habit(author: Author, kind: str) -> list[str]:
    """The phrases of a kind that an author knows."""
    return sorted(_icu()[kind], key=author.preference)[: max(6, (len(_icu()[kind]) + 1) // 2)]


@cache
def _shown_by(finding: str) -> str:
    """The study that shows a finding, "" if none does."""
    return next((name for name, exam in _icu()["exams"].items() if re.search(exam["shows"], finding)), "")


def count_words(text: str) -> int:
    """Words of a note without its marks of de-identification."""
    return len(MARK.sub("", text).split())


def _minute(hour: float) -> float:
    return float(np.floor(hour * 60 + 1e-6) / 60)


def write_notes(writer: Writer, icu: IcuStay, note_words: int) -> list[tuple[float | None, str, str, str]]:
    """All notes of a stay from hospital admission to its end or the 72nd hour.

    Parameters
    ----------
    writer : Writer
        The author, at work on ``icu.stay``.
    icu : IcuStay
        When what shows.
    note_words : int
        Mean number of words, over stays, of all notes with an hour up to the 48th (60 to 2,000).

    Returns
    -------
    list of (float or None, str, str, str)
        Hour after ICU admission (to the minute), CATEGORY, DESCRIPTION, TEXT. Without an hour stand reports that have
        a date only, that of ICU admission; they tell what shows by hour 0, come first, and are not counted.
    """
    chart, rng, author = _Chart(writer, icu), writer.rng, writer.author
    left = note_words * float(rng.lognormal(-0.045, 0.3))
    many = max(
        3 if note_words > 100 else 2, round(left / (2 * note_words**0.57 * author.verbosity)) + int(rng.integers(-1, 2))
    )
    hours = _hours(icu, many, rng)
    if chart.planned and rng.random() < 0.6:  # nothing is written before they come from the theatre
        hours[0] = 0.0
    if chart.died:
        hours[-1] = _minute(icu.hours)
    counted, notes = sum(hour <= COUNTED for hour in hours), []
    typical = left / counted
    for name, chance in (("ECG", 0.2), ("Echo", 0.08)):
        if rng.random() < chance + note_words / 4000:
            chart.hour = 0.0
            notes.append((None, name, "Report", chart.marked(chart.report(name, 12))))
    for number, hour in enumerate(hours):
        words = left / (counted - number) if number < counted else typical
        words *= 1.0 if number == counted - 1 else 0.7 + 0.6 * rng.random()
        category, description, text = chart.note(hour, number, number == len(hours) - 1, max(8.0, words))
        notes.append((hour, category, description, chart.marked(text)))
        left -= count_words(notes[-1][3])
    return notes


def admitting_diagnosis(writer: Writer) -> str:
    """What a clerk types when the patient comes, in capitals: a diagnosis, a suspicion, or no more than a complaint."""
    chart, rng, at = _Chart(writer), writer.rng, writer.rng.random()
    if chart.planned:
        named = chart.named_procedures[:1] if rng.random() < 0.6 else []
        done = [writer.choose(writer.hospital.procedures[code]) for code in named]
        text = "\\".join([writer.name(chart.main) if at < _PLANNED_KNOWN else chart.complaint, *done]) + "/SDA"
    elif at > 1 - _SUSPECTED and chart.rivals:
        text = pick(rng, ["R/O ", "?", ""]) + writer.name(pick(rng, chart.rivals))
    else:
        text = writer.name(chart.main) if at < _TYPED else chart.complaint
    return text.replace("___", "").strip().upper()


def _hours(icu: IcuStay, many: int, rng: np.random.Generator) -> list[float]:
    """When notes are written: one by ICU admission, one early, the others through the stay; `many` by `COUNTED`."""
    end = min(icu.hours, LAST_HOUR)
    seen = min(end, COUNTED)
    early = min(seen / 2, 0.3 + 6 * rng.random())
    hours = [-min(icu.before, 10) * rng.random(), early]
    hours += [early + (seen - early) * (0.08 + 0.92 * (i + rng.random()) / max(1, many - 2)) for i in range(many - 2)]
    hours += [seen + (end - seen) * rng.random() for _ in range(rng.poisson(many * (end - seen) / COUNTED))]
    return sorted(max(_minute(hour), -icu.before) + 0.0 for hour in hours)


class _Chart:
    """What is known of a stay by `hour`, and what has been told."""

    def __init__(self, writer: Writer, icu: IcuStay | None = None) -> None:
        stay, hospital, rng = writer.stay, writer.hospital, writer.rng
        self.writer, self.icu, self.rng, self.look = writer, icu, rng, hospital.condition
        competing = [code for code in stay.codes[1:] if code in stay.written and icu and self._could_lead(code)]
        medical = not writer.operated and hospital.condition(stay.codes[0]).syndrome not in ("ob", "nb", "elec")
        confused = competing and medical and rng.random() < CONFUSED
        self.first = pick(rng, competing) if confused else stay.codes[0]  # what looks like the principal diagnosis
        self.main = main = hospital.condition(self.first)
        self.planned = stay.scenario.admission == "L" or writer.elective(main)
        vague = hospital.phrases["complaints"].get(main.syndrome)
        vaguely = vague and (not main.presenting or (not self.planned and rng.random() < 0.6))
        self.complaint = writer.choose(vague if vaguely else main.presenting) or writer.name(main)
        excluded, possible = (*{code[:3] for code in stay.codes}, main.code[:2]), ("", writer.sex)
        rivals = [c for c in hospital.differentials.get(main.syndrome, []) if not c.code.startswith(excluded)]
        self.rivals = [c for c in rivals if hospital.sex_of(c.code) in possible]
        self.puzzling = len(self.rivals) > 1 and not self.planned and main.syndrome not in _PLAIN_TO_SEE
        named = [code for code in stay.procedures if code in hospital.procedures]
        self.named_procedures = [code for code in named if not code.startswith(_VENTILATION)]
        if icu is None:
            return
        self.hour, self.told, self.filled = 0.0, set(), {}
        self.certainty = rng.random()
        self.codes = [c for c in stay.codes if c in stay.written and not c.startswith(ADDITIONAL_CODES)]
        self.codes = [c for c in self.codes if self.look(c) is not main]
        self.lures = [lure for lure in writer.lures(main, 300) if not _WARD_TALK.search(lure)]
        self.done = self._timed()
        self.sick = self._sick()
        total = (stay.discharged - stay.admitted).total_seconds() / 3600
        self.died = not stay.alive and icu.hours <= LAST_HOUR and icu.before + icu.hours > total - 0.5
        self.slots = {**writer.slots, "cc": self.complaint}
        self.slots["age"] = str(stay.age) if stay.age < 90 else "[**Age over 90 **]"

    def _could_lead(self, code: str) -> bool:
        """Could another diagnosis be taken for the reason for admission? It is there by then, acute, and a complication."""
        look = self.look(code)
        told = look.kind == "a" and look.presenting and look.findings and look.treatments
        return bool(told and self.icu.onset[code] <= -self.icu.before and self.writer.hospital.severity(code))

    def _timed(self) -> dict[str, float]:
        """When each procedure has been done: what was planned, before ICU admission."""
        icu, rng, done = self.icu, self.rng, {}
        for code in self.named_procedures:
            ready = icu.before > 2 and rng.random() < (0.7 if self.writer.hospital.operative([code]) else 0.5)
            if self.planned or ready or code.startswith(_BORN):
                done[code] = 0.0
            elif not code.startswith(_LATE):
                done[code] = min(float(rng.uniform(1, 26)), 0.8 * icu.hours)
        begun = [(self.look(code), at) for code, at in icu.onset.items()]
        after = [at for look, at in begun if look.kind == "a" and any(map(_IN_THEATRE.search, look.names))]
        return {code: max(-icu.before, min([at, *after])) for code, at in done.items()}

    def _sick(self) -> set[str]:
        """Parts of the body of which nobody would write that all is well."""
        stay, part, touched = self.writer.stay, _icu()["part"], _icu()["touched"]
        conditions = [self.look(code) for code in stay.codes]
        sick = {part[c.system] for c in conditions if c.kind in "as" or c is self.main}
        sick |= {each for c in conditions if c.kind == "a" or c is self.main for each in touched.get(c.syndrome, ())}
        sick |= {"GU"} if any(code.startswith(("N17", "N18", "Z992")) for code in stay.codes) else set()
        return sick | (set() if stay.alive else {"NEURO", "RESP", "CV", "GI"})

    # What is true at the hour.

    @property
    def known(self) -> bool:
        """Is the principal diagnosis known?"""
        share = _PLANNED_KNOWN if self.planned else np.interp(self.hour, _KNOWN_AT, _KNOWN)
        return bool(self.begun(self.first) and self.certainty < share)

    @property
    def ventilated(self) -> bool:
        return self.icu.ventilated is not None and self.icu.ventilated[0] <= self.hour < self.icu.ventilated[1]

    @property
    def operations(self) -> list[str]:
        return [c for c, at in self.done.items() if at <= self.hour and self.writer.hospital.operative([c])]

    def begun(self, code: str) -> bool:
        return self.icu.onset[code] <= self.hour

    def fits(self, text: str) -> bool:
        """May this finding or treatment be told now?"""
        untrue = {
            _LATER: True,
            _IN_THEATRE: not self.operations,
            _BREATHING: self.ventilated,
            _TUBE: not self.ventilated,
        }
        return not any(holds and pattern.search(text) for pattern, holds in untrue.items())

    # Sentences.

    def fitting(self, texts: list[str]) -> list[str]:
        """Those of the texts that suit stay and hour."""
        unfit = [_GOES_ON] * (self.hour < 6) + [_ARRIVED] * (self.hour >= 6) + [_UNIT] * (self.hour < 0)
        texts = [text for text in texts if not any(pattern.search(text) for pattern in unfit)] or texts
        return self.writer.fitting(texts)

    def fill(self, text: str, **slots: str) -> str:
        author = self.writer.author
        return capitalized(author.fill(author.abbreviated(text), self.rng, {**self.slots, **slots}))

    def say(self, kind: str, **slots: str) -> str:
        """One of the author's phrases, filled."""
        return self.fill(pick(self.rng, self.fitting(_habit(self.writer.author, kind))), **slots)

    def one(self, texts: tuple[str, ...]) -> str:
        """A finding or treatment that may be told, always with the same numbers."""
        if not (texts := tuple(filter(self.fits, texts))):
            return ""
        text = pick(self.rng, texts)
        return self.filled.setdefault(text, self.writer.choose((text,)))

    def clause(self, kind: str, condition: Condition, name: str) -> str:
        """A sentence about a condition from the phrases that it can fill; without `name`, by what is seen and done."""
        if condition.kind == "s":
            return capitalized(self.writer.name(condition)) + "."
        slots = {"name": name, "finding": self.one(condition.findings), "treat": self.one(condition.treatments)}
        slots = {slot: text for slot, text in slots.items() if text}
        phrases = _habit(self.writer.author, kind)
        if filled := [text for text in phrases if set(re.findall(r"\{(\w+)\}", text.lower())) <= slots.keys()]:
            return self.fill(pick(self.rng, self.fitting(filled)), **slots)
        if event := name or slots.get("finding"):
            return self.say(f"{kind}_bare", event=event, name=event)
        return capitalized(slots["treat"]) + "." if "treat" in slots else ""

    def lines(self, texts: list[str], words: float) -> list[str]:
        """Some of the texts, until there are words enough."""
        texts, lines = list(self.fitting(texts)), []
        while words > 3 and texts:
            lines.append(self.fill(texts.pop(int(self.rng.random() * len(texts)))))
            words -= count_words(lines[-1])
        return lines

    # Notes.

    def note(self, hour: float, number: int, last: bool, words: float) -> tuple[str, str, str]:
        """Category, description and text of the note of an hour."""
        self.hour, rng, meta = hour, self.rng, self.icu.metavision
        died, at = last and self.died, rng.random()
        studied = (0.35 if self.planned else 0.75) if number == 0 else 0.22 if number > 1 else 0
        if not died and at < studied:
            name = self.study()
            return "Radiology", name, self.report(name, words)
        if meta and number > 1 and at > 0.92 and self.ventilated and not died:
            text = "Respiratory Care:\n" + " ".join(self.lines(_habit(self.writer.author, "RT"), words - 2))
            return "Respiratory ", "Respiratory Care Shift Note", text
        if meta and number and not died and at < (0.6 if number == 1 else 0.5):
            kind = "Admission" if number == 1 else "Progress"
            title = f"{pick(rng, ['Physician Resident', 'Intensivist', 'Physician Attending'])} {kind} Note"
            return "Physician ", title, self.physician(words, kind == "Admission")
        text = self.nurse(words, self.say("died") if died else "")
        if not meta:
            return "Nursing/other", "Report", text
        ward = hour < 0 or at > 0.9
        return ("General", "Generic Note", text) if ward else ("Nursing", "Nursing Progress Note", text)

    def lead(self, words: float) -> str:
        """The first words: who, why here, what it may be, and once what has long been known."""
        writer, rng, operations, named = self.writer, self.rng, self.operations[:2], self.rng.random() < _NAMED
        kind = "_named" if self.known and named else "_op" if operations else "_plain" if self.known else ""
        kind = "_plain" if not kind and not self.puzzling else kind
        kind = "_op_named" if kind == "_named" and operations else kind or ("_arrival" if not self.told else "")
        name, procedures = writer.name(self.main), [writer.choose(writer.hospital.procedures[c]) for c in operations]
        texts = [self.say(f"lead{kind}", name=name, proc=writer.joined(procedures) if procedures else "")]
        if self.puzzling and not self.known and not operations and rng.random() < 0.5:
            rival, other = (writer.name(pick(rng, self.rivals)) for _ in range(2))
            names = [rival, name if rng.random() < _OWN_RIVAL or other == rival else other]
            first = int(rng.random() * 2)
            texts.append(self.say("doubt", name=names[first], name2=names[1 - first]))
        chronic = [code for code in self.codes if self.look(code).kind in "ch" and self.begun(code)]
        if chronic and (not self.told or rng.random() < words / 1000):
            names = [writer.name(self.look(code)) for code in chronic[: max(1, int(words / 12))]]
            texts.append(self.say("history_line", hx=writer.joined(names)))
        self.told |= {"", *operations}
        return " ".join(texts)

    def problems(self, left: float, headed: bool) -> list[tuple[str, str, str]]:
        """What is told now, up to `left` words: part of the body, name, text; `headed` leaves the name to a heading."""
        part, told, rng, writer = _icu()["part"], self.told, self.rng, self.writer
        here, items = part[self.main.system], []
        if self.ventilated and "on" not in told:
            items.append(("RESP", "", self.say("vent_new" if self.icu.ventilated[0] > 0 else "vent_arrived")))
        elif "on" in told and "off" not in told and not self.ventilated and not self.died:
            items.append(("RESP", "", self.say("vent_over")))
            told.add("off")
        told |= {"on"} if self.ventilated else set()
        for code, at in self.done.items():
            if at <= self.hour and code not in told:
                items.append((here, "", self.say("proc_new", proc=writer.choose(writer.hospital.procedures[code]))))
                told.add(code)
        acute = [code for code in self.codes if self.look(code).kind in "as" and self.begun(code)]
        fresh, old = [c for c in acute if c not in told], [c for c in acute if c in told]
        main = [self.first] if rng.random() < 0.7 and self.begun(self.first) else []
        at = int(rng.random() * 2)
        rng.shuffle(old)
        for code in [*fresh[:at], *main, *fresh[at:], *old]:
            if left - sum(count_words(name + text) for _, name, text in items) < (8 if items else 4):
                break
            look = self.look(code)
            known = (self.known or look is not self.main) and rng.random() < _NAMED and look.kind != "s"
            name = writer.name(look) if known else ""
            kind = "new" if code in fresh and self.icu.onset[code] > 0 else "ongoing"
            text = self.clause(kind, look, "" if headed else name)
            if text or name:
                items.append((part[look.system], name, text))
                told.add(code)
        if self.lures and rng.random() < 0.3:
            items.append((here, "", self.lures.pop()))
        return items

    def nurse(self, words: float, ending: str) -> str:
        """A nurse's note by systems, or in prose; `ending` is what is said of a death."""
        author, phrases = self.writer.author, _icu()
        lead = self.lead(words)
        left = words - count_words(lead + ending)
        sections: dict[str, list[str]] = {part: [] for part in phrases["headings"]}
        for part, _, text in self.problems(left, headed=False):
            sections[part].append(text)
            left -= count_words(text) + 1
        usual = [part for part in sections if part != "OTHER" and not (ending and part == "PLAN")]
        used: set[str] = set()
        for part in [str(part) for part in self.rng.permutation(usual)] * 6:
            if left < 4:
                break
            sections[part].append(self.filler(part, used))
            left -= count_words(sections[part][-1]) + (len(sections[part]) == 1)
        order = sorted(sections, key=author.preference) if author.number % 3 == 0 else list(sections)
        if author.layout == "prose" and author.number % 2:
            lines = [" ".join([lead, *(text for part in order for text in sections[part])])]
        else:
            heads = {part: choices[author.number % len(choices)] for part, choices in phrases["headings"].items()}
            lines = [lead, *(f"{heads[part]} {' '.join(sections[part])}" for part in order if sections[part])]
        title = phrases["titles"][author.preference("title") % len(phrases["titles"])]
        return self.writer.with_typos("\n".join(filter(None, [title if self.hour >= 0 else "", *lines, ending])))

    def filler(self, part: str, used: set[str]) -> str:
        """What is true of most patients with regard to a part."""
        phrases, stay = _icu(), self.writer.stay
        holds = {
            "ok": part not in self.sick and not (self.ventilated and f"{part}_vent" in phrases),
            "vent": self.ventilated,
            "op": bool(self.operations) and stay.scenario.service != "CARDIOLOGY",
            "full": {"Z66", "Z515"}.isdisjoint(stay.codes),
            "out": stay.alive and self.hour > self.icu.hours - 6,
        }
        kinds = [part, *(f"{part}_{key}" for key, true in holds.items() if true and f"{part}_{key}" in phrases)]
        texts = [text for kind in kinds for text in _habit(self.writer.author, kind)]
        text = pick(self.rng, self.fitting([text for text in texts if text not in used] or texts))
        used.add(text)
        return self.fill(text)

    def physician(self, words: float, admission: bool) -> str:
        """A physician's note: complaint, story or events, and a list of problems."""
        lead, bullet = self.lead(words), self.writer.author.bullet or "- "
        head = [f"Chief Complaint: {self.complaint}"] if words > 40 else []
        left = words - count_words(" ".join([lead, *head])) - 4
        items = self.problems(left, headed=True)
        loose = " ".join(text for _, name, text in items if not name)
        listed = [bullet + capitalized(": ".join(filter(None, [name, text]))) for _, name, text in items if name]
        left -= count_words(" ".join([loose, *listed]))
        listed = listed or [bullet + capitalized(self.complaint)]
        lines = self.lines(_habit(self.writer.author, "ICU"), left)
        story = [f"HPI: {lead}", loose] if admission else [f"24 Hour Events: {loose}" if loose else "", lead]
        return "\n".join(filter(None, [*head, *story, "Assessment and Plan", *listed, *lines]))

    # Studies.

    def visible(self) -> list[tuple[Condition, str]]:
        """Findings that there are by now."""
        codes = filter(self.begun, [self.first, *self.codes])
        return [(look, text) for look in map(self.look, codes) for text in look.findings if self.fits(text)]

    def study(self) -> str:
        """A study that shows something of the stay, or one that its complaint calls for."""
        found = [exam for _, text in self.visible() if (exam := _shown_by(text))]
        if found and self.rng.random() < 0.7:
            return pick(self.rng, found)
        asked = [name for name, exam in _icu()["exams"].items() if self.main.syndrome in exam["for"]]
        return pick(self.rng, [*asked, "CHEST (PORTABLE AP)"])

    def report(self, name: str, words: float) -> str:
        """The report of a study."""
        phrases, rng, writer = _icu()["radiology"], self.rng, self.writer
        dated = _icu()["dated"].get(name)
        exam = dated or _icu()["exams"][name]
        fits = (lambda text: re.search(dated["shows"], text)) if dated else lambda text: _shown_by(text) == name
        visible = [(look, text) for look, text in self.visible() if fits(text)]
        known, shown, means = self.known and rng.random() < _NAMED, [], self.fill(pick(rng, phrases["open"]))
        if visible and rng.random() < 0.85:
            look, text = pick(rng, visible)
            seen = _UNSEEN.sub("", text)
            finding = self.filled.setdefault(seen, writer.choose((seen,)))
            shown = [self.fill(pick(rng, phrases["shown"]), finding=finding)]
            if (known or look is not self.main) and look.kind != "s" and rng.random() < 0.4:
                means = self.fill(pick(rng, phrases["means"]), name=writer.name(look))
        elif self.sick.isdisjoint(exam["parts"]):
            means = self.fill(pick(rng, exam["well"]))
        if dated:
            return " ".join([*shown, means, *self.lines(exam["body"], words - count_words(" ".join([*shown, means])))])
        why = self.fill(pick(rng, phrases["why"] + exam.get("why", [])))
        if self.puzzling and not self.known and rng.random() < 0.5:
            why = self.fill(pick(rng, phrases["suspect"]), name=writer.name(pick(rng, self.rivals)))
        about = writer.name(self.main) if known else self.complaint
        hour, minute = int(24 * rng.random()), int(60 * rng.random())
        head = [name, f"{self.slots['age']} year old {self.slots['man']} with {about}"]
        if words > 28:
            time = f"On ___ at {hour % 12 + 1}:{minute:02} {'AP'[hour > 11]}M"
            head = [time, name, "MEDICAL CONDITION:", f" {head[1]}"]
            head += ["REASON FOR THIS EXAMINATION:", f" {why}", "FINAL REPORT"]
        left = words - count_words(" ".join([*head, *shown, means])) - 1
        body = [*shown, *self.lines(exam["body"], left)]
        return "\n".join([*head, *(["FINDINGS: " + " ".join(body)] if body else []), f"IMPRESSION: {means}"])

    def marked(self, text: str) -> str:
        """A text with marks of de-identification, as MIMIC-III has them."""
        day = self.writer.stay.admitted + timedelta(hours=self.icu.before + self.hour)

        def mark(match: re.Match) -> str:
            before, age = match[1] or "", match[2] or ""
            number = int(1 + 9000 * self.rng.random())
            kinds = {
                "Dr. ": f"Last Name (STitle) {number}",
                "contact ": f"Name (NI) {number}",
                "": f"Hospital {number % 60 + 1}",
            }
            past = before in ("in ", "In ", "last ")
            hidden = kinds.get(before, day.year - 1 - number % 9 if past else f"{day.year}-{day.month}-{day.day}")
            return before + (self.slots["age"] + age if age else f"[**{hidden}**]")

        return _HIDDEN.sub(mark, text)
