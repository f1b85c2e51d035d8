"""An attack on reports of credentialed data: can a count from 1 to 10 be recovered, and does the guard let them pass?

The reports are made without training (`made_report`). MIMIC-III's ids, as dense as there, are in the early study's.
"""

import itertools
import json
import re
import shutil

import made_report
import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drgstudy import claims, cohort, disclosure, errors, guard, icu_cohort, plots, results, study
from drgstudy.flow import read_flow, read_rows
from drgstudy.predictions import read_runs

FEW = range(1, 11)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One report on both studies: the places of each, and the ids of MIMIC-III."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("root")
        patch.setattr(study.places, "ROOT", root)
        patch.setattr(study, "ROOT", root)
        patch.setenv("DRGSTUDY_PROGRESS", "/dev/null")
        patch.setenv("DRGSTUDY_PROGRESS_SECONDS", "1")
        made = made_report.drg_llama(root, patch, 250, 0.05), *made_report.early(root, patch, 700, 0.05)
        made_report.build(root, patch)
        yield made


@pytest.fixture
def iv(both):
    return both[0]


@pytest.fixture
def iii(both):
    return both[1:]


def tables(paths, folder: str = "printed") -> dict[str, pd.DataFrame]:
    """The tables as they are printed, or (folder ".") as numbers."""
    files = [file for file in (paths.tables / folder).glob("*.csv") if "published" not in file.stem]
    return {file.stem: pd.read_csv(file, dtype=str, keep_default_na=False) for file in files}


