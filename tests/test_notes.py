"""The hospital course is found under all its headings, ends before the next section, and prose is no heading."""

import csv
from pathlib import Path

import pytest
from cohort import plain_course  # the benchmark's
from hypothesis import given, settings
from hypothesis import strategies as st

from drgstudy import mimic
from drgstudy.notes import hospital_course, n_words
from drgstudy.study import ROOT
from drgstudy.synthetic import make_hospital

HEADINGS = [
    "Brief Hospital Course:",
    "BRIEF HOSPITAL COURSE",
    "Brief hospital course: ",
    "brief hospital course:",
    "Hospital Course:",
    "HOSPITAL COURSE",
    "___ Hospital Course:",
    "Brief ___ Course:",
    "Brief Hospital ___:",
    "rief Hospital Course:",
    "Brief Hospital Cour:",
    "Brief Hospital Course by system/problem:",
    "HOSPITAL COURSE BY PROBLEM:",
    "Hospital Course (by issue):",
    "HOSPITAL COURSE PER PROBLEM LIST:",
    "Hospital Course/ICU Course:",
    "Summary of Hospital Course:",
    "BRIEF H&P AND HOSPITAL COURSE:",
    "  Brief Hospital Course :",
    "Brief Hospital Course:\n=====================",
    "# Brief Hospital Course:",
    "== BRIEF HOSPITAL COURSE ==",
    "**Brief Hospital Course:**",
    "Concise Summary of Hospital Course by Issue:",
    "HOSPITAL COURSE, BY PROBLEM:",
    "Hospital Course & Discharge Plan:",
    "Brief Hosp Course:",
    "ief Hospital Course:",
    "Brief Hopsital Course:",
    "Brief Course:",
]
ENDINGS = [
    "Medications on Admission:",
    "MEDICATIONS ON ADMISSION:",
    "___ on Admission:",
    "Medications on ___:",
    "Discharge Medications:",
    "DISCHARGE MEDICATIONS",
    "___ Medications:",
    "Home medications:",
    "Discharge Disposition:",
    "___ Disposition:",
    "Discharge ___:",
    "Facility:",
    "Discharge Diagnosis:",
    "Discharge Diagnoses: 1. sepsis",
    "PRIMARY DIAGNOSIS:",
    "___ Diagnosis:",
    "Discharge Condition: stable",
    "CONDITION ON DISCHARGE:",
    "___ Condition:",
    "Discharge Instructions:",
    "discharge instructions:",
    "___ Instructions:",
    "DISCHARGE INSTRUCTIONS/MEDICATIONS:",
    "Followup Instructions:",
    "Follow-up ___:",
    "TRANSITIONAL ISSUES:",
    "Transitional issues",
    "# Transitional Issues:",
    "***TRANSITIONAL ISSUES***",
    "___ Issues:",
    "Transitional issues for PCP:",
    "***Transitional Issues for Outpatient Providers***",
    "TRANSITIONS OF CARE:",
    "Issues for Follow-up:",
    "Preadmission medication list:",
    "Active Medication list as of ___:",
    "Medication Changes:",
    "Discharge Status:",
    "Discharge Dx:",
    "Discharge Facility:",
    "Addendum:",
]
PROSE = [
    "His hospital course was complicated by the following: pneumonia.",
    "hospital course was otherwise unremarkable. He completed a",
    "hospital course: on the second day he was febrile.",
    "Hospital course was prolonged by delirium.",
    "She was told to continue her home medications, and",
    "discharge medications: see below. The discharge condition was good.",
    "Medications were adjusted as follows: lisinopril held.",
    "Diagnosis of pulmonary embolism was made by CT.",
    "# Disposition: home with services",
    "- Medications: continued",
    "NEURO:",
    "ASSESSMENT AND PLAN: 67 yo M with",
    "# CHF: diuresed, condition improved",
    "___: transferred to the floor, transitional care arranged.",
]


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_heading_opens_the_course(heading):
    course = "Mr. ___ was treated.\n\nHe left."
    note = f"Name: ___\n\nPertinent Results:\n140 ___ 3.9\n\n{heading}\n{course}\n\nMedications on Admission:\nnone"
    assert hospital_course(note) == course


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_next_section_ends_the_course(ending):
    note = f"Brief Hospital Course:\n# Sepsis: treated.\n \n{ending}\nswallowed"
    assert hospital_course(note) == "# Sepsis: treated."
    assert hospital_course(note.replace("\n", "\r\n")) == "# Sepsis: treated."


@pytest.mark.parametrize("line", PROSE)
def test_prose_and_problem_lists_are_no_headings(line):
    assert hospital_course(f"Pertinent Results:\n{line}\nDischarge Condition:\nfine") is None
    course = f"Admitted.\n{line}\nHe left."
    assert hospital_course(f"Brief Hospital Course:\n{course}\nFacility:\n___") == course


def test_text_on_the_heading_line_belongs_to_the_course():
    assert hospital_course("HOSPITAL COURSE: Admitted.\nFacility:\n___") == "Admitted."


