"""The published rules, beside ours: each fact of the papers' code by hand, and a small study by them from end to end."""

import nbformat
import numpy as np
import pandas as pd
import pyarrow
import pytest
import rules as benchmark  # benchmarks/rules.py
import torch
from sklearn.model_selection import train_test_split
from test_cohort import MAPPING, batches, cut, drg_rows, hospital, note
from test_early import START, apr_rows, notes_of, tables, write_notes

from drgstudy import cohort, disclosure, drgs, flow, harmonize, icu_cohort, plots, study, titles
from drgstudy.models import caml
from drgstudy.notes import hospital_course, published_course
from drgstudy.study import REFERENCE, StudyError, read_json

BHC, ADMISSION, DISCHARGE = "Brief Hospital Course:\n", "Medications on Admission:\n", "Discharge Medications:\n"
LABS = "___ 06:30AM BLOOD Calcium-8.6\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    return study.Paths("tiny")


# --- the hospital course
@pytest.mark.parametrize(
    ("text", "course"),
    [
        (
            f"HPI\n{BHC}ill\n\nTRANSITIONAL ISSUES:\n- see\n\n{ADMISSION}x\n{DISCHARGE}y",
            "ill\n\nTRANSITIONAL ISSUES:\n- see",
        ),
        (f"the Brief Hospital Course ___ said so.\nill\n___  on Admission:\n{DISCHARGE}", "ill"),
        (f"{BHC}ill\nMedications  on Admission", "ill"),  # one or two blanks
        (f"{BHC}ill\nMedications   on Admission\n{DISCHARGE}", "ill\nMedications   on Admission"),
        (f"{BHC}ill\n{DISCHARGE}y\n{ADMISSION}x", f"ill\n{DISCHARGE}y"),  # the first pattern goes before the second
        (f"{BHC}ill\n{DISCHARGE}y", "ill"),
        (f"{BHC}a\n{BHC}b\n{DISCHARGE}y", f"a\n{BHC}b"),
        (f"{ADMISSION}x\n{BHC}ill\n{DISCHARGE}y", "ill"),
        (f"{BHC}ill\nDischarge Diagnosis:\nflu", None),  # no other heading ends a course
        ("Brief Hospital Course: ill Medications on Admission", None),  # it begins on the next line
        (f"BRIEF HOSPITAL COURSE:\nill\n{ADMISSION}", None),
        (f"HOSPITAL COURSE:{' ' * 24}\nill\n{' ' * 24}MEDICATIONS ON ADMISSION:", "ill"),
        (f"rief Hospital Course{' ' * 24}\nill\n{' ' * 24}Discharge Medications", "ill"),
        (f"HOSPITAL COURSE:{' ' * 23}\nill\n{' ' * 24}MEDICATIONS ON ADMISSION:", None),
        (f"{LABS}Mg-1.9\n___ Course:\nill\n{ADMISSION}x", "ill"),
        *((f"{LABS}{lab}\n___\nill\n{ADMISSION}", "ill") for lab in ("Mg-2.1*", "LACTATE-1.4", "Epi-0", "Gap-12")),
        *((f"{lab} ___\nill\n{ADMISSION}", "ill") for lab in ("LACTATE-2.2", "COUNT-220", "TRF-187")),
        (f"{LABS}Mg-3.1\n___\nill\n{ADMISSION}", None),
        (f"{LABS}Mg-1.9\n___\nill\n{DISCHARGE}", None),
        (f"BLOOD Mg-1.9\n___\nill\n{ADMISSION}", None),  # the line must begin so
        (f"Mg-1.9\n___\nlabs\n{BHC}ill\n{DISCHARGE}", "ill"),  # the second pattern goes before the fourth
        (f"{BHC}\n{ADMISSION}", None),
        ("", None),
    ],
)
def test_the_four_patterns_in_their_order(text, course):
    assert published_course(text) == course


