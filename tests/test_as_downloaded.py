"""Both studies' first notebooks run on files as people have them: MIMIC-III beside MIMIC-IV, written by any program."""

import pandas as pd
import pytest

nbformat = pytest.importorskip("nbformat")

from drgstudy import cohort, drgs, guard, mimic, provenance, study  # noqa: E402
from drgstudy.flow import read_flow, read_rows  # noqa: E402
from drgstudy.study import StudyError  # noqa: E402

TITLES = {"39.0": "EXTRACRANIAL PROCEDURES W/O CC/MCC", "291.0": "HEART FAILURE & SHOCK W MCC"}
CLOCKS = {"MIMIC's": "%Y-%m-%d %H:%M:%S", "BigQuery's": "%Y-%m-%d %H:%M:%S UTC", "Spark's": "%Y-%m-%dT%H:%M:%S.000Z"}
START = pd.Timestamp("2150-01-01 10:00")


def write(path, rows, names):
    """Write rows as pandas does: whole numbers with gaps become 3.0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows).reindex(columns=names)
    frame.rename(columns=str.upper if path.name.isupper() or path.stem.isupper() else str).to_csv(path, index=False)


def mimic_iv(root, clock, missing=()):
    """Tables of 40 stays of 40 patients; the severity, which nobody reads, is a word; one note names no stay."""
    stays = [{"subject_id": 100 + i, "hadm_id": 200 + i} for i in range(40)]
    tables = {
        "hosp/patients": [{"subject_id": stay["subject_id"], "gender": "F"} for stay in stays],
        "hosp/admissions": [stay | {"admittime": START.strftime(clock)} for stay in stays],
        "hosp/drgcodes": [
            stay | {"drg_type": "HCFA", "drg_code": code, "description": TITLES[code], "drg_severity": "minor"}
            for stay, code in zip(stays, [*TITLES] * 20, strict=True)
        ],
        "note/discharge": [
            stay | {"note_id": f"{i}-DS", "text": "x\nBrief Hospital Course:\n" + f"pain{i} " * (45 + i)}
            for i, stay in enumerate(stays)
        ] + [{"subject_id": 100, "note_id": "40-DS", "text": "no stay"}],
    }  # fmt: skip
    tables["hosp/admissions"] = [
        row | {"admit_provider_id": f"P{i}"} for i, row in enumerate(tables["hosp/admissions"])
    ]
    for name, rows in tables.items():
        names = [column for column in mimic.COLUMNS[name.partition("/")[2]] if column not in missing]
        version = root / ("mimic-iv-note/2.2" if "note" in name else "mimiciv/2.0")
        write(version / f"{name}.csv", rows, names)


def mimic_iii(root, clock):
    """Tables of 12 stays, each with a note, a heart rate and a sodium, and three sodiums that do not name the stay."""
    at = lambda hours: (START + pd.Timedelta(hours=hours)).strftime(clock)  # noqa: E731
    stays = [{"row_id": i, "subject_id": 1 + i, "hadm_id": 50 + i} for i in range(12)]
    many = {
        "first_wardid": 7,
        "last_wardid": 7,
        "first_careunit": "MICU",
        "last_careunit": "MICU",
        "dbsource": "carevue",
    }
    drg = {
        "ms": {"drg_type": "MS", "drg_code": 39.0},
        "apr": {"drg_type": "APR ", "drg_code": 241.0, "drg_severity": 1.0},
    }
    lab, out = {"itemid": 50983, "valuenum": 140}, {"hadm_id": None}
    tables = {
        "patients": [stay | {"dob": "2100-01-01 00:00:00", "expire_flag": 0} for stay in stays],
        "admissions": [stay | {"admittime": at(-1), "dischtime": at(99), "diagnosis": "SEPSIS"} for stay in stays],
        "icustays": [
            stay | many | {"icustay_id": 80 + i, "intime": at(0), "outtime": at(60)} for i, stay in enumerate(stays)
        ],
        "drgcodes": [stay | {"description": "NECK"} | rows for stay in stays for rows in drg.values()],
        "noteevents": [stay | {"charttime": at(1), "category": "Nursing", "text": "stable"} for stay in stays],
        "chartevents": [stay | {"itemid": 211, "charttime": at(2), "valuenum": 80} for stay in stays],
        "labevents": [
            stay | lab | rows | {"charttime": at(hours)}
            for stay in stays for rows, hours in (({}, 2), (out, 3), (out, 999), (out, -30))
        ],
        "outputevents": [stay | out | {"itemid": 40055, "charttime": at(4), "value": 100} for stay in stays],
    }  # fmt: skip
    for name, rows in tables.items():
        write(root / "mimiciii" / "1.4" / f"{name.upper()}.csv", rows, list(mimic.MIMIC_III[name]))


def run(name, until=None, **parameters):
    """Run the code cells of a notebook, in order, up to the one that holds `until`; returns what they defined."""
    names = {"display": lambda *shown: None}
    for cell in nbformat.read(study.places.NOTEBOOKS / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"profile": "mine", "mask_below": 11} | parameters
            if until and until in cell.source:
                break
    return names


@pytest.fixture(params=CLOCKS)
def downloads(request, tmp_path, monkeypatch):
    """The folder above MIMIC-IV, MIMIC-IV-Note and MIMIC-III, as PhysioNet's tree has them."""
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    clock = CLOCKS[request.param]
    mimic_iv(tmp_path / "physionet.org" / "files", clock, missing=["admit_provider_id"])
    mimic_iii(tmp_path / "physionet.org" / "files", clock)
    return tmp_path / "physionet.org"