def test_an_empty_course_gives_way_to_a_later_one():
    assert hospital_course("Brief Hospital Course:\n\nFacility:\n___\nHospital Course:\nAdmitted.") == "Admitted."
    assert hospital_course("Brief Hospital Course:\n\nFacility:\n___") is None
    assert hospital_course("") is None


def test_a_transcription_with_commas_for_line_breaks():
    note = "LABS: , Normal.,HOSPITAL COURSE: , Treated, then home.,DISPOSITION,Home"
    assert hospital_course(note) == "Treated, then home."


LINE = st.sampled_from(PROSE) | st.text("abcdefghij ,.#()%/_0123456789", max_size=60)
LINES = st.lists(LINE, max_size=8).map("\n".join)


@given(before=LINES, heading=st.sampled_from(HEADINGS), course=LINES, ending=st.sampled_from(ENDINGS), after=LINES)
@settings(deadline=None)
def test_any_note_with_one_planted_course_gives_it_back(before, heading, course, ending, after):
    course = course.strip(" \n,")
    found = hospital_course(f"{before}\n{heading}\n{course}\n{ending}\n{after}")
    assert found == (course or None)


FOREIGN = {"i": "iIıİ", "s": "sSſ", "k": "kK", "e": "eEé"}  # the patterns take some of these for each other
SECTION = st.sampled_from(
    [*HEADINGS, *ENDINGS, "Brief Hospital", "Course", "rief", "Brief Hospital Cour", "MEDS", "Plan:"]
)
BREAK = st.sampled_from(
    ["\n", "\r\n", ",", "\n  ", "\n# ", "\n=> ", "\t", " ", "", ": ", ":\n", "\n\n", "___", "é", "\ud800"]
)


@st.composite
def spoiled(draw):
    """Headings with a letter in another case or script, now and then with a line break or some blanks within."""
    text = list(draw(SECTION))
    for at in draw(st.lists(st.integers(0, len(text) - 1), max_size=3)):
        letter = text[at].lower()
        text[at] = draw(st.sampled_from([*FOREIGN.get(letter, letter + letter.upper()), " \t", ",", "\n"]))
    return "".join(text)


@given(st.lists(st.one_of(SECTION, spoiled(), BREAK, BREAK, LINE), max_size=30).map("".join))
@settings(deadline=None)
def test_the_short_cut_finds_what_the_patterns_find(text):
    assert hospital_course(text) == plain_course(text)


@pytest.mark.parametrize("ending", ["Diſposition:", "Dıſcharge Condition:", "Transıtıonal Issues:", "Dİsposition:"])
def test_letters_that_the_patterns_take_for_each_other_are_found(ending):
    note = f"Brief Hospital Courſe:\nAdmitted.\n{ending}\nhome"
    assert hospital_course(note) == plain_course(note) == "Admitted."


def test_the_short_cut_finds_what_the_patterns_find_in_long_notes(tmp_path):
    make_hospital(tmp_path / "raw", patients=40, seed=5, course_words=398, tail=1.0)
    texts = mimic.read(tmp_path / "raw", "discharge")["text"]
    assert len(texts) > 60
    for text in [*texts, *texts.str.replace("\n", ","), *texts.str.swapcase()]:
        assert hospital_course(text) == plain_course(text)


@pytest.mark.parametrize("start", ["", "\nBrief Hospital Course: x\n"])
@pytest.mark.parametrize(
    "unit",
    [
        "\n",
        ",",
        " ",
        "\n ",
        "\n#",
        ",Brief ",
        "\n___ ",
        "\nHospital Course was ",
        "\nDiagnosis of ",
        "\nDischarge",
        "course",
        "\ncourse",
        ",ief",
    ]
    + [f"\n{char * 5000}" for char in " #=_"],
)
def test_repetitive_text_of_a_megabyte_is_no_trap(start, unit):
    """A pattern that backtracks would take hours here."""
    found = hospital_course(start + unit * (1_000_000 // len(unit)))
    assert (found is not None) == bool(start)


def test_real_transcribed_notes():
    """Both ends of all 56 courses, as a person found them by reading; in four notes the words stand in prose only."""
    path = ROOT.parent / "shared" / "open-data" / "mtsamples_hospital_course_half.csv"
    if not path.exists():
        pytest.skip("the open MTSamples notes are not here")
    with open(path, encoding="utf-8", newline="") as file:
        texts = {row["note_id"]: row["transcription"] for row in csv.DictReader(file)}
    with open(Path(__file__).parent / "golden" / "mtsamples_boundaries.csv", encoding="utf-8", newline="") as file:
        read = {row["note_id"]: row for row in csv.DictReader(file)}
    assert texts.keys() == read.keys() and len(texts) == 56
    assert {note_id for note_id, row in read.items() if not row["start"]} == {"1560", "1785", "3049", "4279"}
    assert all(hospital_course(text) == plain_course(text) for text in texts.values())
    for note_id, row in read.items():
        course = texts[note_id][int(row["start"]) : int(row["end"])] if row["start"] else None
        assert hospital_course(texts[note_id]) == course, note_id
        assert course is None or n_words(course) == int(row["words"])


def test_words_are_split_at_white_space():
    assert n_words("  Na 140,\n\nK 3.9\t(ok) ") == 5
