"""Tables and pages, from a small made-up hospital: the notebook's own cells run here, in this process."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score, top_k_accuracy_score

from drgstudy import cohort, drgs, report, study
from drgstudy.bootstrap import bootstrap
from drgstudy.metrics import METRICS, Scores
from drgstudy.predictions import Predictions, write_predictions

NOTEBOOK = study.NOTEBOOKS / "06-results.ipynb"
NAME = "synthetic <script>alert(1)</script> hospital & seed 3"
MODELS = {"llama": "llama", "tfidf": "tfidf", "mine": "caml"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A profile `tiny`: 600 stays of 35 DRGs, three runs with signal, one on other stays; notebook 05 has run on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "ROOT", tmp_path_factory.mktemp("study"))
        patch.setenv("DRGSTUDY_PROGRESS", "/dev/null")
        patch.setenv("DRGSTUDY_PROGRESS_SECONDS", "1")
        paths, rng = study.Paths("tiny"), np.random.default_rng(3)
        codes = drgs.v34().index[10:45]
        drg = np.concatenate([np.repeat(codes, 4), rng.choice(codes, 460, p=(w := 1 / np.arange(1, 36)) / w.sum())])
        stays = pd.DataFrame({"stay_id": range(600), "subject_id": range(600), "drg_v34": drg, "text": "a"})
        stays["words"] = rng.integers(40, 90, 600)
        stays["split"] = stays["split_patients"] = np.where(np.arange(600) % 4 == 0, "test", "train")
        cohort.write_stays(stays, paths.stays)
        dataset = {"kind": "synthetic", "name": NAME, "fingerprint": study.fingerprint(paths.stays)}
        chain = [{"step": "rows", "kept": 700, "removed": 0}, {"step": "kept", "kept": 600, "removed": 100}]
        parts = {"train_stays": 450, "test_stays": 150, "train_labels": 35, "test_labels": 35}
        flow = {"notes": chain, "drg_rows": chain, "stays": 600, "labels": 35, "splits": {"split": parts}}
        study.write_json(paths.flow, flow | {"source": dataset, "stays_fingerprint": dataset["fingerprint"]})
        test = stays[stays["split"] == "test"]
        truth = np.searchsorted(codes, test["drg_v34"])
        for signal, (run, model) in zip((4, 2, 1, 1), [*MODELS.items(), ("elsewhere", "tfidf")], strict=True):
            logits = rng.normal(size=(150, 35)) + signal * (np.arange(35) == truth[:, None])
            cost = {"predict_seconds": 3.0, "predict_examples": 150, "peak_memory_gb": 1.5, "train_seconds": 60.0}
            cost["fit_seconds"] = cost["train_seconds"]
            if model != "tfidf":
                cost |= {
                    "train_examples": 1200,
                    "dtype": "float32",
                    "history": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}],
                }
            about = {
                "run": run,
                "model": model,
                "settings": {},
                "split": "split",
                "seed": 1,
                "cost": cost,
                "dataset": dataset,
            }
            ids = test["stay_id"].to_numpy() + (run == "elsewhere")
            write_predictions(
                paths.runs / run, Predictions(ids, truth, np.array(codes), logits.astype("float32"), about)
            )
        names = {"display": lambda *shown: None}
        for cell in nbformat.read(NOTEBOOK, 4).cells:
            if cell.cell_type == "code":
                source = cell.source.replace("import Markdown, display", "import Markdown")
                exec(source.replace('"demo"', '"tiny"').replace("= 1000", "= 60"), names)
        yield paths


@pytest.fixture
def executed(paths):
    """An executed notebook as papermill leaves it, with a figure and a page of an earlier report beside it."""
    image = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    notebook = nbformat.v4.new_notebook(metadata={"papermill": {"parameters": {"run": "llama"}}})
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# What does it learn?\n\nprose\n\n## A curve"),
        nbformat.v4.new_code_cell("x = '<b>'", outputs=[image]),
    ]
    paths.executed.mkdir(exist_ok=True)
    nbformat.write(notebook, paths.executed / "05-train-llama.ipynb")
    nbformat.write(notebook, paths.executed / "06-results.ipynb")
    (paths.report / "pages").mkdir(exist_ok=True)
    (paths.report / "pages" / "05-train-gone.html").write_text("old")
    return paths


def scores_of(paths, run):
    runs, _ = report.read_runs(paths, run)
    return Scores(runs[run].logits, runs[run].truth), runs[run]


# --- Table 1


def test_top_sets_break_ties_by_code_and_must_be_smaller_than_the_cohort():
    codes = np.array([f"{i:03d}" for i in range(1, 53)])
    stays = pd.DataFrame({"drg_v34": [*codes, "052", "051", "051"]})
    sets = report.drg_sets(stays, codes)
    assert list(sets) == ["All DRGs", "Top 50 DRGs", "Top 30 DRGs"]
    assert codes[sets["Top 30 DRGs"]].tolist() == [*codes[:28], "051", "052"]
    assert list(report.drg_sets(stays[stays["drg_v34"] <= "030"], codes[:30])) == ["All DRGs"]


def test_table_1_equals_scikit_learn_and_the_resamples(paths):
    table = pd.read_json(paths.report / "numbers.json", typ="series")["table_1"]
    stays = cohort.read_stays(paths.stays)
    top30 = set(stays["drg_v34"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:30])
    for run in MODELS:
        scores, made = scores_of(paths, run)
        inside = np.isin(made.labels[made.truth], list(top30))
        for drg_set, kept in (("All DRGs", np.ones(150, bool)), ("Top 30 DRGs", inside)):
            truth, logits = made.truth[kept], made.logits[kept].astype(float)
            odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            present = np.unique(truth)
            expected = {
                "macro_f1": f1_score(truth, logits.argmax(1), labels=present, average="macro"),
                **{f"acc_at_{k}": top_k_accuracy_score(truth, logits, k=k, labels=range(35)) for k in (1, 5, 10)},
                "macro_auc": np.mean([roc_auc_score(truth == label, odds[:, label]) for label in present]),
                "micro_auc": roc_auc_score((truth[:, None] == np.arange(35)).ravel(), odds.ravel()),
                "n_cases": kept.sum(),
                "percent_cases": kept.sum() / 1.5,
            }
            got = table[run][drg_set]
            assert list(got) == sorted(expected)
            assert {key: got[key]["value"] for key in expected} == pytest.approx(expected, abs=1e-12)
            samples = bootstrap(
                scores, 60, 42, np.flatnonzero(np.isin(made.labels, list(top30))) if kept.sum() < 150 else None
            )
            for metric in METRICS:
                assert got[metric]["sd"] == pytest.approx(samples[metric][:30].std(ddof=1))
                assert got[metric]["lower"] == pytest.approx(samples[metric].quantile(0.025))
                assert got[metric]["upper"] == pytest.approx(samples[metric].quantile(0.975))


def test_table_1_is_printed_in_the_papers_layout(paths):
    csv = pd.read_csv(paths.report / "tables" / "table-1.csv")
    names = ["macro-F1", "top-1 accuracy", "top-5 accuracy", "top-10 accuracy", "macro-AUC", "micro-AUC"]
    assert csv.columns.tolist() == ["Model", "DRG set", *names, "Number (%) of cases", "dataset"]
    models = ["DRG-LLaMA", "TF-IDF + LR", "mine"]  # known ones in their order, then the others
    assert csv["Model"].tolist() == [model for model in models for _ in range(2)]
    assert csv["DRG set"].tolist() == ["All DRGs", "Top 30 DRGs"] * 3
    assert set(csv["dataset"]) == {NAME} and csv["Number (%) of cases"][0] == "150 (100.0)"
    entry = study.read_json(paths.report / "numbers.json")["table_1"]["llama"]["All DRGs"]["acc_at_5"]
    assert csv["top-5 accuracy"][0] == f"{entry['value']:.3f} ({entry['sd']:.3f})"
    intervals = pd.read_csv(paths.report / "tables" / "table-1-intervals.csv")
    assert intervals["top-5 accuracy"][0] == f"{entry['value']:.3f} ({entry['lower']:.3f} to {entry['upper']:.3f})"


def test_the_published_table_1_is_printed_alike_and_named(paths):
    csv = pd.read_csv(paths.report / "tables" / "table-1-published.csv")
    first = ["DRG-LLaMA-7B", "All DRGs", "0.327 (0.004)", "0.520 (0.003)", "0.848 (0.002)", "0.912 (0.002)"]
    first += ["0.986 (0.001)", "0.994 (0.000)", "26,244 (100.0)", "MIMIC-IV (published)"]
    assert csv.iloc[0].tolist() == first
    assert csv["Model"].tolist() == ["DRG-LLaMA-7B"] * 4 + ["ClinicalBERT", "CAML"]


# --- differences


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.03, 0.01, 0.05), "A is above B in top-1 accuracy by 0.030 (95 % interval 0.010 to 0.050)."),
        ((-0.03, -0.05, -0.01), "A is below B in top-1 accuracy by 0.030 (95 % interval 0.010 to 0.050)."),
        (
            (0.01, -0.01, 0.03),
            "A and B can't be told apart in top-1 accuracy (difference +0.010, 95 % interval −0.010 to +0.030).",
        ),
        (
            (0.02, 0.0, 0.04),
            "A and B can't be told apart in top-1 accuracy (difference +0.020, 95 % interval +0.000 to +0.040).",
        ),
    ],
)
def test_the_sentence_says_what_the_interval_says(numbers, expected):
    assert report.sentence("A", "B", "acc_at_1", *numbers) == expected


def test_differences_are_those_of_table_1_and_turn_round_with_the_models(paths):
    numbers = study.read_json(paths.report / "numbers.json")
    table = {run: numbers["table_1"][run]["All DRGs"] for run in MODELS}
    for other in ("tfidf", "mine"):
        for metric in METRICS:
            said = numbers["differences"][other][metric]
            assert said["difference"] == pytest.approx(table["llama"][metric]["value"] - table[other][metric]["value"])
            assert said["lower"] <= said["difference"] <= said["upper"]
    assert numbers["differences"]["mine"]["acc_at_1"]["sentence"].startswith(
        "DRG-LLaMA is above mine in top-1 accuracy by "
    )
    scores = {run: scores_of(paths, run)[0] for run in ("llama", "mine")}
    turned = report.differences(scores, "mine", 60, 42).set_index("metric")
    assert turned["upper"]["acc_at_1"] == pytest.approx(-numbers["differences"]["mine"]["acc_at_1"]["lower"])
    assert turned["sentence"]["acc_at_1"].startswith("mine is below DRG-LLaMA")
    assert report.differences({"llama": scores["llama"]}, "llama", 60, 42).empty


# --- figure 2, text, cost


def test_drgs_are_ranked_by_training_cases_and_grouped_as_the_paper_words_it():
    labels = np.array(["001", "002", "003", "004"])
    truth = np.repeat([0, 1, 2], 5)
    logits = np.zeros((15, 4))
    logits[np.arange(15), truth] = np.repeat([1, 2, 3], 5)
    wide = np.hstack([logits, np.full((15, 6), -1.0)])  # ten labels, so that the top five can miss
    wide[4, 3:] = wide[5:9, 3:] = 9
    labels = np.concatenate([labels, drgs.v34().index[20:26]])
    table = report.by_drg(Scores(wide, truth), labels, pd.Series({"002": 7, "001": 7, "003": 9}))
    assert table["drg"].tolist() == ["003", "001", "002"] and table["rank"].tolist() == [1, 2, 3]
    assert table["acc_at_5"].tolist() == [1, 0.8, 0.2] and table["test_cases"].tolist() == [5, 5, 5]
    assert table["acc_range"].tolist() == ["> 80", "60–80", "20–40"]  # 80 % is not above 80 %, 20 % not below 20 %
    assert table["title"][1] == drgs.v34()["title"]["001"]


def test_the_texts_numbers_stand_beside_the_published_ones(paths):
    table = pd.read_csv(paths.report / "tables" / "text-numbers.csv", index_col=0, keep_default_na=False)
    ours = table[f"{NAME} (this run)"]
    train = cohort.read_stays(paths.stays).query("split == 'train'")
    assert (
        ours["Training stays"] == "450"
        and ours["Median training cases of a DRG"] == f"{train['drg_v34'].value_counts().median():g}"
    )
    assert ours["Mean words of a training stay"] == f"{train['words'].mean():.0f}"
    assert ours["Test stays of the top 300 DRGs, %"] == "–" and ours["Gain in macro-F1 over BERT, %"] == "–"
    expected = {
        "Training stays": "236,192",
        "Median training cases of a DRG": "124.5",
        "DRGs with more than 2,000 training cases": "12",
    }
    expected |= {"Median cases, top-5 above 80 %": "309", "Median cases, top-5 below 20 %": "17"}
    expected |= {"Test stays of the top 50 DRGs, %": "39.1", "Figure 2a: degrees of freedom of the spline": "6.35"}
    assert table["MIMIC-IV (published)"][list(expected)].to_dict() == expected
    by_drg = pd.read_csv(paths.report / "tables" / "by-drg.csv")
    assert ours["Median cases, top-5 above 80 %"] == f"{by_drg.query('acc_at_5 > 0.8')['train_cases'].median():g}"


def test_costs_are_counted_in_the_papers_steps_and_kept_out_of_the_numbers(paths):
    spent = study.read_json(paths.report / "costs.json")["runs"]
    assert (
        spent["llama"]["predict_examples_per_second"] == 50 and spent["llama"]["evaluation_steps_per_second"] == 50 / 4
    )
    assert spent["mine"]["evaluation_steps_per_second"] == 50 / 32 and spent["mine"]["train_examples_per_second"] == 20
    assert "evaluation_steps_per_second" not in spent["tfidf"] and "train_examples_per_second" not in spent["tfidf"]
    assert not re.search("seconds|memory", (paths.report / "numbers.json").read_text())
    table = pd.read_csv(paths.report / "tables" / "cost.csv", dtype=str).set_index("Model")
    assert table.loc["DRG-LLaMA"].tolist()[:4] == ["1.0", "20.0", "12.50", "4"] and table["Type"]["TF-IDF + LR"] == "–"


def test_numbers_json_is_valid_json_and_names_dataset_and_seed(paths):
    def refuse(constant):
        raise AssertionError(constant)

    numbers = json.loads((paths.report / "numbers.json").read_text(), parse_constant=refuse)
    assert numbers["dataset"]["name"] == NAME and numbers["seed"] == 42 and numbers["left_out"] == ["elsewhere"]
    assert numbers["stays_fingerprint"] == study.fingerprint(paths.stays) and set(numbers["models"]) == set(MODELS)


def test_tables_name_their_dataset_in_csv_and_markdown(tmp_path):
    shown = report.write_table(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), tmp_path, "t", "a dataset")
    assert (tmp_path / "t.csv").read_text() == "a,b,dataset\n1,x,a dataset\n2,y,a dataset\n"
    assert (tmp_path / "t.md").read_text() == "*a dataset*\n\n| a | b |\n| --- | --- |\n| 1 | x |\n| 2 | y |\n"
    assert "a dataset" in shown.to_html()


def test_a_run_that_has_not_run_is_named(paths):
    with pytest.raises(study.StudyError, match=r"'nobody' has no run.json .* choose of: llama, tfidf, elsewhere, mine"):
        report.read_runs(paths, "nobody")


# --- pages


class Page(HTMLParser):
    """What a browser would fetch, show and complain about."""

    def __init__(self, file: Path):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "hr", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_index_shows_both_datasets_apart_and_everything_made(executed):
    report.build("tiny")
    page = Page(executed.report / "index.html")
    text = " ".join(" ".join(page.text).split())
    assert page.open == [] and dict(page.tags)["html"]["lang"] == "en"
    captions = re.findall("<caption>(.*?)</caption>", (executed.report / "index.html").read_text())
    assert captions[0] == "MIMIC-IV (published)" and captions[1].endswith("(this run)") and "MIMIC" not in captions[1]
    assert "This is not MIMIC." in text and NAME in text and "236,192" in text
    numbers = study.read_json(executed.report / "numbers.json")
    for other in numbers["differences"].values():
        assert other["acc_at_1"]["sentence"] in text and other["macro_f1"]["sentence"] in text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(list(executed.report.glob("figures/*.png"))) and all(len(i["alt"]) > 20 for i in images)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert all((executed.report / link).exists() for link in links if not link.startswith("#"))
    assert all(any(a.get("id") == link[1:] for _, a in page.tags) for link in links if link.startswith("#"))
    assert "What does it learn? DRG-LLaMA" in text and "elsewhere" in text and dict(page.tags)["meta"]


def test_pages_fetch_nothing_and_escape_what_they_quote(executed):
    report.build("tiny")
    pages = [executed.report / "index.html", *(executed.report / "pages").iterdir()]
    assert {page.name for page in pages} == {"index.html", "05-train-llama.html", "06-results.html"}  # and none of old
    for file in pages:
        assert "<script" not in file.read_text() and "@import" not in file.read_text()
        page = Page(file)
        for tag, attributes in page.tags:
            assert not attributes.get("src", "").startswith(("http", "//")) and tag not in ("link", "script", "iframe")
            assert not any(name.startswith("on") for name in attributes)
    notebook = Page(executed.report / "pages" / "05-train-llama.html")
    assert [attributes["alt"] for tag, attributes in notebook.tags if tag == "img"] == ["Figure: A curve"]
    assert "'<b>'" in "".join(notebook.text)


def test_building_twice_gives_equal_bytes_and_the_index_is_written_last(executed, monkeypatch):
    report.build("tiny")
    first = {page: page.read_bytes() for page in executed.report.rglob("*.html")}
    written, write = [], report._write
    monkeypatch.setattr(report, "_write", lambda path, text: (written.append(path.name), write(path, text)))
    report.build("tiny")
    assert {page: page.read_bytes() for page in executed.report.rglob("*.html")} == first
    assert written[-1] == "index.html" and not list(executed.report.rglob(".unfinished*"))


def test_missing_results_and_notebooks_are_one_sentence(paths, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    with pytest.raises(study.StudyError, match=r"numbers\.json is missing"):
        report.build("tiny")
    for name in ("numbers", "costs"):
        study.write_json(study.Paths("tiny").report / f"{name}.json", {})
    with pytest.raises(study.StudyError, match="holds no executed notebook; run `make report PROFILE=tiny`"):
        report.build("tiny")
    assert not (study.Paths("tiny").report / "index.html").exists()


# --- the notebook's file


def test_notebook_05_is_stored_clean_and_its_parameter_files_are_valid():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.splitlines()[0].endswith("?")
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    for file in (study.NOTEBOOKS / "params").glob("*/06-results.yaml"):
        assert set(study.read_params(file)) == set(study.notebook_parameters(NOTEBOOK))
