"""A whole discharge summary in MIMIC-IV-Note's layout, around a hospital course."""

from __future__ import annotations

import textwrap
from functools import partial

from drgstudy.synthetic.authors import capitalized
from drgstudy.synthetic.course import Course, Writer
from drgstudy.synthetic.patients import pick

MIMIC_WORDS = 398  # mean of MIMIC-IV's hospital courses; the other sections scale as the course does
_DISPOSITION = {"DIED": "Expired", "SKILLED NURSING FACILITY": "Extended Care", "HOME HEALTH CARE": "Home With Service"}


def _wrap(text: str) -> str:
    """Break lines at the width of MIMIC's notes."""
    return "\n".join(textwrap.fill(line, 78, break_long_words=False) for line in text.split("\n"))


def write_summary(writer: Writer, course: Course | None, course_words: int) -> str:
    """The text of one note; without a course it lacks this section.

    The length of the other sections is in proportion to `course_words`, the mean length of the hospital courses.
    """
    stay, rng, author, phrases = writer.stay, writer.rng, writer.author, writer.hospital.phrases
    look_up = writer.hospital.condition
    main = look_up(stay.codes[0])

    def some(kind: str, most: int) -> list[str]:
        """Distinct texts of a kind, about `most` if courses are as long as MIMIC's; newborns have their own."""
        kind = kind if stay.age else f"{kind}_nb"
        number = max(1, round(most * course_words / MIMIC_WORDS * (0.6 + 0.8 * rng.random())))
        texts = phrases[kind]
        return [author.fill(texts[at], rng, writer.slots) for at in rng.permutation(len(texts))[:number]]

    procedures = [writer.choose(names) for names in map(writer.hospital.procedures.get, stay.procedures) if names]
    past = [writer.name(look_up(code)) for code in stay.codes[1:] if look_up(code).kind in "ch"]
    written = [look_up(code) for code in stay.codes if code in stay.written]
    diagnoses = [writer.name(c) for c in written if c.kind in "ac"]
    drugs = [f"{number}. {drug}" for number, drug in enumerate(some("medications", 14), 1)]
    history = writer.opening(main, writer.joined(past[:4]) if past else "")
    to_do = some("transitional", 5) if author.follows_up and stay.alive else []
    before, after, disposition, diagnosis, condition, instructions, follow_up = map(
        partial(pick, rng), phrases["endings"]
    )
    drugs_before = drugs[:-2] or drugs
    left = some("exam_discharge", 1) if stay.alive else []
    letter = f"Dear ___,\n{' '.join(some('instructions', 1))}" if stay.alive else "N/A"
    sections = {
        "Name:": "  ___                     Unit No:   ___",
        "Admission Date:": "  ___              Discharge Date:   ___",
        "Date of Birth:": f"  ___             Sex:   {writer.sex}",
        "Service:": f" {stay.scenario.service}",
        "Allergies:": f" \n{pick(rng, phrases['allergies'])}",
        "Attending:": " ___.",
        "Chief Complaint:": "\n" + capitalized(writer.choose(main.presenting) or writer.name(main)),
        "Major Surgical or Invasive Procedure:": "\n" + ("\n".join(map(capitalized, procedures)) or "None"),
        "History of Present Illness:": "\n" + _wrap(" ".join([history, *some("hpi_details", 8)])),
        "Past Medical History:": "\n" + ("\n".join(f"- {item}" for item in past) or "None"),
        "Social History:": f"\n{pick(rng, phrases['social'])}",
        "Family History:": f"\n{pick(rng, phrases['family'])}",
        "Physical Exam:": "\n" + "\n\n".join([*some("exam_admission", 1), *left]),
        "Pertinent Results:": "\n" + "\n".join([*some("labs", 24), "", *some("studies", 6)]),
        **({author.heading: f"\n{_wrap(course.text)}"} if course else {}),
        **({pick(rng, phrases["transitional_headings"]): "\n" + "\n".join(to_do)} if course and to_do else {}),
        **({before: "\n" + "\n".join(drugs_before)} if rng.random() < 0.85 else {}),
        after: "\n" + ("\n".join(drugs) if stay.alive else "N/A"),
        disposition: f"\n{_DISPOSITION.get(stay.disposition, 'Home')}",
        **({"Facility:": "\n___"} if stay.disposition == "SKILLED NURSING FACILITY" else {}),
        diagnosis: "\n" + "\n".join(map(capitalized, diagnoses[:5])),
        condition: "\n" + (some("condition", 1)[0] if stay.alive else "Expired"),
        instructions: "\n" + _wrap(letter),
        follow_up: f"\n{pick(rng, phrases['followup'])}",
    }
    return " \n" + "\n \n".join(map("".join, sections.items())) + "\n"