def test_it_takes_time_in_proportion_to_the_text():
    for piece in (
        "Brief Hospital Course",
        "Mg-1.",
        "\nMg-1.9 ",
        " ",
        "\n",
        "HOSPITAL COURSE",
        "___ on ",
        "Mg-1.9\n___\n",
    ):
        assert published_course(piece * (400_000 // len(piece))) is None
    assert published_course(f"HOSPITAL COURSE{' ' * 400_000}\n{' ' * 400_000}") is None


def test_ours_ends_earlier():
    text = f"{BHC}ill\n\nTransitional Issues:\n- see\n\n{ADMISSION}x"
    assert (hospital_course(text), published_course(text)) == ("ill", "ill\n\nTransitional Issues:\n- see")


# --- titles
def mapped(*pairs, by_hand=None, rules="published", review=None):
    rows = pd.DataFrame(pairs, columns=["drg_code", "description"])
    made = harmonize.harmonize(rows, review, rules, by_hand)
    return made.set_index("title").loc[[title for _, title in pairs]]


def test_a_title_is_reworded_and_looked_up_whatever_its_code():
    made = mapped(
        ("291", "HEART FAILURE & SHOCK W MCC"),
        ("999", "HEART FAILURE & SHOCK W/O CC/MCC"),
        ("286", "CIRCULATORY DISORDERS EXCEPT AMI, W CARD CATH W MCC"),
        ("246", "PERC CARDIOVASC PROC W DRUG-ELUTING STENT W MCC"),
        ("770", "ABORTION W D&C, ASPIRATION CURETTAGE OR HYSTEROTOMY"),  # D&C becomes DANDC
        ("065", "INTRACRANIAL HEMORRHAGE OR CEREBRAL INFARCTION W CC OR TPA IN 24 HRS"),
        ("293", "HEART FAILURE AND SHOCK WITHOUT CC/MCC"),
    )
    assert made["drg_v34"].fillna("").tolist() == ["291", "293", "", "", "", "", "293"]
    assert made["provenance"].tolist() == ["title", "title", *["excluded"] * 4, "title"]
    assert set(made["reason"]) == {"", titles.NOT_PUBLISHED}
    assert titles.published_wording("X CATH & PROC W/O MCC, Y") == "X CATHETERIZATION AND PROCEDURES WITHOUT MCC Y"


def test_the_authors_table(tmp_path):
    file = tmp_path / "titles.csv"
    file.write_text(
        "raw_description,DRG_34_description\n"
        '"CIRCULATORY DISORDERS EXCEPT AMI, W CARD CATH W MCC",CIRCULATORY DISORDERS EXCEPT AMI WITH CARDIAC CATH\n'
        "HEART FAILURE & SHOCK,HEART FAILURE AND SHOCK WITH MCC\n"
        "ABORTION W D&C,ABORTION WITHOUT D&C\n"
        "HEART FAILURE & SHOCK,HEART FAILURE AND SHOCK WITH MCC\n"
        "NASAL TRAUMA AND DEFORMITY WITH CC,\n"
    )
    by_hand = titles.read_by_hand(file)
    billed = ["HEART FAILURE AND SHOCK", "ABORTION W D&C", "CIRCULATORY DISORDERS EXCEPT AMI W CARD CATH W MCC"]
    made = mapped(*[("001", title) for title in [*billed, "NASAL TRAUMA AND DEFORMITY WITH CC"]], by_hand=by_hand)
    assert made["drg_v34"].fillna("").tolist() == ["291", "779", "", ""]
    assert made["provenance"].tolist() == ["by hand", "by hand", "excluded", "excluded"]
    assert "which is no title of v34" in made["reason"].iloc[2] and made["reason"].iloc[3] == titles.NOT_PUBLISHED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raw,DRG_34_description\na,b\n", "has no column 'raw_description'"),
        (
            "raw_description,DRG_34_description\na & b,X\na AND b,Y\n",
            "line 3, column DRG_34_description: 'Y', but an earlier",
        ),
        (None, "is no readable table"),
    ],
)
def test_a_table_that_will_not_do_is_named(tmp_path, text, says):
    if text:
        (tmp_path / "titles.csv").write_text(text)
    with pytest.raises(StudyError, match=f"titles.csv.*{says}"):
        titles.read_by_hand(tmp_path / "titles.csv")


def test_where_the_two_differ_and_how_many_stays_that_moves():
    pairs = [("003", "ECMO OR TRACH W MV >96 HRS OR PDX EXC FACE, MOUTH & NECK W MAJ O.R.")] * 3
    pairs += [("291", "HEART FAILURE & SHOCK W MCC"), ("291", "HEART FAILURE & SHOCK W CC")]
    rows = pd.DataFrame(pairs, columns=["drg_code", "description"])
    made = harmonize.moved(harmonize.harmonize(rows), harmonize.harmonize(rows, rules="published"))
    assert made[["stays", "ours", "published", "what"]].fillna("").to_numpy().tolist() == [
        [3, "003", "", "excluded by the published rules alone"],
        [1, "", "292", "excluded by ours alone"],
    ]
    assert harmonize.moved(harmonize.harmonize(rows), harmonize.harmonize(rows)).empty