def pages(paths) -> dict[str, str]:
    files = [*paths.report.rglob("*.html"), *paths.report.rglob("*card.md"), *paths.report.glob("cards/*.md")]
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _numbers(cell: str) -> list[float]:
    return [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*\.?\d*", cell)]


# --- recovering counts ------------------------------------------------------------------------------------------------
COUNTED = re.compile(r"(?i)stays$|stays of|cases|patients|errors$|test stays|^n$|_count$")


def test_no_table_prints_a_small_count(iv):
    for name, table in tables(iv).items():
        for column in filter(COUNTED.search, table.columns):
            shown = {n for cell in table[column] for n in _numbers(cell)[:1] if "<" not in cell and "." not in cell}
            assert not shown & set(FEW), (name, column)


def test_no_table_of_numbers_holds_a_small_count_nor_more_rows_of_drgs_than_are_shown(iv, iii):
    for paths in (iv, iii[0]):
        held = tables(paths, ".")
        assert held.keys() == tables(paths).keys() and len(held) > 10
        for name, table in held.items():
            for column in filter(COUNTED.search, table.columns):
                assert not set(table[column]) & set(map(str, FEW)), (name, column)
            if {"metric", "value"} <= {*table.columns}:
                counts = table.loc[table["metric"].str.match("n_(stays|cases|patients)"), "value"]
                assert not set(counts) & set(map(str, FEW)), name
    shown, printed = tables(iv, ".")["by-drg"], tables(iv)["by-drg"]
    assert (shown["test_cases"] == "").sum() == printed["Test stays"].str.contains("<|–").sum() > 5


def test_no_accuracy_times_its_stays_nor_a_difference_of_two_is_small(iv):
    numbers = json.loads((iv.report / "numbers.json").read_text())
    for run, sets in numbers["results"]["table_1"].items():
        points = []
        for metrics in sets.values():
            n = metrics["n_cases"]["value"]
            told = [metrics[key]["value"] for key in metrics if key.startswith("acc_at_") and "value" in metrics[key]]
            points += [(accuracy * n, n - accuracy * n) for accuracy in told]
        points += [(0, 0)]
        for one, two in itertools.combinations(points, 2):
            assert not {round(abs(a - b)) for a, b in zip(one, two, strict=True)} & set(FEW), run
    by_run = numbers["size_and_length"]["table_2"].values()
    n = numbers["text"]["test_stays"]
    for metrics in (each for by_tokens in by_run for each in by_tokens.values()):
        for key in metrics:
            if key.startswith("acc_at_") and "value" in metrics[key]:
                assert round(metrics[key]["value"] * n) not in FEW and round((1 - metrics[key]["value"]) * n) not in FEW


def test_numbers_json_holds_figure_1_the_severities_the_listed_drgs_and_the_attention_as_they_are_masked(iv, iii):
    numbers, shown = json.loads((iv.report / "numbers.json").read_text()), tables(iv)
    steps = disclosure.merge_small_steps(read_flow(iv), 11)
    assert numbers["results"]["figure_1"] == {key: steps[key] for key in ("notes", "drg_rows")}
    for end, name in (("perfect", "s2"), ("zero_medical", "s3"), ("zero_surgical", "s4")):
        listed = {drg: str(row["train_cases"]) for drg, row in numbers["errors"]["extremes"][end].items()}
        of_page = shown[f"table-{name}"].set_index("DRG")["Training stays"]
        assert listed == dict(of_page.drop("none", errors="ignore"))
    for matrix in (numbers["two_labels"]["severity"], numbers["errors"]["mdc"]):
        assert matrix and not {n for row in matrix.values() for n in row.values()} & set(FEW)
    read = " ".join(tables(iii[0])["early-table-3"]["5-grams and their attention"])
    weights = [weight for case in numbers["attention"]["attention"].values() for weight in case]
    assert weights and all(f"{weight:.4f}" in read for weight in weights)
    assert numbers["attention"]["attention"].keys() == {cell[0] for cell in tables(iii[0])["early-table-3"]["Case"]}


def test_ranks_order_and_figures_do_not_tell_the_counts_of_rare_drgs(iv):
    stays = read_rows(iv.stays, cohort.STAYS)
    every = stays["drg_v34"].value_counts()
    table = tables(iv)["by-drg"]
    masked = table[table["Training stays"].str.contains("<|–")]
    rare = [drg for drg in table["DRG"] if every[drg] in FEW]
    assert set(rare) <= set(masked["DRG"]) and len(rare) > 5
    assert masked["DRG"].is_monotonic_increasing and set(masked["Rank"]) == {"–"}
    assert masked.index.min() == len(table) - len(masked)  # all behind those that are shown
    figures = [plots.drg_frequencies(stays, "d", 11), plots.case_density(every, "d", 11)]
    drawn = [line.get_ydata() for line in figures[0].axes[0].lines[:1]]
    drawn += [collection.get_segments() for collection in figures[1].axes[0].collections[1:]]
    assert min(drawn[0]) >= 11 and min(segment[0][0] for segment in drawn[1]) >= 11
    left = every.sum() - sum(drawn[0])
    hidden = len(every) - len(drawn[0])
    assert hidden > 1 and hidden < left < 10 * hidden  # else all of them would be known


def test_rare_drgs_are_named_of_no_single_stay(iii):
    paths, _ = iii
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
    rare = stays["drg"].value_counts().loc[lambda n: n < 11].index
    table = tables(paths)["early-table-3"]
    said = json.dumps(json.loads((paths.report / "numbers.json").read_text())["attention"]) + table.to_csv()
    assert len(table) and not {drg for drg in rare if f'"{drg}"' in said or re.search(rf"\b{drg} [A-Z]", said)}
    held = tables(paths, ".")["early-table-3"]
    assert not {*held["true_drg"], *held["predicted_drg"]} & {*rare}


def test_no_small_difference_between_the_columns_of_early_table_1(iii):
    paths, _ = iii
    stays = read_rows(paths.cohort("ms"), icu_cohort.STAYS)
    numbers = json.loads((paths.report / "numbers.json").read_text())
    for system in ("ms", "apr"):
        sets = numbers["early_cohort"]["table_1"][system]
        counts = {name: {k: v["value"] for k, v in of.items() if k.startswith("n_stays")} for name, of in sets.items()}
        for name, of in sets.items():
            assert "n_patients" not in of or of["n_stays"]["value"] - of["n_patients"]["value"] not in FEW, name
        for one, two in itertools.combinations(counts.values(), 2):
            assert not {abs(one[k] - two[k]) for k in one.keys() & two.keys()} & set(FEW)
    first = (stays["fold"] == 0) & stays["first_visit"]
    assert (stays["fold"] == 0).sum() - first.sum() in FEW  # so the test cohort's size is told nowhere
    assert "ms" not in numbers["case_mix"]["stays"] and "ms" not in numbers["regression"]["stays"]


def test_what_is_told_of_rare_drgs_and_of_levels_gives_no_small_count_away(iv):
    numbers, stays = json.loads((iv.report / "numbers.json").read_text())["tree"], read_rows(iv.stays, cohort.STAYS)
    by_drg = tables(iv)["by-drg"]
    shown = pd.to_numeric(by_drg["Test stays"], errors="coerce").sum()
    total = (stays["split"] == "test").sum()
    for run in (numbers["run"], *numbers["other_runs"]):
        told = [of[run] for levels in numbers["levels"].values() for of in levels.values()]
        sizes = {0, total, total - shown, *(row["stays"] for row in told)}
        assert not {abs(a - b) for a, b in itertools.combinations(sizes, 2)} & set(FEW)
        counts = [(row["value"] * row["stays"], (1 - row["value"]) * row["stays"]) for row in told if "value" in row]
        between = np.abs(np.array([*counts, (0, 0)])[:, None] - np.array([*counts, (0, 0)])).round()
        assert counts and not set(between.ravel().tolist()) & set(FEW)


def _pins(counts: np.ndarray, hide: np.ndarray) -> bool:
    """Whether the sum, the limits and what is shown leave one value for a small count: all fillings are tried."""
    small = counts < 11
    places, shown = np.flatnonzero(hide & (counts > 0)), counts[~hide & (counts > 0)]
    rest, most = counts[places].sum(), min([*shown, counts.sum()])
    ranges = [range(1, 11) if small[i] else range(11, most + 1) for i in places]
    found = [set() for _ in places]
    for filling in itertools.product(*ranges):
        if sum(filling) == rest:
            for seen, value in zip(found, filling, strict=True):
                seen.add(value)
    return any(len(seen) == 1 for seen, i in zip(found, places, strict=True) if small[i])


@given(st.lists(st.integers(0, 18), min_size=3, max_size=5))
def test_no_filling_of_what_is_hidden_is_the_only_one(counts):
    counts = np.array(counts)
    hide = disclosure.hidden(counts, 11, [np.ones(len(counts), bool)])
    assert hide[(counts > 0) & (counts < 11)].all()
    if (~hide & (counts > 0)).any():  # else there was nothing more to hide
        assert not _pins(counts, hide)


@given(st.lists(st.integers(0, 60), max_size=6))
def test_what_is_told_differs_by_enough(counts):
    told = np.array([0, 60, *np.array(counts, int)[disclosure.told(counts, 11, [0, 60])]])
    assert not set(np.abs(np.subtract.outer(told, told)).ravel().tolist()) & set(FEW)
    assert disclosure.told(counts, 0, [0, 60]).all()


@given(st.lists(st.integers(0, 25), min_size=16, max_size=16))
def test_a_matrix_tells_no_cell_by_its_rows_or_its_accuracy(cells):
    counts = pd.DataFrame(np.array(cells).reshape(4, 4), list("abcd"), list("abcd"))
    shown, share = disclosure.masked_matrix(counts, 11)
    hide, small = shown.isna().to_numpy(), (counts < 11).to_numpy()
    if not ((counts > 0) & small).to_numpy().any():
        assert not hide.any()
        return
    assert hide[small].all()
    groups = [
        np.eye(4, dtype=bool),
        ~np.eye(4, dtype=bool),
        *(np.arange(4)[:, None] == i & np.ones((4, 4), int) for i in range(4)),
    ]
    assert all((hide & group).sum() != 1 for group in groups[:2])
    assert not (share.to_numpy()[hide] > 0).any()


def test_an_accuracy_that_tells_of_few_leaves_a_range_of_several_counts():
    table = pd.DataFrame({"drg": list("abdc"), "train_cases": [500, 400, 6, 4], "test_cases": [15, 60, 12, 30]})
    table["acc_at_1"], table["acc_at_5"] = [0.2, 0.5, 1.0, 1.0], [12 / 15, 1.0, 1.0, 1.0]
    table = table.assign(acc_range="60–80", rank=[1, 2, 3, 4], title="t", type="medical")
    masked = results.masked_by_drg(table, 11)
    assert masked["drg"].tolist() == list("abcd") and masked["rank"].isna().tolist() == [False, False, True, True]
    assert masked["acc_at_1"].isna().tolist() == masked["acc_at_5"].isna().tolist() == [True, False, True, True]
    assert masked["acc_range"].isna().tolist() == [False, False, True, True]
    pd.testing.assert_frame_equal(results.masked_by_drg(table, 0, printed=True), table)


def test_of_a_few_errors_no_class_follows_from_the_sums_that_sentences_tell(iv):
    said = read_runs(iv, ["caml"])["caml"]
    wrong = errors.judge(said.stay_ids, said.truth, said.labels, said.logits).query("`class` != ''")
    tally = errors.tally(wrong["class"], errors.CLASSES)
    sums = errors.sums(tally["name"])
    hide = disclosure.hidden(tally["errors"], 11, sums)
    for group in sums:
        few = hide & group & tally["errors"].between(1, 10).to_numpy()
        assert few.sum() != 1 or (hide & group).sum() > 1 or not (~hide & group & (tally["errors"] > 0)).any()


def test_curves_and_bins_have_no_step_of_few():
    rng = np.random.default_rng(0)
    right = rng.random(400) < np.linspace(0.95, 0.4, 400)
    n = np.arange(1, 401)
    curve = pd.DataFrame({"coverage": n / 400, "accuracy": right.cumsum() / n})
    kept = disclosure.coarse(curve, 400, 11)
    hits = (kept["accuracy"] * kept["coverage"] * 400).round()
    steps = np.r_[hits.iloc[0], np.diff(hits), np.diff(kept["coverage"] * 400 - hits)].round()
    assert len(kept) > 3 and kept["coverage"].iloc[-1] == 1 and not set(steps.tolist()) & set(FEW)
    assert len(disclosure.coarse(curve, 400, 0)) == 400
    bins = pd.DataFrame({"accuracy": [0.5, 0.9, 0.5], "lower": 0.0, "upper": 1.0, "stays": [40, 40, 60]})
    assert disclosure.masked_bins(bins, 11)["accuracy"].isna().tolist()[1]


def test_a_claim_on_accuracies_is_told_only_where_neither_tells_of_few(iv):
    listed = claims.read().query("paper == 'DRG-LLaMA'")
    shown = tables(iv)["claims"].set_index(listed.index)["Here (95 % interval)"]
    made, told = read_runs(iv, ["llama", "tfidf", "caml", "llama-13b"]), set()
    pairs = {"llama-bert": ("llama", "tfidf"), "llama-caml": ("llama", "caml"), "bert-caml": ("tfidf", "caml")}
    for pair, runs in (pairs | {"larger": ("llama-13b", "llama")}).items():
        right = [made[run].logits.argmax(1) == made[run].truth for run in runs]
        few = any(hits.sum() in FEW or (~hits).sum() in FEW for hits in right)
        assert (shown[f"{pair}-top1"] == "–") == few
        told.add(few)
    assert told == {True, False} and shown["llama-bert-f1"] != "–"
    assert 'id="claims"' in pages(iv)["paper-1.html"] and 'id="early_claims"' in pages(iv)["paper-2.html"]


# --- what is said -----------------------------------------------------------------------------------------------------
def test_places_names_and_errors_before_the_review_are_told_as_they_are(iv):
    said = "\n".join([*pages(iv).values(), *(file.read_text() for file in iv.report.rglob("*.json"))])
    said += "\n".join(file.read_text() for file in iv.report.rglob("*.svg"))
    said += "\n".join(table.to_csv() for table in tables(iv).values())
    assert made_report.PLACE not in said and "llama-13b" in said
    assert "0 (0 %)" not in (iv.figures / "error-categories.svg").read_text()
    assert set(tables(iv)["error-categories"]["Table 4 (this run)"]) == {"not reviewed"}
    index = pages(iv)["paper-1.html"]
    assert "all errors of this run" not in index and "any stay that you choose" not in index
    assert tables(iv)["time-gains"].iloc[0, 2] == "−33 %"  # the larger one was the faster


# --- the guard --------------------------------------------------------------------------------------------------------
def test_all_that_the_early_study_writes_passes_with_mimic_iiis_ids(iii, monkeypatch):
    paths, ids = iii
    monkeypatch.setattr(study.places, "ROOT", paths.report.parents[1])
    known = set(guard._ids("secret").tolist())
    assert {*range(2, 12_000)} <= known and len(known & ids["HADM_ID"]) > 50_000
    assert guard.leaks("secret") == []


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A report with nothing in it but what a test plants, beside an ICU with MIMIC-III's ids."""
    monkeypatch.setattr(study.places, "ROOT", tmp_path)
    rng = np.random.default_rng(0)
    numbers = [np.arange(2, 20_000), *(rng.integers(*made_report.RANGES[kind], 80_000) for kind in made_report.RANGES)]
    monkeypatch.setattr(guard, "_ids", lambda profile: np.unique(np.concatenate([*numbers, [150_123, 250_123]])))
    monkeypatch.setattr(guard, "_committed", lambda notebooks: COMMITTED)
    paths = study.Paths("secret")
    study.write_json(paths.source, {"kind": "credentialed", "name": "MIMIC-III"})
    (paths.report / "figures").mkdir(parents=True)
    return paths


COMMITTED = {f"notebooks/{file.name}": file.read_bytes() for file in study.NOTEBOOKS.glob("*.ipynb")}
PLANTED = {
    "column": ("t.csv", "Row,{s},b\n1,{v},2\n2,{v},3\n"),
    "Markdown": ("t.md", "| Case | {s} |\n| --- | --- |\n| 1 | {v} |\n"),
    "second table": ("t.html", "<table><tr><th>Case</th></tr><tr><td>3</td></tr></table>"
                               "<table><tr><th>n</th><th>{s}</th></tr><tr><td>3</td><td>{v}</td></tr></table>"),
    "JSON": ("n.json", '{{"a": {{"{s}": {v}}}}}'),
    "JSON list": ("n.json", '{{"a": {{"{s}": [{v}, {v}]}}}}'),
    "prose": ("a.md", "as in {s} {v}, who"),
    "prose, is": ("a.md", "whose {s} is {v}."),
    "SVG": ("f.svg", "<svg><text>{s}: {v}</text></svg>"),
    "SVG comment": ("f.svg", "<svg><!-- {s} = {v} --></svg>"),
    "name": ("figures/{s}-{v}.svg", "<svg/>"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [("SUBJECT_ID", 7), ("subject id", 217), ("hadm_id", 150_123),
                                             ("HADM", 150_123), ("icustay id", 250_123), ("stay_id", 250_123)])  # fmt: skip
@pytest.mark.parametrize("how", PLANTED)
def test_named_ids_are_found_however_short(planted, how, name, value):
    where, what = (text.format(s=name, v=value) for text in PLANTED[how])
    (planted.report / where).write_text(what, encoding="utf-8")
    assert {leak.file for leak in guard.leaks("secret")} == {planted.report / where}


@pytest.mark.parametrize(
    "harmless",
    [
        "| Case | DRG | Stays |\n| --- | --- | --- |\n| 1 | 291 | 58 |\n| 2 | 871 | 345 |\n",
        "<table><tr><th>Case</th><th>n</th></tr><tr><td>5</td><td>7</td></tr></table><p>12</p>",
        "patient,x\n,1\n\nstays,drg\n217,291\n3,65\n",
        "one stay, 12 notes; stay 3 of 5; the stays of 58 patients; (a stay) 24 hours",
        "hours 24, 48\nstays of patients\n2012, 2013",
        "`stay_ids[:20]` lists some",
        "<table><tr><td>Training stays</td><td>236,150</td><td>123</td></tr></table>",
    ],
)
def test_small_numbers_that_nothing_names_pass(planted, harmless):
    (planted.report / "a.md").write_text(harmless, encoding="utf-8")
    assert guard.leaks("secret") == []


def test_a_note_in_a_notebook_is_found_in_its_source_and_in_what_it_saved(planted, monkeypatch):
    """Public is what git's last commit holds, not what somebody has pasted since."""
    note = "he was weaned off levophed at four this morning and made comfortable by his family"
    monkeypatch.setattr(guard, "_notes", lambda profile: [note])
    notebooks = planted.report.parents[1] / "notebooks"
    notebooks.mkdir()
    shutil.copy(study.NOTEBOOKS / "studies.yaml", notebooks)
    monkeypatch.setattr(study.places, "NOTEBOOKS", notebooks)
    cell = nbformat.v4.new_code_cell("1")
    file, empty = notebooks / "06-results.ipynb", nbformat.v4.new_notebook(cells=[cell])
    as_committed = nbformat.writes(empty)
    pasted = (
        nbformat.v4.new_code_cell(f"# {note}"),
        nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text=note)]),
    )
    for changed in pasted:
        file.write_text(as_committed)
        monkeypatch.setattr(guard, "_committed", lambda _: {"notebooks/06-results.ipynb": as_committed.encode()})
        guard._public.cache_clear()
        assert guard.leaks("secret") == []
        file.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[changed])))
        assert {leak.file for leak in guard.leaks("secret")} == {file}
    guard._public.cache_clear()


def test_public_is_what_git_holds():
    committed = guard._committed.__wrapped__(study.NOTEBOOKS)
    if not committed:
        pytest.skip("not a git checkout")
    assert {"notebooks/06-results.ipynb", "data/reference/crosswalk.csv"} <= committed.keys()
