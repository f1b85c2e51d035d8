"""MS-DRG facts against what the papers, CMS and METHODS state."""

import re
from collections import Counter

import pytest

from drgstudy import drgs
from drgstudy.study import StudyError


def test_v34_has_the_papers_counts():
    v34 = drgs.v34()
    assert len(v34) == 757 and v34.index.is_monotonic_increasing and v34.index.is_unique
    assert v34["base"].nunique() == 340
    splits = Counter(frozenset(labels) for labels in v34.groupby("base")["cc_label"].agg(list))
    assert splits == {frozenset({2, 1, 0}): 154, frozenset({1, 0}): 43, frozenset({2, 3}): 66, frozenset({4}): 77}


def test_base_and_label_determine_the_drg():
    assert not drgs.v34().duplicated(["base", "cc_label"]).any()


def test_members_of_a_base_are_neighbours_of_one_mdc_and_type():
    for base, members in drgs.v34().groupby("base"):
        codes = members.index.astype(int)
        assert codes.max() - codes.min() == len(codes) - 1, base
        assert members["mdc"].nunique() == members["type"].nunique() == 1, base


@pytest.mark.parametrize(
    ("drg", "base", "label"),
    [  # Supplementary Note 1, and titles whose severity phrase is not at the end
        ("011", "TRACHEOSTOMY FOR FACE MOUTH AND NECK DIAGNOSES", 2),
        ("012", "TRACHEOSTOMY FOR FACE MOUTH AND NECK DIAGNOSES", 1),
        ("013", "TRACHEOSTOMY FOR FACE MOUTH AND NECK DIAGNOSES", 0),
        ("052", "SPINAL DISORDERS AND INJURIES", 1),
        ("053", "SPINAL DISORDERS AND INJURIES", 0),
        ("056", "DEGENERATIVE NERVOUS SYSTEM DISORDERS", 2),
        ("057", "DEGENERATIVE NERVOUS SYSTEM DISORDERS", 3),
        ("069", "TRANSIENT ISCHEMIA", 4),
        ("005", "LIVER TRANSPLANT", 2),
        ("065", "INTRACRANIAL HEMORRHAGE OR CEREBRAL INFARCTION", 1),
        ("977", "HIV WITH OR WITHOUT OTHER RELATED CONDITION", 4),
        ("837", "CHEMOTHERAPY WITH ACUTE LEUKEMIA AS SDX", 2),
        ("839", "CHEMOTHERAPY WITH ACUTE LEUKEMIA AS SDX", 0),
    ],
)
def test_base_and_label(drg, base, label):
    assert tuple(drgs.v34().loc[drg, ["base", "cc_label"]]) == (base, label)


def test_facts_of_single_drgs():
    v34 = drgs.v34()
    # Medical or surgical as in DRG-LLaMA's Supplementary Tables 2 to 4.
    assert set(v34.loc[["777", "053", "913"], "type"]) == {"medical"}
    assert set(v34.loc[["801", "008", "652", "016", "114", "970"], "type"]) == {"surgical"}
    assert v34.loc["291", "mdc"] == "05" and v34.loc["001", "mdc"] == "PRE"
    assert v34.loc["001", "relative_weight"] == v34["relative_weight"].max()
    assert v34.loc["008", "billed_title"] == "SIMULTANEOUS PANCREAS/KIDNEY TRANSPLANT"
    assert set(v34.index[v34["type"] == ""]) == {"998", "999"}


def test_titles_by_year_covers_fiscal_years_2008_to_2025():
    table = drgs.titles_by_year()
    assert (table["fiscal_year"] - table["version"]).eq(1983).all()
    assert table.groupby("fiscal_year").size().to_dict() == {
        2008: 745, 2009: 746, 2010: 746, 2011: 747, 2012: 751, 2013: 751,
        2014: 751, 2015: 753, 2016: 758, 2017: 757, 2018: 754, 2019: 761,
        2020: 761, 2021: 767, 2022: 767, 2023: 767, 2024: 766, 2025: 773,
    }  # fmt: skip
    assert not table.duplicated(["fiscal_year", "drg"]).any()
    assert table["drg"].str.fullmatch(r"\d{3}").all() and table["title"].eq(table["title"].str.strip()).all()
    first = table.iloc[0]
    assert (first["drg"], first["relative_weight"], first["gmlos"]) == ("001", 23.1117, 30.8)
    assert table.query("drg == '998'")["gmlos"].isna().all()


@pytest.mark.parametrize(
    ("title", "phrase"),
    [
        ("RENAL FAILURE WITH CC", "WITH CC"),
        ("SPINAL PROCEDURES WITH CC OR SPINAL NEUROSTIMULATORS", "WITH CC"),
        ("VIRAL MENINGITIS WITH CC/MCC", "WITH CC/MCC"),
        ("VIRAL MENINGITIS WITHOUT CC/MCC", "WITHOUT CC/MCC"),
        ("SEPTICEMIA OR SEVERE SEPSIS WITHOUT MV >96 HOURS WITHOUT MCC", "WITHOUT MCC"),
        ("PREMATURITY WITHOUT MAJOR PROBLEMS", ""),
    ],
)
def test_severity(title, phrase):
    assert drgs.severity(title) == phrase


@pytest.mark.parametrize(
    ("system", "codes", "targets", "outside"),
    [
        ("ms", 751, 738, {"789", "795", "945", "946", "949", "950", "998", "999"}),
        ("apr", 1256, 1136, {"5801", "6404", "8601", "8604", "8631", "8634"}),
    ],
)
def test_fiscal_2013_has_the_papers_target_space(system, codes, targets, outside):
    table = drgs.fiscal_2013(system)
    assert list(table) == ["title", "mdc", "relative_weight", "target"] and table.index.name == "drg"
    assert len(table) == codes and table["target"].sum() == targets
    assert table.index.is_unique and table.index.is_monotonic_increasing
    assert not table.loc[sorted(outside), "target"].any() and not table.query("mdc == '15'")["target"].any()
    assert table.query("target")["relative_weight"].gt(0).all()


