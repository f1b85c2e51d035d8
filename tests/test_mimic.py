"""MIMIC's tables are read as they are written, and each kind of damage is told in one sentence."""

import csv
import datetime
import gzip
import json
import os

import pandas as pd
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drgstudy import csv_stream, mimic
from drgstudy.study import ROOT, StudyError, fingerprint

DEMO = ROOT.parent / "shared" / "open-data" / "mimic-iii-demo"
DRGCODES = """\
subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality
10,20,HCFA,039,"EXTRACRANIAL PROCEDURES W/O CC/MCC",,
10,20,APR,0241,"EXTRACRANIAL VASCULAR PROCEDURES, OTHER",1,2
"""
NOTES = """\
note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text
10-DS-1,10,20,DS,1,2180-05-06 00:00:00,2180-05-09 15:26:00,"He said ""ouch"",

and left."
11-DS-2,11,,DS,2,2180-05-07 00:00:00,,secret words
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with one compressed and one plain table."""
    (tmp_path / "hosp").mkdir()
    (tmp_path / "note").mkdir()
    (tmp_path / "hosp" / "drgcodes.csv.gz").write_bytes(gzip.compress(DRGCODES.encode()))
    (tmp_path / "note" / "discharge.csv").write_text(NOTES, encoding="utf-8")
    return tmp_path


def read_notes(folder):
    return pyarrow.Table.from_batches(mimic.notes(folder)).to_pandas()


def test_a_table_has_its_types_and_empty_cells(folder):
    drgs = mimic.read(folder, "drgcodes")
    assert drgs.dtypes.astype(str).to_dict() == {
        "subject_id": "int64", "hadm_id": "int64", "drg_type": "str", "drg_code": "str", "description": "str",
        "drg_severity": "Int64", "drg_mortality": "Int64",
    }  # fmt: skip
    assert drgs["drg_code"].tolist() == ["039", "0241"]  # not numbers
    assert drgs["drg_severity"].isna().tolist() == [True, False]
    assert mimic.read(folder, "drgcodes", ["drg_code", "hadm_id"]).columns.tolist() == ["drg_code", "hadm_id"]


def test_every_table_of_mimic_iv_is_read_whole(tmp_path):
    sample = {"id": "7", "number": "", "text": "a", "time": "2180-05-06 22:15:00"}
    for table, columns in mimic.COLUMNS.items():
        row = ",".join(sample[kind] for kind in columns.values())
        (tmp_path / f"{table}.csv").write_text(f"{','.join(columns)}\n{row}\n", encoding="utf-8")
        assert mimic.read(tmp_path, table).columns.tolist() == list(columns)
    assert mimic.read(tmp_path, "admissions")["admittime"][0] == pd.Timestamp("2180-05-06 22:15:00")


def test_columns_and_names_of_mimic_iii_are_in_capitals(tmp_path):
    (tmp_path / "DRGCODES.csv").write_text("ROW_ID," + DRGCODES.upper().replace("\n1", "\n1,1"), encoding="utf-8")
    drgs = mimic.read(tmp_path, "drgcodes")
    assert drgs["description"][0] == "EXTRACRANIAL PROCEDURES W/O CC/MCC"
    assert mimic.source(tmp_path).name == "MIMIC-III (credentialed)"


