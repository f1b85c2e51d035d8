"""The synthetic hospital: MIMIC's shape, labels from the real grouper, notes that never quote a DRG."""

import csv
import gzip
import re
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drgpy.msdrg import DRGEngine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from drgstudy import comparisons, drgs, mimic
from drgstudy.harmonize import harmonize
from drgstudy.notes import hospital_course, n_words
from drgstudy.study import StudyError, read_json
from drgstudy.synthetic import discharge, hardness, make_hospital, parts, patients
from drgstudy.synthetic.authors import Author
from drgstudy.synthetic.course import Writer
from drgstudy.synthetic.patients import draw_patient, reconcile
from drgstudy.synthetic.tables import FOLDER, Hospital

DIALS = {"patients": 700, "seed": 3, "course_words": 85, "tail": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "raw"
    make_hospital(folder, **DIALS)
    return folder


@pytest.fixture(scope="module")
def stays(folder) -> pd.DataFrame:
    """One row a stay: admission, patient, truth, and the MS-DRG row if there is one."""
    table = mimic.read(folder, "admissions").merge(mimic.read(folder, "patients"), on="subject_id", validate="m:1")
    truth = pd.read_csv(folder / "truth.csv.gz", dtype=str, keep_default_na=False).astype({"hadm_id": "Int64"})
    billed = mimic.read(folder, "drgcodes").query("drg_type == 'HCFA'")[["hadm_id", "drg_code", "description"]]
    return table.merge(truth, on="hadm_id", how="left").merge(billed, on="hadm_id", how="left", validate="1:1")


@pytest.fixture(scope="module")
def notes(folder, stays) -> pd.DataFrame:
    return mimic.read(folder, "discharge").merge(stays, on="hadm_id", suffixes=("", "_"), validate="1:1")


@pytest.fixture(scope="module")
def everything() -> Hospital:
    return Hospital(1.0)


def codes_of(folder: Path, table: str) -> dict[int, list[str]]:
    return mimic.read(folder, table).sort_values("seq_num").groupby("hadm_id")["icd_code"].agg(list).to_dict()


def test_columns_are_those_of_mimic_iv(folder):
    for table, columns in mimic.COLUMNS.items():
        with gzip.open(mimic.find(folder, table), "rt", encoding="utf-8", newline="") as file:
            assert next(csv.reader(file)) == list(columns)


def test_same_parameters_same_bytes(folder, tmp_path):
    make_hospital(tmp_path / "again", **DIALS)
    make_hospital(tmp_path / "other", **DIALS | {"seed": 4, "patients": 20})
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == 8
    assert all((folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)
    few = pd.read_csv(tmp_path / "other" / "hosp/patients.csv.gz")
    assert not few.equals(pd.read_csv(folder / "hosp/patients.csv.gz").head(20))


def test_workers_change_no_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PATIENTS_PER_PART", 10)
    for workers in (1, 2):
        make_hospital(tmp_path / str(workers), **DIALS | {"patients": 35}, workers=workers)
    files = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert all((tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes() for file in files)
    assert len(mimic.read(tmp_path / "2", "patients")) == 35


def test_patients_do_not_depend_on_how_many_there_are(folder, tmp_path):
    make_hospital(tmp_path / "few", **DIALS | {"patients": 25})
    for table in mimic.COLUMNS:
        few, many = mimic.read(tmp_path / "few", table), mimic.read(folder, table)
        pd.testing.assert_frame_equal(few, many.head(len(few)))


def test_ids_and_dates_follow_mimic(folder, stays):
    assert stays["hadm_id"].is_unique and stays["hadm_id"].between(20_000_001, 29_999_999).all()
    assert stays["subject_id"].between(10_000_001, 41_000_000).all()
    assert stays["admittime"].dt.year.between(2110, 2210).all()
    assert (stays["dischtime"] > stays["admittime"]).all()
    dead = stays["hospital_expire_flag"] == 1
    assert (stays["deathtime"].notna() == dead).all() and 0.005 < dead.mean() < 0.1
    last = stays.sort_values("admittime").groupby("subject_id")["hadm_id"].transform("last")
    assert last[dead].eq(stays["hadm_id"]).reindex(dead[dead].index).all()  # nobody comes back
    note = mimic.read(folder, "discharge")
    assert note["note_id"].is_unique and note["note_id"].str.fullmatch(r"\d{8}-DS-\d+").all()
    assert mimic.source(folder).kind == "synthetic" and read_json(folder / "hospital.json")["stays"] == len(stays)


def test_fiscal_year_agrees_with_the_anchor(stays):
    """A reader of MIMIC dates a stay to within three years by the anchor; the billed title must be of these years."""
    known = stays.dropna(subset=["fiscal_year"]).astype({"fiscal_year": int})
    since_anchor = known["admittime"].dt.year - known["anchor_year"].astype(int)
    first = known["anchor_year_group"].str[:4].astype(int) + since_anchor
    lag = known["fiscal_year"] - first - (known["admittime"].dt.month >= 10)
    assert lag.between(0, 2).all()


def test_label_is_the_grouper_s_and_title_that_of_the_year(folder, stays):
    engine, titles = DRGEngine(version="v36"), drgs.titles_by_year().set_index(["fiscal_year", "drg"])["title"]
    before = pd.read_csv(FOLDER / "fiscal_years.csv", dtype=str).set_index("drg")
    diagnoses, procedures = codes_of(folder, "diagnoses_icd"), codes_of(folder, "procedures_icd")
    billed = stays.dropna(subset=["drg_code", "fiscal_year"])
    assert len(billed) > 700
    for stay in billed.itertuples():
        alive = stay.hospital_expire_flag == 0
        status = "07" if stay.discharge_location == "AGAINST ADVICE" else "01" if alive else "20"
        drg = engine.get_drg(
            diagnoses[stay.hadm_id], procedures.get(stay.hadm_id, []), stay.gender, alive, discharge_status=status
        )
        assert drg == stay.drg_v36 and drg not in ("000", "998", "999")
        if drg in before.index and int(stay.fiscal_year) < int(before.loc[drg, "first_fiscal_year"]):
            drg = before.loc[drg, "drg_before"]
        assert stay.drg_code == drg and stay.description == titles[int(stay.fiscal_year), drg][:72]


def test_some_stays_have_no_ms_drg_and_apr_rows_say_what_they_are(folder, stays):
    table = mimic.read(folder, "drgcodes")
    apr = table[table["drg_type"] == "APR"]
    assert apr["description"].str.startswith("SURROGATE APR: ").all() and set(apr["drg_severity"]) == {1, 2, 3, 4}
    assert 0.05 < stays["drg_code"].isna().mean() < 0.25


def test_every_mdc_is_there(stays):
    groups = DRGEngine(version="v36").drgmap
    chapters = {groups[drg]["mdc"] for drg in stays["drg_v36"].dropna()}
    assert chapters >= {f"{mdc:02d}" for mdc in range(1, 26)} and "" in chapters  # "" is Pre-MDC


def test_codes_fit_sex_and_age(folder, stays):
    age = stays["anchor_age"] + stays["admittime"].dt.year - stays["anchor_year"]
    codes = stays["hadm_id"].map({stay: " ".join(codes) for stay, codes in codes_of(folder, "diagnoses_icd").items()})
    mother = codes.str.contains(r"\bO\d")
    assert mother.sum() > 10 and (stays.loc[mother, "gender"] == "F").all() and age[mother].between(15, 50).all()
    newborn = codes.str.contains(r"\b(?:P\d|Z38)")
    assert newborn.sum() > 10 and (newborn == (age == 0)).all()
    male, female = codes.str.contains(r"\b(?:N4\d|C6[0-3])"), codes.str.contains(r"\b(?:C5[1-8]|N8\d|N9[0-8]|D25)")
    assert male.any() and (stays.loc[male, "gender"] == "M").all()
    assert female.any() and (stays.loc[female, "gender"] == "F").all()


def test_chronic_patients_come_again_for_the_same(stays):
    again = stays[stays.duplicated("subject_id", keep=False)].dropna(subset=["scenario"])
    same = again.groupby("subject_id")["scenario"].agg(lambda names: names.duplicated().any())
    assert len(same) > 50 and same.mean() > 0.25


def test_courses_are_found_in_the_notes(notes):
    found = notes["text"].map(hospital_course)
    assert (found.isna() == (notes["course"] == "missing")).all()
    words = found.dropna().map(n_words)
    written = words[notes["course"] == "written"]
    assert 75 < written.mean() < 95 and (written >= 40).mean() > 0.98
    assert (words[notes["course"] == "short"] < 40).all() and (notes["course"] == "short").any()
    assert found[notes["course"] == "copied"].isin(found[notes["course"] != "copied"]).any()


@pytest.fixture(scope="module")
def long_notes(tmp_path_factory) -> pd.DataFrame:
    """Notes as long as MIMIC's, of all kinds of stays, and their courses."""
    folder = tmp_path_factory.mktemp("long") / "raw"
    make_hospital(folder, **DIALS | {"patients": 260, "course_words": 398, "tail": 1.0})
    notes = mimic.read(folder, "discharge")
    return notes.assign(course=notes["text"].map(hospital_course))


def test_long_notes_have_mimics_length(long_notes):
    words = long_notes["course"].dropna().map(n_words)
    assert words[words >= 40].mean() == pytest.approx(398, rel=0.06)
    assert long_notes["text"].str.len().mean() == pytest.approx(10_000, rel=0.1)


def test_hundreds_of_abbreviations_are_used(long_notes):
    known = pd.read_csv(FOLDER / "shorthand.csv", dtype=str, keep_default_na=False)["short"]
    words = {word.strip(".,;:()?") for word in " ".join(long_notes["course"].dropna()).split()}
    used = set(known) & words
    assert known.is_unique and len(used) >= 300


def test_headings_vary_as_in_mimic(long_notes):
    headings = {line for text in long_notes["text"] for line in text.split("\n") if re.search("(?i)hosp.*course", line)}
    assert len(headings) >= 15 and any("___" in heading for heading in headings)


def test_authors_have_habits_and_are_the_admitting_clinicians(folder, stays, everything):
    written = stays.dropna(subset=["author"])
    assert (written["admit_provider_id"] == "P" + written["author"].str.zfill(5)).all()
    assert written.groupby("author")["scenario"].nunique().max() > 3 and written["author"].nunique() > 50
    staff = [author for authors in Author.staff(everything).values() for author in authors]
    assert len({author.number for author in staff}) == len(staff) >= 200
    assert (
        len({author.abbreviated("blood pressure was within normal limits, follow up in clinic") for author in staff})
        >= 4
    )
    first, second = staff[:2]
    assert set(first.phrases("opening")) != set(second.phrases("opening"))
    assert first.phrases("opening") == Author.of(first.number, everything).phrases("opening")


def test_notes_quote_no_drg(notes):
    text = "\n".join(notes["text"])
    billing = r"\bM?CC\b|\bDRGs?\b|\bprincipal diagnosis\b|\bNEC\b|\bNOS\b|[Uu]nspecified|initial encounter|[{}]"
    assert not re.search(billing, text)
    plain = re.sub(r"[^A-Z0-9]+", " ", text.upper())
    words = drgs.v34()["base"].str.upper().str.replace(r"[^A-Z0-9]+", " ", regex=True).str.strip()
    assert not [title for title in words.unique() if len(title.split()) >= 4 and f" {title} " in plain]


def test_notes_are_grammatical(notes):
    course = notes["text"].map(hospital_course).dropna().str.replace(r"\s+", " ", regex=True)
    slips = [r"\b([a-z]{3,}) \1\b", r"\bwas (?:had|was|improved)\b", r"\.\.|,,|,\.|;\.", r" [,.;]", r": :|\(\)|\ba a\b"]
    assert not [text for text in course for slip in slips if re.search(slip, text)]
    men = course[(notes["gender"] == "M") & (notes["anchor_age"] > 0)]
    assert not [text for text in men if re.search(r"\b(?:[Ss]he|[Hh]er|Ms\.|woman|girl|pregnan\w*|labor)\b", text)]


def test_truth_knows_what_a_reader_can_know(stays):
    engine, notes = DRGEngine(version="v36"), stays.dropna(subset=["codes"])
    for stay in notes[notes["course"] == "written"].itertuples():
        documented = stay.documented.split()
        assert set(documented) <= set(stay.codes.split())
        assert documented[0] in (stay.codes.split()[0], stay.competing)
        status = "07" if stay.discharge_location == "AGAINST ADVICE" else "01"
        alive = stay.hospital_expire_flag == 0
        assert stay.drg_documented == engine.get_drg(
            documented, stay.documented_procedures.split(), stay.gender, alive, discharge_status=status
        )
    assert 0.75 < (notes["drg_documented"] == notes["drg_v36"])[notes["course"] == "written"].mean() < 0.95


@pytest.fixture(scope="module")
def evidence(folder, notes) -> pd.DataFrame:
    """Of every second written course: whether the grouped documentation and each attack name its DRG."""
    written = notes[notes["course"] == "written"].set_index("hadm_id")
    hospital, truth = Hospital(DIALS["tail"]), hardness.read_truth(folder).loc[written.index]
    written = written.assign(
        drg_v34=hardness.in_v34(hospital, truth, "drg_v36"), text=written["text"].map(hospital_course)
    )
    written = written.dropna(subset="drg_v34")
    written.index = written.index.astype("int64")
    asked, dictionary = written[::2], hardness.Dictionary(hospital)
    truth, label = truth.loc[asked.index], asked["drg_v34"]
    attacks = hardness.invert(dictionary, truth, asked["text"])
    right = {"documented": hardness.in_v34(hospital, truth, "drg_documented") == label}
    right |= {rule: hardness.in_v34(hospital, truth.assign(guess=attacks[rule]), "guess") == label for rule in attacks}
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=30, max_iter=1000))
    model.fit(hardness.found(dictionary, written["text"][1::2]), written["drg_v34"][1::2])
    right[hardness.LEARNED] = model.predict(hardness.found(dictionary, asked["text"])) == label.to_numpy()
    return pd.DataFrame(right)


def test_notes_are_no_code_list_in_disguise(evidence):
    documented, attacks = evidence["documented"].mean(), evidence.drop(columns="documented").mean()
    assert 0.75 <= documented <= 0.95 and attacks.max() <= documented - 0.15
    assert attacks.idxmax() == hardness.LEARNED and attacks.min() > 0.1


def test_the_attack_would_read_a_code_list(folder):
    """The dictionary is no straw man: where the notes do spell the codes out, it names most DRGs."""
    hospital, truth = Hospital(DIALS["tail"]), hardness.read_truth(folder).head(300)
    spoken = {}
    for stay in truth.itertuples():
        diagnoses = [hospital.condition(code).names[0] for code in stay.codes.split()]
        done = [hospital.procedures[code][0] for code in stay.procedures.split() if code in hospital.procedures]
        spoken[stay.Index] = ". ".join([*diagnoses, *done])
    found = hardness.invert(hardness.Dictionary(hospital), truth, pd.Series(spoken))["first that can lead"]
    assert (found == truth["drg_v36"]).mean() > 0.6


def test_documentation_takes_the_way_of_the_bills(folder, stays):
    rows = stays.dropna(subset=["drg_code", "drg_v36"]).set_index("hadm_id")
    mapping = harmonize(rows[["drg_code", "description"]])[["code", "title", "drg_v34"]]
    billed = rows.merge(mapping, left_on=["drg_code", "description"], right_on=["code", "title"])["drg_v34"]
    truth = hardness.read_truth(folder).loc[rows.index]
    assert hardness.in_v34(Hospital(DIALS["tail"]), truth, "drg_v36").fillna("").tolist() == billed.fillna("").tolist()


def test_truth_knows_how_the_reason_for_admission_is_named(notes):
    written = notes[notes["course"] == "written"]
    course = written["text"].map(hospital_course).str.replace(r"\s", "", regex=True).str.lower()
    for text, names in zip(course, written["named"].str.replace(" ", "").str.lower(), strict=True):
        assert all(name in text for name in names.split(";"))
    assert 0.02 < (written["named"] == "").mean() < 0.3
    shares = written["told"].value_counts(normalize=True)
    assert 0.02 < shares["instead"] < 0.15 and 0.05 < shares["at length"] < 0.3
    instead = written[written["told"] == "instead"]
    assert (instead["documented"].str.split().str[0] == instead["competing"]).all()
    kinds = {"negated", "uncertain", "history", "finding", "ruled_out", "past", "surgical_history", "rival"}
    assert set(" ".join(written["lures"]).split()) == kinds


def test_strata_by_hand():
    truth = pd.DataFrame(
        {
            "told": ["instead", "at length", "", "", "", ""],
            "lures": ["negated past", "", "ruled_out", "surgical_history", "finding", ""],
            "named": ["PE;lung clot", "septic shock", "", "non-ST MI", "Sepsis", "gout"],
        },
        index=[7, 6, 5, 4, 3, 2],
    )
    texts = pd.Series("", index=[2, 3, 4, 5, 6, 7])
    found = hardness.strata(
        truth, texts, pd.Series(["urosepsis today; gouty", "Septic\nshock. No PE. Sepsis, non-\nST MI."])
    )
    assert {name: column.index[column].tolist() for name, column in found.items()} == {
        "competing problem in place of the reason for admission": [7],
        "competing problem at greater length": [6],
        "denied or doubted diseases": [5, 7],
        "past diseases or operations": [4, 7],
        "reason for admission not named": [5],
        "reason for admission in words unseen in training": [2],
        "none of these": [3],
    }
    right = pd.DataFrame({"tfidf": [1, 1, 0, 0, 1, 0], "llama": [1, 0, 1, 1, 1, 0]}, index=texts.index).astype(bool)
    table = comparisons.by_stratum(found, right).set_index(["stratum", "run"])
    assert table.loc[("all", "llama"), ["stays", "difference"]].tolist() == [6, pytest.approx(1 / 6)]
    unseen = table.loc[("reason for admission in words unseen in training", "llama")]
    assert unseen[["stays", "value", "difference"]].tolist() == [1, 1.0, 0.0]
    every = table.loc[("all", "llama")]
    assert every["difference_upper"] - every["difference"] == pytest.approx(1.96 * np.std([0, -1, 1, 1, 0, 0]) / 6**0.5)
    assert table["difference"].isna().groupby("run").all().to_dict() == {"llama": False, "tfidf": True}


def test_unseen_words_are_the_lexicons_nowhere(everything):
    """Some of a name is replaced, and the new words are those of no other name, phrase or complaint."""
    kept = {form for forms in everything.rewordings.values() for form in forms}
    usual = [*everything.lexicon.values()]
    usual = [text for c in usual for text in (*c.names, *c.presenting, *c.findings, *c.treatments)]
    usual += [text for texts in everything.phrases.values() for text in texts if isinstance(text, str)]
    known = " ".join(" ".join(re.split(r"[][|;]", text)) for text in usual).lower()
    taken = {form for form in kept if re.search(rf"\b{re.escape(form)}\b", known)}
    assert len(taken) < 0.15 * len(kept), sorted(taken)
    names = [name for condition in everything.lexicon.values() for name in condition.names]
    assert np.mean([bool(everything.rewordable.search(name)) for name in names]) > 0.55


def drawn(tmp_path, **dials) -> pd.DataFrame:
    make_hospital(tmp_path / "raw", **DIALS | {"patients": 600} | dials)
    notes = mimic.read(tmp_path / "raw", "discharge").set_index("hadm_id")["text"].map(hospital_course)
    return hardness.read_truth(tmp_path / "raw").assign(text=notes).dropna(subset="text")


def test_the_dial_of_unseen_words(tmp_path):
    unseen = {}
    for share in (0.0, 0.25):
        stays = drawn(tmp_path, unseen=share)
        found = hardness.strata(stays, stays["text"][::2], stays["text"][1::2])
        unseen[share] = found["reason for admission in words unseen in training"].mean()
    assert 0.05 < unseen[0.0] < 0.25 and unseen[0.0] + 0.06 < unseen[0.25] < 0.4


def test_the_dial_of_drift(tmp_path):
    """Case mix and wording change over the years if, and only if, the dial says so."""
    apart = {}
    for drift in (0.0, 1.0):
        stays = drawn(tmp_path, drift=drift, patients=600)
        late = stays["fiscal_year"] > 2013
        mix = [stays.loc[part, "scenario"].value_counts(normalize=True) for part in (late, ~late)]
        words = [
            pd.Series(" ".join(stays.loc[part, "named"]).lower().split()).value_counts(normalize=True)
            for part in (late, ~late)
        ]
        apart[drift] = [one.sub(other, fill_value=0).abs().sum() / 2 for one, other in (mix, words)]
    assert apart[1.0][0] > 1.2 * apart[0.0][0] and apart[1.0][1] > 1.1 * apart[0.0][1], apart


def test_phrases_are_well_formed(everything):
    """Alternatives close, nest, and leave no mark; numbers and slots outside them do too."""
    author, rng = Author.of(3, everything), np.random.default_rng(1)
    slots = dict.fromkeys(["pt", "Pt", "he", "him", "his", "man", "m", "service", "hx", "cc", "name", "name2", "finding",
                           "treat", "proc", "list", "lure", "text"], "it")  # fmt: skip
    for texts in everything.phrases.values():
        for template in (text for text in texts if isinstance(text, str)):
            for _ in range(3):
                text = author.fill(template, rng, slots)
                assert not re.search(r"[][{}|]", text), template


def test_alternatives_are_chosen_from_within(everything):
    author = Author.of(3, everything)
    made = {author.fill("[a|b[c|]] [|d]", np.random.default_rng(seed), {}) for seed in range(60)}
    assert made == {"a ", "a d", "b ", "b d", "bc ", "bc d"}
    often = [author.fill("[x|y|z|w]", np.random.default_rng(seed), {}) for seed in range(400)]
    assert max(often.count(form) for form in "xyzw") / 400 == pytest.approx(0.4 + 0.6 / 4, abs=0.07)  # the favourite


def test_real_data_have_no_truth(tmp_path):
    with pytest.raises(StudyError, match=r"truth.csv.gz is missing: real data have no truth file"):
        hardness.read_truth(tmp_path)


def test_the_shape_of_the_papers_cohort(everything):
    """Shares of the most frequent DRGs as published (30: 29.2 %, 50: 39.1 %, 300: 87.4 %), in a draw without notes."""
    drgs_drawn = pd.Series(
        stay.drg_v36
        for number in range(6000)
        for stay in draw_patient(everything, number, np.random.default_rng([11, number])).stays
    )
    assert len(drgs_drawn) / 6000 * (1 - discharge.NO_NOTE) == pytest.approx(331_794 / 145_915, rel=0.02)
    shares = 100 * drgs_drawn.value_counts(normalize=True)
    assert len(shares) > 600
    for most, published in ((30, 29.2), (50, 39.1), (300, 87.4)):
        assert shares.iloc[:most].sum() == pytest.approx(published, abs=3)


def test_each_patient_is_forgotten_once_written(tmp_path, monkeypatch):
    alive, most = weakref.WeakSet(), []

    def watched(*args, **dials):
        patient = draw_patient(*args, **dials)
        alive.add(patient)
        most.append(len(alive))
        return patient

    monkeypatch.setattr(discharge, "draw_patient", watched)
    monkeypatch.setattr(patients.Patient, "__hash__", object.__hash__)
    make_hospital(tmp_path / "raw", **DIALS | {"patients": 40})
    assert len(most) == 40 and max(most) <= 2


def test_nothing_is_left_of_an_interrupted_hospital(tmp_path, monkeypatch):
    def interrupted(hospital, index, rng, **dials):
        if index == 3:
            raise KeyboardInterrupt
        return draw_patient(hospital, index, rng, **dials)

    monkeypatch.setattr(discharge, "draw_patient", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_hospital(tmp_path / "raw", **DIALS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("patients", 0), ("patients", 2.5), ("patients", True), ("seed", -1), ("seed", None)],
        *[("workers", 0), ("workers", "2"), ("patients", 800_001)],
        *[("course_words", 12), ("course_words", "85"), ("tail", -0.1), ("tail", 1.2), ("tail", float("nan"))],
        *[("unseen", 2), ("drift", "1")],
    ],
)
def test_bad_dials(tmp_path, name, value):
    with pytest.raises(StudyError, match=f"^{name} is "):
        make_hospital(tmp_path / "raw", **DIALS | {name: value})
    assert not list(tmp_path.iterdir())


