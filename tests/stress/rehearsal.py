"""What an author has before the first `make`: models in local folders, a clone of the project, and parameters edited.

The models are tiny and random, and lie as people's do: two LLaMAs of two sizes, in shards, with sentencepiece's tokenizer;
two BERTs, one with a `vocab.txt` alone. Parameters are changed in place and size alone.
"""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import physionet
import psutil
import sentencepiece
import torch
import transformers
import yaml
from gensim.models import KeyedVectors
from test_kills import Run, copy_of_the_project
from tokenizers.implementations import BertWordPieceTokenizer

from drgstudy.synthetic import make_hospital
from drgstudy.synthetic.icu import make_icu_hospital

VECTORS = "BioWordVec_PubMed_MIMICIII_d200.vec.bin"
MINE = {  # what a parameter or setting of this name becomes: places, and sizes
    **dict.fromkeys(["mimic", "mimic_note", "mimic3"], lambda folder: "~/physionet.org"),
    "base": lambda base: f"~/models/{Path(base).name}",
    "epochs": lambda epochs: 1.0,
    "checkpoint_steps": lambda steps: 5,
    "max_tokens": lambda tokens: tokens // 8,  # Table 2 keeps three lengths
    "resamples": lambda number: 60,
    "resamples_interval": lambda number: 60,
    "sizes": lambda sizes: [size // 16 for size in sizes],  # 12 or more, or they would look like small counts
    "sample": lambda size: min(size, 50),
    "draws": lambda draws: 5,
}


def hospitals(folder: Path, patients: int, icu_patients: int) -> tuple[Path, Path]:
    """A small hospital and its ICU, by the synthetic generator."""
    make_hospital(folder / "iv", patients=patients, seed=11, course_words=60, tail=0.05)
    make_icu_hospital(folder / "iii", patients=icu_patients, seed=11, note_words=60, tail=0.05)
    return folder / "iv", folder / "iii"


def tiny_models(folder: Path, texts: list[str]) -> None:
    """Write the bases of profile paper as tiny random models, and word vectors, into local folders."""
    torch.manual_seed(0)
    for layers, name in ((2, "llama-7b"), (3, "llama-13b")):
        (folder / name).mkdir(parents=True)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_prefix=str(folder / name / "tokenizer"), model_type="bpe",
            vocab_size=400, byte_fallback=True, max_sentence_length=100_000, minloglevel=2,
        )  # fmt: skip
        (folder / name / "tokenizer.vocab").unlink()
        sizes = {"hidden_size": 16 * layers, "intermediate_size": 48, "num_hidden_layers": layers}
        config = transformers.LlamaConfig(vocab_size=400, num_attention_heads=4, **sizes)
        transformers.LlamaForCausalLM(config).save_pretrained(folder / name, max_shard_size="20KB")
    for cased, name in ((True, "Bio_ClinicalBERT"), (False, "bert-base-uncased")):
        words = BertWordPieceTokenizer(lowercase=not cased)
        words.train_from_iterator(texts, vocab_size=400, show_progress=False)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = transformers.BertConfig(vocab_size=words.get_vocab_size(), **sizes)
        transformers.BertForMaskedLM(config).save_pretrained(folder / name, max_shard_size="20KB")
        words.save_model(str(folder / name))
        if not cased:
            transformers.BertTokenizerFast(str(folder / name / "vocab.txt")).save_pretrained(folder / name)
    assert len([*folder.glob("*/model-00002-of-*.safetensors")]) == len([*folder.glob("*/*.index.json")]) == 4
    vectors = KeyedVectors(20)
    words = sorted({word for text in texts for word in text.lower().split()})
    vectors.add_vectors(words, torch.randn(len(words), 20).numpy())
    vectors.save_word2vec_format(str(folder / VECTORS), binary=True)