def mimic_iii(folder, **tables):
    """Write tables under MIMIC-III's names and columns, a list of dicts each; what a row does not say is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, rows in tables.items():
        with open(folder / f"{table.upper()}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [name.upper() for name in mimic.MIMIC_III[table]], lineterminator="\n")
            writer.writeheader()
            writer.writerows({name.upper(): value for name, value in row.items()} for row in rows)
    return folder


def test_the_file_decides_whose_columns_a_table_has(tmp_path):
    three = mimic_iii(
        tmp_path / "three", patients=[{"row_id": 1, "subject_id": 7, "expire_flag": 0, "dob": "1880-02-01"}]
    )
    assert mimic.read(three, "patients", ["subject_id", "dob"])["dob"][0] == pd.Timestamp("1880-02-01")
    with pytest.raises(StudyError, match=r"PATIENTS.csv has no column anchor_age"):
        mimic.read(three, "patients", ["anchor_age"])
    four = dataset(tmp_path / "four", ["patients"])
    assert mimic.read(four, "patients")["anchor_age"].tolist() == [7]


def test_numbers_may_be_empty_or_have_a_fraction(tmp_path):
    rows = [
        {"row_id": i, "subject_id": 7, "itemid": 211, "value": str(v), "valuenum": v}
        for i, v in enumerate(["80", "", "1.5e2"])
    ]
    folder = mimic_iii(tmp_path, chartevents=rows)
    read = mimic.read(folder, "chartevents", ["valuenum", "value", "hadm_id"])
    assert read["valuenum"].fillna(-1).tolist() == [80, -1, 150] and read["value"].tolist() == ["80", "", "1.5e2"]
    assert read["hadm_id"].isna().all()
    mimic_iii(tmp_path, chartevents=[rows[0] | {"valuenum": "high"}])
    with pytest.raises(StudyError, match="column VALUENUM holds 'high', expected a number"):
        mimic.read(folder, "chartevents", ["valuenum"])


def test_batches_hold_the_columns_asked_for(tmp_path, monkeypatch):
    rows = [
        {"row_id": i, "subject_id": 7, "itemid": 1, "valuenum": i / 2, "value": "not asked for"} for i in range(500)
    ]
    folder = mimic_iii(tmp_path, chartevents=rows)
    monkeypatch.setattr(csv_stream, "BATCH_BYTES", 1000)
    batches = list(mimic.batches(folder, "chartevents", ["valuenum", "row_id"]))
    assert len(batches) > 5 and batches[0].columns.tolist() == ["valuenum", "row_id"]
    whole = pd.concat(batches)
    assert whole["valuenum"].tolist() == [i / 2 for i in range(500)]
    assert whole.index.tolist() == list(range(1, 501))


def test_only_the_notes_of_mimic_iii_may_be_an_empty_table(tmp_path):
    folder = mimic_iii(tmp_path, noteevents=[], icustays=[])
    notes = mimic.read(folder, "noteevents", ["hadm_id", "charttime", "text"])
    assert notes.empty and notes.dtypes.astype(str).tolist() == ["Int64", "datetime64[s]", "str"]
    with pytest.raises(StudyError, match=r"ICUSTAYS.csv is empty; expected a CSV table"):
        mimic.read(folder, "icustays")


def test_tables_that_only_mimic_iii_needs_are_looked_for_in_capitals(tmp_path):
    four = dataset(tmp_path, ALL)
    before = mimic.source(four)
    assert before.fingerprint == "6715faa8f730a1cd"  # as before the study read MIMIC-III
    for table in ("labevents", "d_labitems", "noteevents"):
        (four / "hosp" / f"{table}.csv").write_text("subject_id\n1\n")  # MIMIC-IV's own, in its own columns
        with pytest.raises(StudyError, match=f"has no {table.upper()}.csv.gz or {table.upper()}.csv"):
            mimic.find(four, table)
    assert mimic.source(four) == before


def test_the_source_of_mimic_iii(tmp_path):
    folder = mimic_iii(
        tmp_path / "mimic-iii-clinical-database-1.4",
        patients=[{"row_id": 1, "subject_id": 7, "expire_flag": 0}],
        drgcodes=[{"row_id": 1, "subject_id": 7, "hadm_id": 8, "drg_type": "MS", "drg_code": "001"}],
        icustays=[{"row_id": 1, "subject_id": 7, "hadm_id": 8, "icustay_id": 9}] * 2,
        noteevents=[],
    )
    source = mimic.source(folder)
    assert (source.kind, source.name, source.version) == ("credentialed", "MIMIC-III v1.4 (credentialed)", "1.4")
    assert source.rows == {"patients": 1, "drgcodes": 1, "icustays": 2}
    mimic_iii(folder, labevents=[])
    assert mimic.source(folder).fingerprint != source.fingerprint
    with pytest.raises(StudyError, match="column icustay_id, row 1: 9 breaks the rule field_uniqueness"):
        mimic.read(folder, "icustays", ["icustay_id"])
    (folder / "LICENSE.txt").write_text("## ODC OPEN DATABASE LICENSE (ODBL)\n")
    renamed = folder.rename(tmp_path / "mimic-iii-clinical-database-demo-1.4")
    assert (mimic.source(renamed).kind, mimic.source(renamed).name) == ("open demo", "MIMIC-III demo v1.4")
    declare_synthetic(renamed)
    assert (mimic.source(renamed).kind, mimic.source(renamed).name) == ("synthetic", "synthetic hospital, seed 7")


def test_notes_keep_their_lines_quotes_and_missing_stay(folder):
    notes = read_notes(folder)
    assert notes["text"].tolist() == ['He said "ouch",\n\nand left.', "secret words"]
    assert notes["hadm_id"].isna().tolist() == [False, True]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=20))
def test_notes_are_what_the_csv_module_wrote(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("notes")
    with gzip.open(folder / "discharge.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(NOTES.splitlines()[0].split(","))
        writer.writerows([f"{i}-DS-1", i, i, "DS", 1, "", "", text] for i, text in enumerate(texts))
    assert read_notes(folder)["text"].tolist() == texts


def test_batches_join_to_the_same_notes(folder, monkeypatch):
    rows = "".join(f'{i}-DS-1,{i},{i},DS,1,,,"line\nof note {i}"\n' for i in range(300))
    (folder / "note" / "discharge.csv").write_text(NOTES.splitlines()[0] + "\n" + rows, encoding="utf-8")
    monkeypatch.setattr(csv_stream, "BATCH_BYTES", 1000)
    batches = list(mimic.notes(folder))
    assert len(batches) > 5
    assert pyarrow.Table.from_batches(batches)["text"].to_pylist() == [f"line\nof note {i}" for i in range(300)]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: text.replace("hadm_id", "stay"), r"discharge.csv has no column hadm_id; it has note_id, "),
        (lambda text: "", r"discharge.csv is empty"),
        (lambda text: text.splitlines()[0], r"discharge.csv is empty; expected a CSV table"),
        (lambda text: text.replace("11-DS-2", "10-DS-1"), r"discharge.csv, row 2: the note_id 10-DS-1 occurs twice"),
        (lambda text: text.replace(",11,", ",eleven,"), r"column subject_id holds 'eleven', expected a whole number"),
        (lambda text: text.replace(",20,", ",20.5,"), r"column hadm_id holds '20.5', expected a whole number"),
        (lambda text: text.replace(",11,", ",,"), r"column subject_id, row 2: .* not_nullable"),
        (lambda text: text.replace("DS,2,", "DS,"), r"not a well-formed CSV table: expected 8 columns, got 7$"),
        (lambda text: text.replace('left."', "left."), r"not a well-formed CSV table: a quote is never closed"),
    ],
)
def test_damaged_text_is_told_in_one_sentence_that_quotes_no_note(folder, damage, sentence):
    (folder / "note" / "discharge.csv").write_text(damage(NOTES), encoding="utf-8")
    with pytest.raises(StudyError, match=sentence) as error:
        read_notes(folder)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.parametrize("cut", [5, 60, -4])
def test_a_truncated_gz_is_told(folder, cut):
    path = folder / "hosp" / "drgcodes.csv.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(StudyError, match=r"drgcodes.csv.gz is truncated or damaged"):
        mimic.read(folder, "drgcodes")


@pytest.mark.parametrize(("word", "place"), [("ouch", ", column text"), ("note_seq", "")])
def test_latin_1_is_told(folder, word, place):
    path = folder / "note" / "discharge.csv"
    path.write_bytes(path.read_bytes().replace(word.encode(), "caf\u00e9".encode("latin-1")))
    with pytest.raises(StudyError, match=f"discharge.csv{place} is not UTF-8 text"):
        read_notes(folder)


def test_a_wrong_time_or_a_repeated_key_is_told(tmp_path):
    header = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
    path = tmp_path / "patients.csv"
    path.write_text(header + "1,F,60,2180,2011 - 2013,in May\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"patients.csv, column dod holds 'in May', expected a time such as"):
        mimic.read(tmp_path, "patients")
    path.write_text(header + "1,F,60,2180,2011 - 2013,\n" * 2, encoding="utf-8")
    with pytest.raises(StudyError, match=r"patients.csv, column subject_id, row 1: 1 breaks the rule field_uniqueness"):
        mimic.read(tmp_path, "patients")


ZONES = ["", "Z", "z", " UTC", " GMT", "+00:00", "+0000", "+00", "-00:00", " +0000 UTC"]


@given(st.datetimes(datetime.datetime(1800, 1, 1), datetime.datetime(2300, 1, 1)), st.data())
def test_a_time_is_read_whoever_wrote_it(tmp_path_factory, when, data):
    folder, when = tmp_path_factory.mktemp("icu"), when.replace(microsecond=0)
    texts = [
        when.isoformat(data.draw(st.sampled_from(" T")))
        + data.draw(st.sampled_from(["", ".0", ".000", ".000000", ".999"]))
        + data.draw(st.sampled_from(ZONES))
        for _ in range(3)
    ]
    rows = [{"row_id": i, "subject_id": 1, "itemid": 1, "charttime": text} for i, text in enumerate([*texts, ""])]
    read = mimic.read(mimic_iii(folder, labevents=rows), "labevents", ["charttime"])["charttime"]
    assert read.dtype == "datetime64[s]" and read.tolist() == [pd.Timestamp(when)] * 3 + [pd.NaT]


def test_every_time_of_every_table_is_read_so(tmp_path):
    for tables, write in ((mimic.COLUMNS, lambda name: name), (mimic.MIMIC_III, str.upper)):
        for table, columns in tables.items():
            sample = {"id": "7.0", "number": "", "float": "1", "text": "a", "time": "2180-05-06T22:15:00.000+00:00"}
            rows = ",".join(columns), ",".join(sample[kind] for kind in columns.values())
            folder = tmp_path / f"{table}{len(columns)}"
            folder.mkdir()
            (folder / f"{write(table)}.csv").write_text("\n".join(rows))
            read = mimic.read(folder, write(table)).iloc[0]
            for name, kind in columns.items():
                if kind in ("time", "id"):
                    assert read[name] == {"time": pd.Timestamp("2180-05-06 22:15"), "id": 7}[kind], (table, name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2180-05-06 22:15:00+01:00", r"holds a time of the zone \+01:00; expected times of one clock, without a zone"),
        ("2180-05-06T22:15:00.000-0500", "holds a time of the zone -0500; expected"),
        ("2180-05-06 22:15:00 EST", "holds a time of the zone EST; expected"),
        ("2180-02-30 22:15:00Z", "holds '2180-02-30 22:15:00', expected a time such as 2180-05-06 22:15:00"),
        ("2180-05-06 10:15:00 PM", "holds a text of 24 characters, expected a time such as"),
        ("06/05/2180 22:15", "holds '06/05/2180 22:15', expected a time such as"),
    ],
)
def test_a_time_that_may_mean_another_is_refused_for_the_true_reason(tmp_path, text, reason):
    rows = [{"row_id": i, "subject_id": 1, "itemid": 1, "charttime": t} for i, t in enumerate(["2180-05-06Z", text])]
    with pytest.raises(StudyError, match=f"LABEVENTS.csv, column CHARTTIME {reason}"):
        mimic.read(mimic_iii(tmp_path, labevents=rows), "labevents", ["charttime"])


@given(st.lists(st.tuples(st.integers(0, 2**53), st.sampled_from(["", ".0", ".00", "."])) | st.none(), min_size=40))
def test_whole_numbers_are_read_wherever_pandas_made_them_floats(tmp_path_factory, ids):
    """The first odd one may come after batches that were given already; no row may be lost or come twice."""
    folder = tmp_path_factory.mktemp("icu")
    texts = [f"{n[0]}{n[1]}" if n else "" for n in ids]
    rows = [{"row_id": i, "subject_id": i, "itemid": 1, "hadm_id": text} for i, text in enumerate(texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_stream, "BATCH_BYTES", 200)
        read = mimic.read(mimic_iii(folder, labevents=rows), "labevents", ["subject_id", "hadm_id"])
    assert read["subject_id"].tolist() == list(range(len(ids)))
    assert read["hadm_id"].fillna(-1).tolist() == [n[0] if n else -1 for n in ids]


@pytest.mark.parametrize("wrong", ["20.5", "2e1", "1,5", "twenty", "99999999999999999999.0"])
def test_what_is_no_whole_number_is_told_also_after_odd_ones(tmp_path, wrong):
    rows = [{"row_id": i, "subject_id": "7.0", "itemid": 1, "hadm_id": n} for i, n in enumerate(["", "20.0", wrong])]
    with pytest.raises(StudyError, match=r"column HADM_ID holds .*, expected a whole number"):
        mimic.read(mimic_iii(tmp_path, labevents=rows), "labevents", ["hadm_id", "subject_id"])


@pytest.mark.parametrize("words", ["straddling object", "invalid UTF8 data", "error to int64: invalid value '1'", '""'])
def test_the_words_of_a_note_are_not_taken_for_a_reason(folder, words):
    text = NOTES.replace("DS,2,", "DS,").replace("secret words", f'"{words}"')
    (folder / "note" / "discharge.csv").write_text(text)
    with pytest.raises(StudyError, match=r"discharge.csv is not a well-formed CSV table: expected 8 columns, got 7$"):
        read_notes(folder)


def test_no_reason_is_better_than_a_false_one(folder):
    path = folder / "hosp" / "drgcodes.csv.gz"
    errors = {
        pyarrow.ArrowNotImplementedError("a secret"): r"can't be read as a CSV table; see whether",
        OSError(28, "No space left on device"): r"can't be read \(No space left on device\)$",
        OSError("zlib inflate failed"): r"is truncated or damaged \(zlib inflate failed\)",
    }
    for error, says in errors.items():
        with pytest.raises(StudyError, match=says), csv_stream.explained(path):
            raise error
    with pytest.raises(MemoryError), csv_stream.explained(path):
        raise pyarrow.ArrowMemoryError("malloc of size 9 failed")


def test_a_missing_folder_or_table_is_told(tmp_path):
    with pytest.raises(StudyError, match="nowhere does not exist"):
        mimic.read(tmp_path / "nowhere", "drgcodes")
    with pytest.raises(StudyError, match=r"has no discharge.csv.gz or discharge.csv"):
        read_notes(tmp_path)
    with pytest.raises(StudyError, match=r"has no drgcodes.csv.gz"):
        mimic.source(tmp_path)


def test_the_source_is_found_from_the_files(folder):
    unknown = mimic.source(folder)
    assert (unknown.kind, unknown.name) == ("credentialed", "MIMIC-IV (credentialed)")

    (folder / "LICENSE.txt").write_text("## ODC OPEN DATABASE LICENSE (ODBL)\n")
    assert mimic.source(folder).kind == "credentialed"  # nobody knows how many patients
    patients = folder / "hosp" / "patients.csv"
    patients.write_text("subject_id\n" + "1\n" * 101)
    assert mimic.source(folder).rows == {"patients": 101, "drgcodes": 2}
    assert mimic.source(folder).kind == "credentialed"  # an open licence put beside a full database opens nothing
    patients.write_text("subject_id\n" + "1\n" * 100)
    assert (mimic.source(folder).kind, mimic.source(folder).name) == ("open demo", "MIMIC-IV demo")
    assert mimic.source(folder).fingerprint != unknown.fingerprint  # there are patients now

    declare_synthetic(folder)
    assert (mimic.source(folder).kind, mimic.source(folder).name) == ("synthetic", "synthetic hospital, seed 7")
    (folder / "hospital.json").write_text("[]")
    assert mimic.source(folder).kind == "open demo"
    (folder / "hospital.json").write_text("{")
    with pytest.raises(StudyError, match=r"hospital.json is not valid JSON"):
        mimic.source(folder)


def test_ones_own_table_in_a_synthetic_hospital_is_not_taken_for_synthetic(folder):
    mine = {
        "note/discharge.csv": NOTES.replace("secret", "my patient's").encode(),
        "hosp/drgcodes.csv.gz": gzip.compress(DRGCODES.replace("039", "038").encode()),
        "hosp/patients.csv": b"subject_id\n1\n",
    }
    for name, content in mine.items():
        declare_synthetic(folder)
        assert mimic.source(folder).kind == "synthetic"
        (folder / name).write_bytes(content)
        with pytest.raises(StudyError, match=rf"{name} is not as the synthetic hospital .* remove .*hospital\.json"):
            mimic.source(folder)
    for said in ("[]", '"all"', "null", '{"hosp/drgcodes.csv": 1}'):
        (folder / "hospital.json").write_text(f'{{"source": "synthetic", "seed": 7, "files": {said}}}')
        with pytest.raises(StudyError, match="is not as the synthetic hospital wrote it"):
            mimic.source(folder)
    (folder / "hospital.json").unlink()
    assert mimic.source(folder).kind == "credentialed"


@pytest.mark.skipif(not DEMO.exists(), reason="the open MIMIC-III demo is not here")
def test_the_real_mimic_iii_demo():
    source = mimic.source(DEMO)
    assert (source.kind, source.name) == ("open demo", "MIMIC-III demo")
    assert source.rows == {"patients": 100, "admissions": 129, "drgcodes": 297, "icustays": 136}
    for table, columns in mimic.MIMIC_III.items():
        header = gzip.decompress((DEMO / f"{table.upper()}.csv.gz").read_bytes()).partition(b"\n")[0]
        assert list(columns) == header.decode().strip().lower().split(","), table
        if table != "chartevents":  # read below, in batches
            assert mimic.read(DEMO, table).columns.tolist() == list(columns)
    values = pd.concat(mimic.batches(DEMO, "chartevents", ["itemid", "valuenum"]))
    assert len(values) == 758_355 and values["valuenum"].dtype == "float64"
    assert values.loc[values["itemid"] == 211, "valuenum"].median() == pytest.approx(88, abs=15)  # heart rate
    drgs = mimic.read(DEMO, "drgcodes")
    assert drgs["drg_type"].str.strip().value_counts().to_dict() == {"APR": 168, "MS": 72, "HCFA": 57}
    assert drgs["hadm_id"].nunique() == 129


def test_of_two_folders_the_least_open_one_decides(tmp_path):
    made, real = dataset(tmp_path / "made"), dataset(tmp_path / "real")
    declare_synthetic(made)
    (real / "note" / "discharge.csv").write_text(NOTES + "12-DS-3,12,20,DS,1,,,other words\n")
    both = mimic.source(made, real)
    assert mimic.source(made).kind == "synthetic" and mimic.source(made, made) == mimic.source(made)
    assert (both.kind, both.name) == ("credentialed", "synthetic hospital, seed 7, MIMIC-IV-Note (credentialed)")
    assert both.fingerprint != mimic.source(made).fingerprint
    assert mimic.source(real, made).name == "MIMIC-IV, synthetic hospital, seed 7 (credentialed)"


ALL = [table for table in mimic.COLUMNS if table != "discharge"]
ROWS = {"patients": 1, "admissions": 2, "drgcodes": 2}  # one admission's race holds a line break


def declare_synthetic(folder):
    """Say of the tables in a folder, as they are now, that a synthetic hospital wrote them."""
    written = {path.relative_to(folder).as_posix(): fingerprint(path) for path in folder.rglob("*.csv*")}
    (folder / "hospital.json").write_text(json.dumps({"source": "synthetic", "seed": 7, "files": written}))


def dataset(folder, tables=(*ALL, "discharge"), end=".csv"):
    """Write made-up tables as MIMIC-IV has them in a folder with hosp/ and note/, and what lies beside them."""
    sample = {"id": "7", "number": "", "text": "a", "time": "2180-05-06"}
    for table in tables:
        columns = mimic.COLUMNS[table]
        row = ",".join("2020 - 2022" if name == "anchor_year_group" else sample[kind] for name, kind in columns.items())
        text = f"{','.join(columns)}\n{row}\n"
        if table == "admissions":
            text += row.replace("7,7,", "7,8,").replace(",a,2180", ',"HISPANIC/LATINO\n- ""CUBAN""",2180') + "\n"
        text = {"discharge": NOTES, "drgcodes": DRGCODES}.get(table, text)
        path = folder / ("note" if table == "discharge" else "hosp") / f"{table}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if end == ".csv.gz" else text.encode())
    for name in ("index.html", "SHA256SUMS.txt", "LICENSE.txt"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("end", [".csv", ".csv.gz"])
@pytest.mark.parametrize(
    ("lies", "given", "version"),
    [
        ("physionet.org/files/mimiciv/2.2", "physionet.org/files/mimiciv/2.2/hosp", "2.2"),
        ("physionet.org/files/mimiciv/2.2", "physionet.org/files/mimiciv/2.2", "2.2"),
        ("physionet.org/files/mimiciv/3.1", "physionet.org/files/mimiciv", "3.1"),
        ("physionet.org/files/mimiciv/3.1", "physionet.org", "3.1"),
        ("physionet.org/files/mimiciv/2.0", ".", "2.0"),
        ("mimic-iv-3.1", "mimic-iv-3.1", "3.1"),
        ("mimic-iv-3.1", ".", "3.1"),
        ("3.11/mimic", "3.11/mimic", ""),  # somebody else's number
    ],
)
def test_tables_and_notes_are_found_as_downloaded(tmp_path, lies, given, version, end):
    tables = dataset(tmp_path / lies, ALL, end)
    notes = dataset(tmp_path / "physionet.org" / "files" / "mimic-iv-note" / "2.2", ["discharge"], end)
    for table in ALL:
        assert mimic.find(tmp_path / given, table) == tables / "hosp" / f"{table}{end}"
    for folder in (tmp_path, tmp_path / "physionet.org", notes.parent, notes, notes / "note"):
        assert mimic.find(folder, "discharge") == notes / "note" / f"discharge{end}"
    source = mimic.source(tmp_path / given, notes.parent)
    assert (source.kind, source.version, source.rows) == ("credentialed", version, ROWS)
    assert source.name == f"MIMIC-IV v{version}, MIMIC-IV-Note v2.2 (credentialed)".replace(" v,", ",")
    assert source == mimic.source(tables, notes)
    assert mimic.read(tmp_path / given, "patients")["anchor_year_group"].tolist() == ["2020 - 2022"]


def test_the_zip_folders_names_tell_the_version(tmp_path):
    dataset(tmp_path / "mimic-iv-clinical-database-demo-2.2", ALL)
    dataset(tmp_path / "mimic-iv-note-deidentified-free-text-clinical-notes-2.2", ["discharge"])
    (tmp_path / "mimic-iv-clinical-database-demo-2.2" / "LICENSE.txt").write_text("## ODC Open Database License (ODbL)")
    assert mimic.source(tmp_path / "mimic-iv-clinical-database-demo-2.2").kind == "open demo"
    both = mimic.source(tmp_path)
    assert (both.kind, both.name) == ("credentialed", "MIMIC-IV demo v2.2, MIMIC-IV-Note v2.2 (credentialed)")
    (tmp_path / "mimiciii" / "1.4").mkdir(parents=True)
    (tmp_path / "mimiciii" / "1.4" / "DRGCODES.csv").write_text(DRGCODES.upper())
    assert mimic.source(tmp_path / "mimiciii").name == "MIMIC-III v1.4 (credentialed)"


def test_a_renamed_folders_version_is_in_its_changelog(tmp_path):
    (dataset(tmp_path / "mine", ALL) / "CHANGELOG.txt").write_text("# v2.2\n...\n# v3.1\nfixes v3.0\n# v2.0, ICD v10\n")
    assert mimic.source(tmp_path / "mine").name == "MIMIC-IV v3.1 (credentialed)"


def test_of_both_formats_the_compressed_one_is_read(tmp_path):
    dataset(dataset(tmp_path, ALL), ["drgcodes"], ".csv.gz")
    assert mimic.find(tmp_path, "drgcodes").name == "drgcodes.csv.gz"
    assert mimic.find(tmp_path, "patients").name == "patients.csv"


def test_of_two_versions_one_must_be_named(tmp_path):
    old, new = dataset(tmp_path / "mimiciv" / "2.2", ["patients"]), dataset(tmp_path / "mimiciv" / "3.1", ["drgcodes"])
    for look in (lambda: mimic.find(tmp_path, "drgcodes"), lambda: mimic.source(tmp_path)):  # nor are they mixed
        with pytest.raises(StudyError, match=f"several versions of drgcodes: {old}, {new}; name one"):
            look()
    assert mimic.source(new, dataset(tmp_path / "mimic-iv-note-2.2", ["discharge"]).parent).version == "3.1"


def third(folder, small=False):
    """MIMIC-III's tables, in capitals or, as some exports have them, in small letters."""
    stay = {
        "row_id": 1,
        "subject_id": 3,
        "hadm_id": 3,
        "itemid": 3,
        "icustay_id": 3,
        "drg_type": "MS",
        "drg_code": "001",
    }
    mimic_iii(folder, **{t: [{k: v for k, v in stay.items() if k in names}] for t, names in mimic.MIMIC_III.items()})
    for path in folder.iterdir():
        path.rename(folder / (path.name.lower() if small else path.name))
    return folder


@pytest.mark.parametrize("old", ["mimiciii/1.4", "mimic-iii-clinical-database-1.4", "mimic3/v1.4"])
@pytest.mark.parametrize("new", ["mimiciv/3.1", "mimic-iv-3.1", "MIMIC-IV/2.2"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_mimic_iii_beside_mimic_iv_is_no_version_of_it(tmp_path, old, new, flat, small):
    files = tmp_path / "physionet.org" / "files"
    old, new = third(files / old, small), dataset(files / new, ALL)
    dataset(files / "mimic-iv-note" / "2.2", ["discharge"])
    if flat:
        for path in (new / "hosp").iterdir():
            path.rename(new / path.name)
    at_home = new if flat else new / "hosp"
    for folder in (tmp_path, files):
        for table in ALL:
            assert mimic.find(folder, table) == at_home / f"{table}.csv"
        assert mimic.source(folder, folder) == mimic.source(new, folder)
        assert not any(old in path.parents for path in mimic.files(folder, folder))
        if small:
            with pytest.raises(
                StudyError, match=r"has no DRGCODES\.csv\.gz .*, but drgcodes\.csv, which differs in case"
            ):
                mimic.source(folder, third=True)
            continue
        for table in mimic.MIMIC_III:
            assert mimic.find(folder, table.upper()) == old / f"{table.upper()}.csv"
        assert mimic.source(folder, third=True) == mimic.source(old) == mimic.source(old, third=True)
        assert mimic.source(old).name.startswith("MIMIC-III v1.4")
        assert {path.parent for path in mimic.files(folder, third=True)} == {old}
        assert {rows["subject_id"][0] for rows in (mimic.read(folder, "PATIENTS", ["subject_id"]),)} == {3}


def test_two_versions_of_the_one_are_still_two_beside_the_other(tmp_path):
    third(tmp_path / "mimiciii" / "1.4")
    for version in ("2.2", "3.1"):
        dataset(tmp_path / "mimiciv" / version, ALL)
    with pytest.raises(StudyError, match=r"several versions of drgcodes: \S+/2\.2, \S+/3\.1; name one"):
        mimic.find(tmp_path, "drgcodes")
    assert mimic.find(tmp_path, "DRGCODES").name == "DRGCODES.csv"
    third(tmp_path / "mimiciii-demo" / "1.4")
    with pytest.raises(StudyError, match=r"several versions of DRGCODES: \S+/1\.4, \S+/1\.4; name one"):
        mimic.source(tmp_path, third=True)


@pytest.mark.parametrize("written", ["labevents.csv", "Labevents.csv", "labevents.csv.gz", "LABEVENTS.CSV"])
def test_a_name_that_differs_in_case_alone_is_told(tmp_path, written):
    (tmp_path / written).touch()
    end = written.lower().removeprefix("labevents")
    says = (
        rf"has no LABEVENTS\.csv\.gz .*, but {written}, which differs in case: rename it LABEVENTS{end}, as all of MIM"
    )
    for table in ("labevents", "LABEVENTS"):
        with pytest.raises(StudyError, match=says):
            mimic.find(tmp_path, table)


def test_links_are_followed_but_once_and_only_so_deep(tmp_path):
    root = dataset(tmp_path / "mimiciv" / "2.2", ALL)
    for name in ("mimic-a", "mimic-b", "hosp/note"):
        (root / name).symlink_to(tmp_path, target_is_directory=True)
    (root / "mimic-c").symlink_to("mimic-c")
    (root / "mimic.zip").touch()
    assert mimic.find(tmp_path, "drgcodes") == root / "hosp" / "drgcodes.csv"
    (tmp_path / "elsewhere").symlink_to(root)
    assert mimic.source(tmp_path / "elsewhere").version == "2.2"
    for deep in ("files/files/files/files/files/files", "mimiciv/subjects/mimic"):
        dataset(tmp_path / "far" / deep, ALL)
        with pytest.raises(StudyError, match="far has no drgcodes"):
            mimic.find(tmp_path / "far", "drgcodes")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["mimiciv", "mimiciv/2.2/hosp", "mimiciv/2.2/hosp/drgcodes.csv"])
def test_what_may_not_be_read_is_told(tmp_path, closed):
    dataset(tmp_path / "mimiciv" / "2.2")
    (tmp_path / closed).chmod(0)
    try:
        with pytest.raises(StudyError, match=f"{closed} may not be read; change its permissions"):
            mimic.source(tmp_path)
    finally:
        (tmp_path / closed).chmod(0o700)


def test_a_column_that_nobody_asks_for_may_be_missing(tmp_path):
    path = dataset(tmp_path, ["admissions"]) / "hosp" / "admissions.csv"  # 2.0 does not say who admitted
    path.write_text(path.read_text().replace("admit_provider_id", "other"))
    assert mimic.clinicians(tmp_path) is None
    assert mimic.read(tmp_path, "admissions", ["hadm_id", "race"])["hadm_id"].tolist() == [7, 8]
    with pytest.raises(StudyError, match="no column admit_provider_id"):
        mimic.read(tmp_path, "admissions")
    dataset(tmp_path, ["admissions"])
    assert mimic.clinicians(tmp_path).to_dict() == {7: "a", 8: "a"}
