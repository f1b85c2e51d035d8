"""What several test modules use: tiny models with random weights, a tiny study, the smoke study. Each is made once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from drgstudy.flow import write_rows
from drgstudy.study import ROOT

settings.register_profile("untimed", deadline=None)  # two workers and the smoke study share two cores
settings.load_profile("untimed")

NOTES = [
    "admitted with chest pain and nstemi treated with heparin",
    "copd exacerbation treated with nebulizers and steroids improved",
    "uti with e coli sepsis treated with ceftriaxone",
    "elective right hip replacement uncomplicated course",
] * 6


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are tiny: a second thread would only wait."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def notes() -> tuple[list[str], list[int]]:
    """Twenty-four short notes of four kinds, and their labels, 0 to 3."""
    return NOTES, [0, 1, 2, 3] * 6


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for note in NOTES for word in note.split()} | {"diagnosis"})
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "[PAD]", "[CLS]", "[SEP]", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory, tokenizer):
    """Folder of a LLaMA with two layers, grouped-query attention and random weights."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory, tokenizer):
    """Folder of a BERT with two layers and random weights."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    folder = tmp_path_factory.mktemp("tiny-bert")
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make():
    """A function that runs make on the smoke profile in this Python's environment, and shows its progress."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    return lambda *arguments: subprocess.run(
        ["make", *arguments, "PROFILE=smoke"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="session")
def study():
    """Wait until both smoke studies are made, which happens while tests run that do not need them."""
    status = Path(os.environ["SMOKE_STATUS"])
    while not status.is_file() or not (said := status.read_text()):
        time.sleep(0.5)
    assert said == "0\n", status.with_suffix(".log").read_text()[-3000:]


SMOKE = pytest.StashKey[subprocess.Popen]()


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # workers of pytest-xdist inherit it
        os.environ["SMOKE_STATUS"] = str(ROOT / ".make" / f"smoke-{os.getpid()}.status")


def needs_smoke(name: str) -> bool:
    """Whether a test, by its name, needs the smoke study."""
    return "tests/stress/" not in name and ("tests/notebooks/" in name or "smoke" in name.partition("[")[0])


def pytest_collection_modifyitems(items):
    """Put the tests of the smoke study late, for it is made while others run; what the other worker does meanwhile comes last."""
    asked = [item.nodeid for item in items if "study" in getattr(item, "fixturenames", ())]
    unnamed = [name for name in asked if not needs_smoke(name) and "tests/stress/" not in name]
    assert not unnamed, (
        f"{unnamed[0]} has the fixture `study`: say smoke in its name, so that it runs where the others do"
    )
    items.sort(key=lambda item: needs_smoke(item.nodeid))
    others = sum(not needs_smoke(item.nodeid) for item in items)
    late = others * 4 // 5
    items[late:] = items[others:] + items[late:others]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests run on one worker, for they share fixtures; so do the tests of the smoke study, for they touch it."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, name):
            return "smoke" if needs_smoke(name) else name.partition("::")[0]

    return ByFile(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids):
    make_smoke(node.config, ids)


def pytest_collection_finish(session):
    if not hasattr(session.config, "workerinput"):
        make_smoke(session.config, [item.nodeid for item in session.items])


