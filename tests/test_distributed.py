"""One run on several processes: they learn what one learns from batches of their sum, and only the first one writes.

Started by torchrun or accelerate, this file is what the processes do.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from drgstudy import cohort, models, provenance, study
from drgstudy.flow import write_rows
from drgstudy.study import NOTEBOOKS, ROOT, atomic, read_json, write_json

HERE = Path(__file__).parent
Y = np.array([0, 1, 2, 3] * 6)
TRAINING = {"learning_rate": 0.02, "checkpoint_steps": 10, "max_tokens": 16}
LLAMA = TRAINING | {"pooling": "mean", "lora_dropout": 0.0, "dtype": "float32", "epochs": 10.0}
CAML = TRAINING | {"filters": 8, "dropout": 0.0, "min_count": 1, "vector_size": 8, "epochs": 6.0}
RUNS = {
    "llama": LLAMA,
    "llama-by-length": LLAMA | {"order": "by_length"},
    "llama-upper": LLAMA | {"tuned_layers": 1},
    "caml-best-epoch": CAML | {"patience": 2},
}


def network(run: str, folder: Path, base: str, processes: int):
    """The model of a run whose processes together take batches of 8."""
    name, settings = run.partition("-")[0], RUNS[run] | {"batch_size": 8 // processes}
    return models.build(name, settings | ({"base": base} if name == "llama" else {}), list("abcd"), folder / run, 7)


def judges(run: str) -> tuple | None:
    """Notes, learned by heart, by which the run chooses its best epoch."""
    from conftest import NOTES

    return (NOTES[:8], Y[:8]) if run in ("caml-best-epoch", "llama-upper") else None


def fit(folder: Path, base: str, processes: int, runs: list[str], kill: bool = False) -> None:
    """Train each of `runs`, if `kill` the first of them once in vain; each process writes its costs and logits into `folder`."""
    from conftest import NOTES

    from drgstudy import checkpoints

    def killed(self, args, state, control, **kwargs):
        if state.global_step == 11:
            raise KeyboardInterrupt

    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    for run in runs:
        if kill and run == runs[0]:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(checkpoints.Clock, "on_step_begin", killed, raising=False)
                network(run, folder, base, processes).fit(NOTES, Y, judges(run))
        made = network(run, folder, base, processes)
        cost, rank = made.fit(NOTES, Y, judges(run)), study.rank()
        np.savez(
            folder / f"{run}-{rank}.npz", logits=made.predict(NOTES), history=[str(row) for row in cost["history"]]
        )
        write_json(folder / f"{run}.json", cost)


def pretend_gpus() -> None:
    """Let accelerate take this CPU's processes for GPUs: only those does it shard."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    from drgstudy import training

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
    arguments = training.TrainingArguments
    training.TrainingArguments = lambda **options: arguments(
        **options | {"use_cpu": False, "dataloader_pin_memory": False}
    )