def test_a_physician_overrules_the_published_titles_too():
    review = pd.DataFrame(
        {"code": "1", "title": "HEART FAILURE & SHOCK W MCC", "decision": "293", "reviewer": "A", "remark": ""}, [0]
    )
    assert mapped(("001", "HEART FAILURE & SHOCK W MCC"), review=review)["drg_v34"].tolist() == ["293"]


def test_other_rules_are_refused():
    for call in (
        lambda: harmonize.harmonize(pd.DataFrame(columns=["drg_code", "description"]), rules="theirs"),
        lambda: cohort.build_cohort([], drg_rows((10, "001")), MAPPING, rules="theirs"),
        lambda: batches((10, "a")) and cohort.extract(None, "theirs"),
        lambda: icu_cohort.build(tables(), "ms", rules="theirs"),
        lambda: icu_cohort.read_notes(None, notes_of().assign(icu_in=START), rules="theirs"),
    ):
        with pytest.raises(StudyError, match="parameter rules: expected 'ours' or 'published', got 'theirs'"):
            call()


# --- DRG-LLaMA's cohort
def test_several_notes_and_drg_rows_of_a_stay_all_stay_in():
    notes = batches(
        (10, note(41, "a")), (10, note(41, "b")), (20, note(41, "c")), (30, note(41, "d")), (20, note(41, "a"))
    )
    notes += batches((40, note(41, "e")), (50, note(41, "f")))
    rows = drg_rows((10, "001"), (10, "002"), (20, "001"), (20, "001"), (30, "002"), (40, "003"), (50, "009"))
    stays, flow_ = cohort.build_cohort(notes, rows, MAPPING, min_words=41, test_share=0.5, rules="published")
    assert stays["stay_id"].tolist() == [10, 110, 210, 310, 20, 120, 30] and flow_["further_rows"] == 4
    assert stays["subject_id"].tolist() == [1, 1, 1, 1, 2, 2, 3]
    assert [text[0] for text in stays["text"]] == list("aabbccd")
    assert stays["drg_v34"].tolist() == ["001", "002", "001", "002", "001", "001", "002"]
    assert [(step["kept"], step["removed"]) for step in flow_["notes"]] == [
        (7, 0), (7, 0), (7, 0), (6, 1), (5, 1), (8, -3), (7, 1),
    ]  # fmt: skip
    assert [(step["kept"], step["removed"]) for step in flow_["drg_rows"]] == [
        (7, 0), (7, 0), (6, 1), (6, 0), (8, -2), (7, 1),
    ]  # fmt: skip
    cohort.STAYS.validate(stays)
    assert "3 added" in {text.get_text() for text in plots.flow_diagram(flow_, "x").axes[0].texts}
    assert all(abs(step["removed"]) != 3 for step in disclosure.merge_small_steps(flow_, 11)["notes"])


def test_the_split_is_scikit_learns():
    notes, rows, mapping = hospital(2000)
    ours, _ = cohort.build_cohort(cut(notes), rows, mapping)
    stays, flow_ = cohort.build_cohort(cut(notes), rows, mapping, rules="published")
    assert "further_rows" in flow_ and flow_["further_rows"] == 0 and flow_["stays"] == len(ours)
    by_drg = rows.set_index("hadm_id")["drg_code"].loc[notes["hadm_id"]]
    by_drg = by_drg[by_drg.map(by_drg.value_counts()) > 1].sort_values(kind="stable")
    _, test = train_test_split(by_drg.index, test_size=0.1, random_state=42, stratify=by_drg)
    assert set(stays.loc[stays["split"] == "test", "stay_id"]) == set(test)
    assert (stays["split"] != ours["split"]).any()
    same = [column for column in stays if column not in ("split", "text")]
    pd.testing.assert_frame_equal(stays[same], ours[same])


def test_what_scikit_learn_refuses_is_one_sentence():
    notes, rows, mapping = hospital(100)
    with pytest.raises(StudyError, match=r"^rules published: scikit-learn draws .*classes.*; raise test_share"):
        cohort.build_cohort(cut(notes), rows, mapping, rules="published")