def make_smoke(config, names: list[str]) -> None:
    """Start to make the smoke study with one thread, if one of these tests needs it, while other tests run."""
    if config.option.collectonly or SMOKE in config.stash or not any(map(needs_smoke, names)):
        return
    status = Path(os.environ["SMOKE_STATUS"])
    status.parent.mkdir(exist_ok=True)
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1"}
    command = f'make all PROFILE=smoke shown=; echo $? > "{status}"'
    with status.with_suffix(".log").open("w") as log:
        config.stash[SMOKE] = subprocess.Popen(
            ["sh", "-c", command], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    print(f"the smoke study is made meanwhile: {status.with_suffix('.log').relative_to(ROOT)}")


def pytest_sessionfinish(session):
    process = session.config.stash.get(SMOKE, None)
    if process and process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["SMOKE_STATUS"]).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory):
    """Root of a profile `tiny`: 600 stays of 35 DRGs, three runs, a fourth on another split; notebook 06 has run."""
    from drgstudy import cohort, drgs, provenance, study
    from drgstudy.predictions import Predictions, write_predictions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.places, "ROOT", tmp_path_factory.mktemp("study"))
        patch.setenv("DRGSTUDY_PROGRESS", "/dev/null")
        patch.setenv("DRGSTUDY_PROGRESS_SECONDS", "1")
        paths, rng = study.Paths("tiny"), np.random.default_rng(3)
        codes = drgs.v34().index[10:45]
        drg = np.concatenate([np.repeat(codes, 4), rng.choice(codes, 460, p=(w := 1 / np.arange(1, 36)) / w.sum())])
        stays = pd.DataFrame({"stay_id": range(600), "subject_id": range(600), "drg_v34": drg, "text": "a"})
        stays["words"] = rng.integers(40, 90, 600)
        stays["split"] = np.where(np.arange(600) % 4 == 0, "test", "train")
        stays["split_patients"] = np.where(np.arange(600) % 4 == 1, "test", "train")
        raw, mapping = paths.raw / "drgcodes.csv", stays.groupby("drg_v34").size().rename("stays").reset_index()
        raw.parent.mkdir(parents=True)
        stays.to_csv(raw)
        source = {"kind": "synthetic", "name": "synthetic <script>alert(1)</script> hospital & seed 3"}
        provenance.write_json(paths.source, source | {"folder": str(raw.parent)}, "01-hospital", [raw], source)
        mapping = mapping.assign(code=mapping["drg_v34"], title=mapping["drg_v34"], provenance="title")
        about = {"by": "02-harmonization", "inputs": [paths.source]}
        write_rows(mapping.astype({"stays": "int64"}), paths.drgs, cohort.MAPPING, **about)
        write_rows(stays, paths.stays, cohort.STAYS, by="03-cohort", inputs=[paths.source, paths.drgs])
        dataset = source | {"fingerprint": study.fingerprint(paths.stays)}
        chain = [{"step": "rows", "kept": 700, "removed": 0}, {"step": "kept", "kept": 600, "removed": 100}]
        parts = {"train_stays": 450, "test_stays": 150, "train_labels": 35, "test_labels": 35}
        flow = {"notes": chain, "drg_rows": chain, "stays": 600, "labels": 35, "splits": {"split": parts}}
        flow |= {"source": dataset, "stays_fingerprint": dataset["fingerprint"]}
        provenance.write_json(paths.flow, flow, "03-cohort", [paths.stays])
        for signal, run, model in (
            (4, "llama", "llama"),
            (2, "tfidf", "tfidf"),
            (1, "mine", "caml"),
            (1, "elsewhere", "tfidf"),
        ):
            split = "split_patients" if run == "elsewhere" else "split"
            test = stays[stays[split] == "test"]
            truth = np.searchsorted(codes, test["drg_v34"])
            logits = (rng.normal(size=(150, 35)) + signal * (np.arange(35) == truth[:, None])).astype("float32")
            cost = {"predict_seconds": 3.0, "predict_examples": 150, "peak_memory_gb": 1.5}
            cost |= {"train_seconds": 60.0, "fit_seconds": 60.0}
            if model != "tfidf":
                history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
                cost |= {"train_examples": 1200, "dtype": "float32", "history": history}
            settings = {"epochs": 2.0, "max_tokens": 99, "batch_size": 4} if model == "caml" else {}
            about = {"run": run, "model": model, "settings": settings, "split": split, "seed": 1}
            made = Predictions(
                test["stay_id"].to_numpy(), truth, np.array(codes), logits, about | {"cost": cost, "dataset": dataset}
            )
            write_predictions(paths.runs / run, made)
        names = {"display": lambda *shown: None}
        for cell in nbformat.read(study.places.NOTEBOOKS / "06-results.ipynb", 4).cells:
            if cell.cell_type == "code":
                exec(cell.source.replace("import Markdown, display", "import Markdown"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"profile": "tiny", "runs": ["llama", "tfidf", "mine"], "resamples_interval": 60}
        return study.places.ROOT


@pytest.fixture
def paths(tiny_study, tmp_path, monkeypatch):
    """Paths of a copy of the tiny study, which is the root during the test, so that no test sees what another did."""
    from drgstudy import study

    monkeypatch.setattr(study.places, "ROOT", shutil.copytree(tiny_study, tmp_path / "study"))
    return study.Paths("tiny")