def test_drg_llama_runs_on_mimic_iv_2_0_beside_mimic_iii(downloads):
    run("01-hospital", "provenance.write_json", mimic=str(downloads), mimic_note=str(downloads))
    paths = study.Paths("mine")
    source = provenance.read_json(paths.source)
    assert (source["name"], source["rows"]["patients"]) == ("MIMIC-IV v2.0, MIMIC-IV-Note v2.2 (credentialed)", 40)
    run("02-harmonization", "write_rows(")
    run("03-cohort")
    stays, flow = read_rows(paths.stays, cohort.STAYS), read_flow(paths)
    assert len(stays) == 40 and set(stays["drg_v34"]) == {"039", "291"}
    assert set(flow["splits"]) == {"split", "split_patients", "split_known"}
    assert "do not say who admitted" in flow["no_split_clinicians"] and "MIMIC-IV 2.2" in flow["no_split_clinicians"]
    with pytest.raises(
        StudyError, match=r"'split_clinicians'; this cohort has no split by clinician, and flow\.json says"
    ):
        cohort.parts(stays, "split_clinicians")


def test_the_early_study_runs_on_mimic_iii_beside_mimic_iv(downloads):
    run("20-icu", "provenance.write_json", mimic3=str(downloads))
    paths = study.Paths("mine", "early")
    assert provenance.read_json(paths.source)["name"] == "MIMIC-III v1.4 (credentialed)"
    assert {1, 50, 80, 12, 61, 91, 100, 239} <= set(
        guard._ids("mine")
    )  # of both, for the guard can't tell which is meant
    made = run("21-early-cohort", "write_json")
    assert {system: set(made["stays"][system]["drg"]) for system in drgs.SYSTEMS} == {"ms": {"039"}, "apr": {"0241"}}
    assert len(made["everyone"]) == len(made["notes"]) == 12
    counts = run("22-measurements", "measurements.hourly")["counts"]
    assert counts == {
        "read": 72, "other items": 12, "no stay": 24, "other stays": 0, "errors": 0, "no number": 0, "other hours": 0,
        "implausible": 0, "kept": 36, "kept, joined by patient and time": 12,
    }  # fmt: skip