def test_courses_are_found_by_the_rules():
    read = batches((10, note(3, "x")))[0]
    text = {"text": [f"{BHC}ill\n\nTransitional Issues:\nsee\n\n{ADMISSION}"], "subject_id": [1], "hadm_id": [1]}
    raw = pyarrow.record_batch(text)
    assert cohort.extract(raw)["words"].to_pylist() == [1] and read.schema == cohort.COURSES
    assert cohort.extract(raw, "published")["words"].to_pylist() == [4]


# --- the early cohort
def test_the_papers_apr_targets_are_all_but_newborns_and_groups_860_and_863():
    table = pd.read_csv(REFERENCE / "aprdrg_fy2013.csv", dtype=str)
    left_out = {f"{group}{severity}" for group in ("860", "863") for severity in "1234"}
    expected = [
        code for code, mdc in zip(table["code"], table["mdc"], strict=True) if mdc != "15" and code not in left_out
    ]
    facts = drgs.fiscal_2013("apr")
    assert facts.index[facts["target"]].tolist() == expected and len(expected) == 1136
    assert {"8621", "8622", "8623", "8624"} <= set(expected)


def test_of_apr_rows_with_one_description_the_first_of_the_file_counts():
    others = [(10 * i, "0454", "CVA") for i in range(3, 9)]
    rows = apr_rows(
        (10, "1302", "VENTILATED"), (10, "1304", "VENTILATED"), (20, "1733", "A"), (20, "1803", "B"), *others
    )
    raw = tables(8) | {"drgcodes": rows}
    stays = {rules: icu_cohort.build(raw, "apr", rules=rules)[0].set_index("stay_id")["drg"] for rules in flow.RULES}
    assert stays["ours"][10] == "1304" and stays["published"][10] == "1302"
    assert 20 not in stays["published"] and stays["published"][30] == "0454"


def test_the_one_stay_of_a_patient_is_the_one_with_the_earliest_notes():
    raw = tables(16)
    raw["admissions"]["subject_id"] = [1, 1, 2, 2, 3, 3, 4, 4, *range(5, 13)]
    raw["icustays"]["intime"] = START + pd.to_timedelta(range(16), "D")
    hours = {10: 13, 20: -1, 30: 5, 40: 11, 50: -0.1, 60: -9, 70: 30, 80: 0}
    notes = notes_of(*[(stay, hour, "Nursing", "text") for stay, hour in hours.items()])
    notes = pd.concat([notes, notes_of(*[(10 * i, 1, "Nursing", "text") for i in range(9, 17)])])
    first = {}
    for rules in flow.RULES:
        stays, _ = icu_cohort.build(raw, "ms", notes, rules=rules)
        first[rules] = stays.loc[stays["first_visit"], "stay_id"].tolist()[:4]
    assert first == {"ours": [10, 30, 50, 70], "published": [20, 30, 50, 80]}


def test_notes_as_the_published_code_takes_them(tmp_path):
    report = (
        "[**2150-1-9**] 8:12 AM\n CHEST (PORTABLE AP)   Clip # [**Clip Number 12**]\n Reason: cough\n"
        "______________________________\nUNDERLYING MEDICAL CONDITION:\n  Fever\n (Over)\n   FINAL REPORT\n"
        "IMPRESSION: No pneumonia. Ratio 2:1, seen at 9:30 today: yes.\n"
    )
    write_notes(
        tmp_path,
        (10, 1, "Nursing", "First"),
        (10, 1, "Nursing", "Neuro: Alert"),
        (10, 2, "Radiology", report),
        (10, 3, "Nursing", "Marked as wrong", "1"),
        (10, 4, "Physician ", "replaced by an empty one"),
        (10, 4, "Physician ", "Plan:"),
        (20, 4, "Nursing", "Assessment and Plan:\nStable\n"),
    )
    stays = pd.DataFrame({"stay_id": [10, 20], "icu_in": START})
    notes = icu_cohort.read_notes(tmp_path, stays, rules="published")
    assert notes[["stay_id", "hours", "text"]].to_numpy().tolist() == [
        [10, 1, "alert"],
        [10, 2, "chest (portable ap) cough fever no pneumonia. ratio 2:1, seen at 9:30 today: yes."],
        [10, 3, "marked as wrong"],
        [20, 4, "stable"],
    ]
    ours = icu_cohort.read_notes(tmp_path, stays)
    assert len(ours) == 6 and "Marked as wrong" not in set(ours["text"]) and "Neuro: Alert" in set(ours["text"])