@pytest.mark.parametrize(
    ("system", "drg", "title", "mdc", "weight"),
    [
        ("ms", "001", "HEART TRANSPLANT OR IMPLANT OF HEART ASSIST SYSTEM W MCC", "PRE", 26.0295),
        ("ms", "951", "OTHER FACTORS INFLUENCING HEALTH STATUS", "23", 0.8105),
        ("ms", "981", "EXTENSIVE O.R. PROCEDURE UNRELATED TO PRINCIPAL DIAGNOSIS W MCC", "99", 5.0270),
        ("apr", "0014", "", "PRE", 20.7878),
        ("apr", "1944", "", "05", 3.1622),
        ("apr", "9504", "", "UNK", 9.2074),
    ],
)
def test_fiscal_2013_facts(system, drg, title, mdc, weight):
    assert tuple(drgs.fiscal_2013(system).loc[drg, ["title", "mdc", "relative_weight"]]) == (title, mdc, weight)


def test_fiscal_2013_knows_two_systems():
    with pytest.raises(StudyError, match="expected 'ms' or 'apr', got 'MS-DRG'"):
        drgs.fiscal_2013("MS-DRG")


def test_bases_are_split_as_cms_titles_say():
    """154, 43, 66 and 77: they make up 340 bases and 757 DRGs. The paper's text has 44 and 65."""
    found = drgs.splits()
    assert found == {
        "drgs": 757,
        "bases": 340,
        "three_way": 154,
        "two_way_cc_mcc": 43,
        "two_way_mcc": 66,
        "unsplit": 77,
    }
    assert sum(found[kind] * n for kind, n in zip(list(found)[2:], (3, 2, 2, 1), strict=True)) == found["drgs"]


READABLE = {
    "001": "Heart transplant or implant of heart assist system with MCC",
    "003": "ECMO or tracheostomy with MV >96 hours or PDX except face mouth and neck with major operating-room procedure",
    "008": "Simultaneous pancreas and kidney transplant",
    "024": "Craniotomy with major device implant or acute complex CNS PDX without MCC",
    "061": "Acute ischemic stroke with use of thrombolytic agent with MCC",
    "064": "Intracranial hemorrhage or cerebral infarction with MCC",
    "065": "Intracranial hemorrhage or cerebral infarction with CC or TPA in 24 hours",
    "227": "Cardiac defibrillator implant without cardiac catheterization without MCC",
    "245": "AICD generator procedures",
    "246": "Percutaneous cardiovascular procedures with drug-eluting stent with MCC or 4+ vessels or stents",
    "377": "Gastrointestinal hemorrhage with MCC",
    "411": "Cholecystectomy with common duct exploration with MCC",
    "743": "Uterine and adnexa procedures for non-malignancy without CC/MCC",
    "744": "D&C conization laparoscopy and tubal interruption with CC/MCC",
    "768": "Vaginal delivery with operating-room procedure except sterilization and/or D&C",
    "790": "Extreme immaturity or respiratory distress syndrome neonate",
    "837": "Chemotherapy with acute leukemia as SDX or with high dose chemotherapy agent with MCC",
    "871": "Septicemia or severe sepsis without MV >96 hours with MCC",
    "885": "Psychoses",
    "894": "Alcohol drug abuse or dependence left AMA",
    "969": "HIV with extensive operating-room procedure with MCC",
    "998": "Principal diagnosis invalid as discharge diagnosis",
}


ABBREVIATIONS = {"AICD", "AMA", "AMI", "CC", "CNS", "CVA", "D&C", "ECMO", "ESW", "HF", "HIV", "MCC", "MV", "PDX", "PTCA", "SDX",
                 "TPA", "URI"}  # fmt: skip


def test_titles_that_were_read_one_by_one_are_printed_so():
    titles = drgs.v34()["title"]
    assert {code: drgs.readable(titles[code]) for code in READABLE} == READABLE
    billed = {
        "SEPTICEMIA OR SEVERE SEPSIS W/O MV 96+ HOURS W MCC": "Septicemia or severe sepsis without MV 96+ hours with MCC",
        "ESOPHAGITIS, GASTROENT & MISC DIGEST DISORDERS W/O MCC": "Esophagitis, gastroent and misc digest disorders without MCC",
        "ABORTION W D&C, ASPIRATION CURETTAGE OR HYSTEROTOMY": "Abortion with D&C, aspiration curettage or hysterotomy",
    }
    assert {title: drgs.readable(title) for title in billed} == billed


def test_no_title_of_any_year_shouts_and_none_loses_a_letter():
    for title in {*drgs.v34()["title"], *drgs.titles_by_year()["title"]}:
        printed = drgs.readable(title)
        assert set(re.findall(r"[A-Z][A-Z&]+", printed)) <= ABBREVIATIONS and printed[0] == title[0], title
        short = re.search(r"\b(W|W/|W/O)( |$)|&|(?:[A-Z]\.){2}", title)
        assert short or printed.upper() == title.upper(), title


def test_every_mdc_has_a_name():
    assert set(drgs.v34()["mdc"]) | set(drgs.fiscal_2013("ms")["mdc"]) <= set(drgs.MDC_NAMES)
    assert drgs.mdc_name("05") == "MDC 05 Circulatory system" and drgs.mdc_name("99") == "Any MDC"