def clone(root: Path) -> None:
    """The project as `git clone` gives it, without the pretrained models of this checkout."""
    copy_of_the_project(root)
    (root / "data/models").unlink(missing_ok=True)
    me = ["-c", "user.name=author", "-c", "user.email=author@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*me, "commit", "-q", "-m", "clone"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)


def edit(file: Path, **changed) -> None:
    """Change some parameters of a file."""
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changed, sort_keys=False))


def make_mine(params: Path) -> None:
    """Change a profile's places and sizes, by their names: so a file that is new in the profile is changed too."""
    for file in sorted(params.glob("*.yaml")):
        values = yaml.safe_load(file.read_text())
        settings = values.get("settings", {})
        for part in (values, settings):
            part |= {name: MINE[name](value) for name, value in part.items() if name in MINE}
        if values.get("model") in ("caml", "lstm"):  # whose epochs are defaults
            settings["epochs"] = 1.0
        if values.get("model") == "caml" and "system" in values:
            settings["vectors"] = f"~/models/{VECTORS}"
        edit(file, **values)


def notes_of(files: Path) -> list[str]:
    """The notes of a hospital laid out by `physionet`."""
    tables = {"mimic-iv-note/2.2/note/discharge.csv.gz": "text", "mimiciii/1.4/NOTEEVENTS.csv.gz": "TEXT"}
    return [text for name, column in tables.items() for text in pd.read_csv(files / name, dtype=str)[column].dropna()]


class Author:
    """Who runs make in a clone, with a home of its own, and notes down how long everything took."""

    def __init__(self, place: Path, say, patients: int = 160, icu_patients: int = 900):
        self.home, self.root, self.say, self.began = place / "home", place / "study", say, time.monotonic()
        files = physionet.lay_out(*hospitals(place / "made", patients, icu_patients), self.home)
        self.notes = notes_of(files)
        tiny_models(self.home / "models", self.notes)
        clone(self.root)
        for profile in ("paper", "published"):
            make_mine(self.root / "notebooks/params" / profile)
        shutil.rmtree(place / "made")
        self.log("hospital, ICU, four models and a clone are there")

    def log(self, what: str) -> None:
        now = time.monotonic()
        self.say(f"{now - self.began:6.0f} s  {what}")
        self.began = now

    def edit(self, step: str, **changed) -> None:
        edit(self.root / f"notebooks/params/{step}.yaml", **changed)

    def start(self, profile: str, target: str = "all") -> Run:
        return Run(self.root, target, profile, {"HOME": str(self.home), "HF_HUB_OFFLINE": "1"})

    def make(self, profile: str, target: str = "all") -> str:
        """What make says. Where it writes pages, its last act is the guard."""
        run = self.start(profile, target)
        run.finish()
        return "".join(run.said)

    def trained(self, profile: str) -> dict[Path, bytes]:
        """The records of all runs: a training that is done again leaves other times there."""
        return {file: file.read_bytes() for file in (self.root / "data" / profile).rglob("run.json")}

    def fill_in(self, sheet: str, rows: slice, **columns: str) -> None:
        """As a spreadsheet saves it."""
        table = pd.read_csv(self.root / sheet, dtype=str, keep_default_na=False)
        for name, value in columns.items():
            table.loc[rows, name] = value
        table.to_csv(self.root / sheet, index=False, encoding="utf-8-sig")


def kill_in_a_training(run: Run, folder: Path) -> None:
    """Kill make and all that it has started as soon as a checkpoint is in the folder of the run that it trains."""
    while not any(folder.glob("checkpoints-*/checkpoint-*/trainer_state.json")):
        assert run.process.poll() is None, "".join(run.said[-30:])
        time.sleep(0.005)
    process = psutil.Process(run.process.pid)
    for each in [process, *process.children(recursive=True)]:
        each.kill()
    run.process.wait()
    run.reader.join()
    assert not (folder / "run.json").exists(), "the kill came too late"


def went_on_at(run: str, said: str) -> int:
    """The per cent of its training at which a run began, from what make has said."""
    return int(re.search(rf"train-{run} [^\n]*….*?training: +(\d+)%", said, re.DOTALL)[1])