def listed(folder, *stays, column="stay"):
    file = folder / "test_ids.csv"
    file.write_text("\n".join([column, *stays]) + "\n")
    return file


def test_exactly_the_listed_stays_are_held_out(tmp_path):
    raw = tables(14)
    raw["admissions"]["subject_id"] = [1, 1, 2, 2, *range(3, 13)]
    raw["patients"] = raw["patients"].iloc[:12]
    raw["drgcodes"].loc[13, "drg_code"] = "999"  # stay 140 of patient 12 is not in the cohort
    held_out = icu_cohort.read_hold_out(listed(tmp_path, "1_10", "1_20", "2_30", "12_140"), raw["admissions"])
    stays, counts = icu_cohort.build(raw, "ms", held_out=held_out, rules="published")
    icu_cohort.STAYS.validate(stays)
    assert set(stays.loc[stays["fold"] == 0, "stay_id"]) == {10, 20, 30}
    assert 40 not in set(stays["stay_id"])  # another stay of a patient who is held out
    assert counts[-1] == {"step": "no unlisted stay of a patient held out", "kept": 12, "removed": 1}
    sizes = stays["fold"].value_counts()
    assert set(sizes.index) == set(range(6)) and sizes[1:].max() - sizes[1:].min() <= 2
    assert (stays["fold_known"] == 0).sum() == 2 and set(stays.loc[stays["fold"] == 0, "fold_known"]) > {0}


@pytest.mark.parametrize(
    ("stays", "column", "says"),
    [
        (["1_10"], "hadm_id", "has no column 'stay'"),
        (["1_10", "2-20"], "stay", r"column stay: '2-20' \(1 of 2 rows\) is no SUBJECT_ID_HADM_ID"),
        (["1_10", "2_20", "1_10"], "stay", r"column stay: '1_10' \(1 of 3 rows\) is a stay that stands above"),
        (
            ["1_10", "9_90", "1_20", "2_10", "2_30"],
            "stay",
            r"'9_90', '1_20', '2_10' \(4 of 5 rows\) is no stay of these",
        ),
    ],
)
def test_a_list_that_will_not_do_is_named(tmp_path, stays, column, says):
    with pytest.raises(StudyError, match=f"test_ids.csv.*{says}"):
        icu_cohort.read_hold_out(listed(tmp_path, *stays, column=column), tables(6)["admissions"])


def test_a_list_of_another_system_is_told(tmp_path):
    raw = tables(8)
    raw["drgcodes"].loc[0, "drg_code"] = "999"
    held_out = icu_cohort.read_hold_out(listed(tmp_path, "1_10"), raw["admissions"])
    with pytest.raises(
        StudyError, match=r"^the MS-DRG cohort has 0 patients of the list of held-out stays and 7 others"
    ):
        icu_cohort.build(raw, "ms", held_out=held_out)
    every = pd.DataFrame({"subject_id": range(1, 9), "stay_id": range(10, 90, 10)})
    with pytest.raises(StudyError, match=r"7 patients of the list of held-out stays and 0 others"):
        icu_cohort.build(raw, "ms", held_out=every)