def launch(*command, root: Path = ROOT, **options) -> subprocess.CompletedProcess:
    """Run `command`, a module and its arguments, on the library of `root`."""
    path = os.pathsep.join([str(root / "lib"), str(HERE)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2)
ACCELERATE = ("accelerate.commands.launch", "--num_processes", 2, "--main_process_port", 0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_llama):
    """What one process learns from batches of 8."""
    folder = tmp_path_factory.mktemp("alone")
    fit(folder, str(tiny_llama), 1, list(RUNS))
    return folder


def assert_same(folder: Path, alone: Path, run: str) -> None:
    one, two = read_json(alone / f"{run}.json"), read_json(folder / f"{run}.json")
    assert two.pop("processes") == 2 and "processes" not in one
    for key in ("train_steps", "train_examples", "train_tokens"):
        assert one[key] == two[key]
    assert len(one["history"]) == len(two["history"]) > 1
    for a, b in zip(one["history"], two["history"], strict=True):
        same = [key for key in a if "runtime" not in key and "second" not in key]
        assert [b[key] for key in same] == pytest.approx([a[key] for key in same], rel=1e-3, abs=1e-5)
    logits = [np.load(file)["logits"] for file in sorted(folder.glob(f"{run}-[01].npz"))]
    assert len(logits) == 2 and np.array_equal(*logits)
    np.testing.assert_allclose(logits[0], np.load(alone / f"{run}-0.npz")["logits"], atol=1e-4)


def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(tmp_path, tiny_llama, alone):
    """Killed after its eleventh step, the first run goes on from a checkpoint that the first process wrote."""
    done = launch(*TORCHRUN, __file__, tmp_path, tiny_llama, "kill")
    assert done.returncode == 0, done.stderr
    for run in RUNS:
        assert_same(tmp_path, alone, run)
        assert (read_json(tmp_path / f"{run}.json")["seconds_before_kill"] > 0) == (run == "llama")


def test_sharded_weights_learn_the_same_and_are_saved_whole(tmp_path, tiny_llama, alone):
    done = launch(*ACCELERATE, "--config_file", ROOT / "cluster/fsdp.yaml", __file__, tmp_path, tiny_llama, "sharded")
    assert done.returncode == 0, done.stderr
    from conftest import NOTES

    for run in ("llama", "llama-upper"):
        assert_same(tmp_path, alone, run)
        restored = network(run, tmp_path, str(tiny_llama), 2)
        restored.restore()
        np.testing.assert_allclose(restored.predict(NOTES), np.load(tmp_path / f"{run}-0.npz")["logits"], atol=1e-5)


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_llama):
    """A study of its own, of 24 stays, each of them once for training and once as a test."""
    from conftest import NOTES

    root = tmp_path_factory.mktemp("study")
    shutil.copytree(ROOT / "lib", root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data/tiny").mkdir(parents=True)
    (root / "data/reference").symlink_to(ROOT / "data/reference")
    (root / "notebooks/params/tiny").mkdir(parents=True)
    for name in ("05-train.ipynb", "studies.yaml"):
        shutil.copy(NOTEBOOKS / name, root / "notebooks")
    stays = pd.DataFrame({"stay_id": range(48), "subject_id": range(48), "text": NOTES * 2, "words": 8})
    stays["drg_v34"] = np.tile(["190", "193", "280", "470"], 12)
    stays["split"] = stays["split_patients"] = ["train"] * 24 + ["test"] * 24
    write_rows(stays, root / "data/tiny/stays.parquet", cohort.STAYS, by="03-cohort")
    provenance.write_json(root / "data/tiny/flow.json", {"source": {"kind": "synthetic", "name": "tiny"}}, "03-cohort")
    settings = LLAMA | {"base": str(tiny_llama), "batch_size": 4, "head": "probe"}
    values = {"profile": "tiny", "kept_back": 0.0, "run": "two", "model": "llama", "settings": settings, "seed": 7}
    (root / "notebooks/params/tiny/05-train-two.yaml").write_text(yaml.safe_dump(values))
    return root


def test_the_notebook_runs_under_torchrun_and_is_written_once(root, tmp_path, tiny_llama):
    from conftest import NOTES

    done = launch(*TORCHRUN, "-m", "drgstudy.study", root / "notebooks/params/tiny/05-train-two.yaml", root=root)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tiny/05-train-two done in") == done.stderr.count("tiny/05-train-two …") == 1
    written = {str(file.relative_to(root / "data/tiny")) for file in (root / "data/tiny").rglob("*") if file.is_file()}
    run = {f"runs/two/{name}" for name in ("run.json", "predictions.npz")}
    adapter = {f"runs/two/adapter/{name}" for name in ("README.md", "adapter_config.json", "adapter_model.safetensors")}
    given = {"stays.parquet", "stays.made.json", "flow.json", "flow.made.json"}
    assert written == run | adapter | given | {"executed/05-train-two.ipynb", "seconds/05-train-two.json"}
    assert read_json(root / "data/tiny/runs/two/run.json")["cost"]["processes"] == 2
    settings = LLAMA | {"base": str(tiny_llama), "batch_size": 8, "head": "probe"}
    alone = models.build("llama", settings, ["190", "193", "280", "470"], tmp_path, 7)
    alone.fit(NOTES, Y)
    with np.load(root / "data/tiny/runs/two/predictions.npz") as made:
        np.testing.assert_allclose(made["logits"], alone.predict(NOTES), rtol=2**-11, atol=1e-4)


def test_what_is_wrong_everywhere_is_said_once(root):
    missing = root / "notebooks/params/tiny/05-train-missing.yaml"
    done = launch(*ACCELERATE, "--multi_gpu", "-m", "drgstudy.study", missing, root=root)
    assert (
        done.returncode and done.stderr.count("error: ") == 1 and "05-train-missing.yaml does not exist" in done.stderr
    )


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with atomic(tmp_path / "deep/model.csv.gz") as beside:
        assert beside.name == "model.csv.gz" and beside.parent.is_dir()
        beside.write_text("thrown away")
    assert not beside.exists() and not any(tmp_path.iterdir()) and study.progress([1]).disable
    monkeypatch.setenv("RANK", "0")
    write_json(tmp_path / "kept.json", 1)
    assert read_json(tmp_path / "kept.json") == 1


if __name__ == "__main__":
    folder, base, way = sys.argv[1:]
    if way == "sharded":
        pretend_gpus()
    fit(Path(folder), base, 2, ["llama", "llama-upper"] if way == "sharded" else list(RUNS), kill=way == "kill")