def test_every_scenario_is_grouped_where_it_says(everything):
    """Each reason for admission is drawn; with all of them there are some 600 DRGs."""
    seen = set()
    for scenario in everything.scenarios:
        for number in range(4):
            rng = np.random.default_rng(number)
            sex, age = scenario.sex or "FM"[number % 2], scenario.ages[len(scenario.ages) // 2]
            stay = patients._draw_stay(everything, scenario, sex, age, 1.0, {}, rng)
            assert stay and stay.drg_v36 in scenario.drgs, scenario.name
            seen.add(stay.drg_v36)
    assert len(seen) > 400


def test_every_stay_can_be_written_in_every_layout_and_length(everything):
    authors = [Author.of(number, everything) for number in range(30)]
    layouts = {author.layout: author for author in authors}
    assert len(layouts) == 3
    for i, scenario in enumerate(everything.scenarios):
        for j, (author, words) in enumerate(zip(layouts.values(), (44, 150, 700), strict=True)):
            rng = np.random.default_rng([i, j])
            sex, age = scenario.sex or "FM"[i % 2], scenario.ages[-1]
            stay = patients._draw_stay(everything, scenario, sex, age, 1.5, {}, rng)
            course = Writer(author, stay, sex, rng).write(words)
            assert 0.3 * words < n_words(course.text) < 2.5 * words + 40, (scenario.name, author.layout)
            assert "{" not in course.text and set(course.documented) <= set(stay.codes)


def test_tables_speak_of_codes_that_exist(everything):
    known = {code[:length] for code in everything.engine.dxmap for length in range(3, 8)}
    assert everything.lexicon.keys() - known <= {"V4352XA", "W19XXXA"}  # external causes
    named = everything.procedures.keys()
    done = {code for s in everything.scenarios for codes, _ in s.procedures for code in codes}
    assert {code for code in done if len(code) != 7} == set()
    assert {code for code in done - named if code in everything.engine.orpcsmap} <= {"02H63JZ", "02HK3JZ"}  # leads
    assert len(named & everything.engine.prmap.keys()) > 120


def test_tail_keeps_the_commonest():
    few, some = Hospital(0.0).scenarios, Hospital(0.3).scenarios
    assert {s.name for s in few} < {s.name for s in some}
    assert {s.name for s in some} >= {"sepsis", "heart_failure", "pneumonia", "knee_replacement", "vaginal_delivery"}


@pytest.mark.parametrize(
    ("principal", "secondary", "expected"),
    [
        ("J189", ["I10", "N183"], ["N183", "I129"]),  # hypertension with CKD is one code
        ("J189", ["I10", "N183", "I5022"], ["N183", "I5022", "I130"]),
        ("J189", ["I10", "E43", "E46"], ["I10", "E43"]),
        ("N186", ["N179", "E785"], ["E785"]),
        ("I5023", ["I5032", "I509", "I10"], ["I10"]),
        ("J189", ["E871", "E870"], ["E871"]),
        ("J189", [], []),
    ],
)
def test_coding_rules(everything, principal, secondary, expected):
    assert sorted(reconcile(everything.rules, [principal], secondary)) == sorted(expected)