# --- CAML
def test_caml_with_relu_is_the_textbook_with_relu(monkeypatch):
    torch.manual_seed(0)
    vectors, rng = torch.randn(60, 12).numpy(), np.random.default_rng(0)
    vectors[caml.PAD] = 0
    nets = {name: caml.Network(vectors.copy(), 4, 5, 16, 0.0, activation=name) for name in ("tanh", "relu")}
    nets["relu"].load_state_dict(nets["tanh"].state_dict())
    rows = caml.PadRight(caml.PAD)([{"input_ids": rng.integers(1, 60, n).tolist(), "labels": 0} for n in (9, 30)])
    features, weights = nets["relu"].attend(rows["input_ids"], rows["attention_mask"])
    words = nets["relu"].embed(rows["input_ids"]).transpose(1, 2)
    assert torch.equal(features, nets["relu"].conv(words).relu().transpose(1, 2)) and (features >= 0).all()
    expected = (weights * nets["relu"].score(features)).sum(1)
    for few in (caml.FEW, 0):  # all at once, and a text at a time
        monkeypatch.setattr(caml, "FEW", few)
        torch.testing.assert_close(nets["relu"](**rows)["logits"], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(nets["tanh"](**rows)["logits"], expected, atol=1e-3)


def test_a_weight_is_read_from_the_scores_of_the_drgs(tmp_path, notes):
    texts, kinds = notes
    y = np.array(kinds, np.float32) + 1
    settings = {"drg_outputs": 7, "activation": "relu", "epochs": 1.0, "filters": 8, "vector_size": 6, "max_tokens": 16}
    model = caml.Model(caml.Settings(**settings), ["relative weight"], tmp_path, 1)
    vectors = np.zeros((5, 6), np.float32)
    layers = list(model._network(vectors).head)
    assert [type(layer).__name__ for layer in layers] == ["ReLU", "Linear", "ReLU", "Linear", "ReLU"]
    assert (layers[1].weight.shape, layers[3].weight.shape) == ((100, 7), (1, 100))
    assert model._network(vectors).score.weight.shape == (7, 8)
    model.fit(texts, y)
    said = model.predict(texts)
    assert said.shape == (24, 1) and (said >= 0).all() and abs(said.mean() - y.mean()) < 1
    again = caml.Model(model.settings, ["relative weight"], tmp_path, 1)
    again.restore()
    np.testing.assert_array_equal(again.predict(texts), said)
    with pytest.raises(StudyError, match="setting drg_outputs: for a model that learns a number"):
        caml.Model(model.settings, list("abcd"), tmp_path, 1).fit(texts, np.array(kinds))


def test_the_head_and_the_activation_change_no_run_that_does_not_ask_for_them():
    torch.manual_seed(0)
    plain, vectors = caml.Network(np.ones((5, 6), np.float32), 4, 5, 8, 0.2), np.ones((5, 6), np.float32)
    torch.manual_seed(0)
    headed = caml.Network(vectors, 4, 5, 8, 0.2, number=True)
    assert [name for name in plain.state_dict() if "head" in name] == []
    assert all(torch.equal(value, headed.state_dict()[name]) for name, value in plain.state_dict().items())
    assert plain.activate is torch.tanh and caml.Settings().drg_outputs == 0


# --- the profile, and a study from end to end
def test_the_profile_is_papers_with_the_published_rules():
    folder = study.NOTEBOOKS / "params"
    paper, published = (
        {f.stem: study.read_params(f) for f in (folder / name).glob("*.yaml")} for name in ("paper", "published")
    )
    assert set(paper) == set(published)
    changed = {}
    for step, values in published.items():
        theirs, own = ({**each, **each.get("settings", {})} for each in (paper[step], values))
        assert theirs.keys() <= own.keys()
        keys = own.keys() - {"settings", "profile", "like"}
        changed[step] = {key: own[key] for key in keys if key not in theirs or own[key] != theirs[key]}
    ms = {"activation": "relu", "dropout": 0.3, "patience": 5}
    expected = {
        "02-harmonization": {"rules": "published", "title_table": ""},
        "03-cohort": {"rules": "published", "min_words": 41},
        "21-early-cohort": {"rules": "published", "hold_out_ms": "", "hold_out_apr": ""},
        **{f"05-train-{run}": {"activation": "relu"} for run in ("caml", "caml-known", "caml-patients")},
        "23-early-train-caml-ms": ms, "23-early-train-caml-ms-known": ms, "23-early-train-caml-apr": ms | {"dropout": 0.4},
        "23-early-train-caml-ms-weight": ms | {"drg_outputs": 738},
        "23-early-train-caml-apr-weight": ms | {"dropout": 0.4, "drg_outputs": 1136},
    }  # fmt: skip
    assert {step: values for step, values in changed.items() if values} == expected


def ran(name, **given):
    """The variables that a notebook's cells leave, run here with the given parameters."""
    names = {"display": lambda *shown: None}
    for cell in nbformat.read(study.NOTEBOOKS / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            source = cell.source.replace("import Markdown, display", "import Markdown").replace(
                "import display", "import HTML"
            )
            exec(source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"profile": "tiny", **given}
    return names


def test_a_small_discharge_study_by_the_published_rules(place, tmp_path, monkeypatch):
    curve = {"scorer": ["ratio"] * 2, "held_out": ["mistyped", "crosswalk"], "threshold": 92, "right": 1}
    evidence = pd.DataFrame(curve | {"wrong": 0, "excluded": 0})
    monkeypatch.setattr(harmonize, "evidence", lambda seed: evidence)  # which takes half a minute
    ran("01-hospital", patients=140, seed=7, course_words=80, tail=0.05)
    ours = ran("02-harmonization")["mapping"]
    without = ran("02-harmonization", rules="published")["mapping"]
    table = tmp_path / "titles.csv"
    left_out = without[without["drg_v34"].isna() & ours["drg_v34"].notna()]
    v34 = drgs.v34()["title"]
    rows = left_out.assign(raw_description=left_out["title"], DRG_34_description=ours["drg_v34"].map(v34))
    rows[["raw_description", "DRG_34_description"]].to_csv(table, index=False)
    made = ran("02-harmonization", rules="published", title_table=str(table))
    mapping = flow.read_rows(place.drgs, cohort.MAPPING)
    assert set(mapping["provenance"]) == {"title", "by hand"} and len(left_out) > 3
    assert made["moved"].empty and mapping["drg_v34"].tolist() == ours["drg_v34"].tolist()
    assert any(file.endswith("titles.csv") for file in read_json(place.drgs.with_suffix(".made.json"))["inputs"])
    ran("03-cohort", rules="published", min_words=41, test_share=0.4)
    stays, counted = flow.read_rows(place.stays, cohort.STAYS), flow.read_flow(place)
    steps = [step["step"] for step in counted["notes"]]
    assert steps[2:6] == [
        "at least 41 words",
        "text not seen before",
        "stay has an MS-DRG in v34",
        "a row for each note and DRG of a stay",
    ]
    assert counted["stays"] == len(stays) > 50 and stays["words"].min() > 40
    assert (stays["split"] == "test").sum() == int(np.ceil(0.4 * len(stays)))

    moved = benchmark.discharges(place.raw, 0.4)
    assert (moved.loc["ours", ["left out", "added", "other text", "other DRG", "other part"]] == 0).all()
    assert moved.loc["titles", "left out"] > 0 < moved.loc["hospital course", "left out"]
    assert moved.loc["all", "stays"] < moved.loc["titles", "stays"] < moved.loc["ours", "stays"]


def test_a_small_early_study_by_the_published_rules(place, tmp_path):
    source = ran("20-icu", patients=900, seed=7, note_words=80, tail=0.05)["about"]
    ours = ran("21-early-cohort")
    lists = {}
    for system in drgs.SYSTEMS:
        chosen = ours["stays"][system].drop_duplicates("subject_id").iloc[::7]
        chosen = ours["stays"][system].query("subject_id in @chosen.subject_id")
        lists[f"hold_out_{system}"] = tmp_path / f"{system}.csv"
        pairs = chosen["subject_id"].astype(str) + "_" + chosen["stay_id"].astype(str)
        pairs.rename("stay").to_csv(lists[f"hold_out_{system}"], index=False)
    early = study.Paths("tiny", "early")
    made = ran("21-early-cohort", rules="published", **{name: str(file) for name, file in lists.items()})
    notes = flow.read_rows(early.notes, icu_cohort.NOTES)
    counted = read_json(early.flow)
    for system in drgs.SYSTEMS:
        stays = flow.read_rows(early.cohort(system), icu_cohort.STAYS)
        wanted = set(pd.read_csv(lists[f"hold_out_{system}"])["stay"])
        held = stays[stays["fold"] == 0]
        assert set(held["subject_id"].astype(str) + "_" + held["stay_id"].astype(str)) <= wanted
        assert counted["hold_out"][system] == {"listed": len(wanted), "held_out": len(held)} and len(held) > 3
        assert counted[system][-1]["step"] == "no unlisted stay of a patient held out"
        assert "863" not in set(stays["drg"].str[:3]) and set(stays["fold"]) == set(range(6))
    assert (notes["text"] == notes["text"].str.lower()).all() and not notes.duplicated(["stay_id", "hours"]).any()
    moved = benchmark.icu(early.raw)
    assert (moved.xs("ours", level=1).drop(columns=["stays", "mean words"]) == 0).all(None)
    assert moved.loc[("APR-DRG", "published"), "other text"] == moved.loc[("APR-DRG", "published"), "stays"] > 0
    assert source["kind"] == "synthetic" and len(made["notes"]) == len(notes) > 100
