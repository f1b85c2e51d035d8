"""Examples per second of DRG-LLaMA's training on a CPU: this study's recipe beside the stock one, in one run.

The stock recipe is transformers' Trainer with PEFT's LoRA over float32 weights under bfloat16 autocast, on random
batches padded to their longest note. Both see the same notes in as many steps, from the same starting head, and are then
compared by their loss on the same held-out notes.

    python benchmarks/training.py [--notes 512] [--tokens 160]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import set_seed

from drgstudy import cohort, training
from drgstudy.labels import LabelSpace
from drgstudy.models import llama
from drgstudy.study import Paths, read_params, NOTEBOOKS


def stock(model: llama.Model) -> None:
    """Undo what this study does differently: float32 weights, stock modules, autocast."""
    fresh = dataclasses.replace(model.settings, dtype="float32", order="random")
    model.settings = fresh


def run(recipe: str, settings: llama.Settings, labels, train, test, folder: Path) -> dict:
    """Train one recipe and return its speed and held-out loss."""
    accelerate = llama.accelerate_on_cpu
    if recipe == "stock":
        settings = dataclasses.replace(settings, dtype="float32", order="random")
        llama.accelerate_on_cpu = lambda net: False
    model = llama.Model(settings, labels.codes, folder, 42)
    llama.accelerate_on_cpu = accelerate
    forward = model.net.forward
    if recipe == "stock":

        def autocast(*args, **kwargs):
            with torch.autocast("cpu", torch.bfloat16):
                return forward(*args, **kwargs)

        model.net.forward = autocast
    model.folder.mkdir(parents=True)
    set_seed(42)
    cost = model.fit(train["text"].tolist(), labels.encode(train["drg_v34"]))
    logits = torch.from_numpy(model.predict(test["text"].tolist()))
    truth = torch.from_numpy(labels.encode(test["drg_v34"]))
    return {
        "recipe": recipe,
        "train_seconds": cost["train_seconds"],
        "examples_per_second": cost["train_examples"] / cost["train_seconds"],
        "tokens_per_second": cost["train_tokens"] / cost["train_seconds"],
        "held_out_loss": float(cross_entropy(logits, truth)),
        "held_out_accuracy": float((logits.argmax(1) == truth).float().mean()),
    }


def main() -> None:
    """Compare both recipes on the demo's cohort."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=0, help="0: the demo's")
    chosen = parser.parse_args()
    params = read_params(NOTEBOOKS / "params" / "demo" / "04-train-llama.yaml")
    settings = llama.Settings(**params["settings"])
    settings = dataclasses.replace(settings, epochs=1.0, max_tokens=chosen.tokens or settings.max_tokens)
    paths = Paths("demo")
    stays = cohort.read_stays(paths.stays)
    labels = LabelSpace(stays["drg_v34"])
    train = stays[stays["split"] == "train"].sample(chosen.notes, random_state=0)
    test = stays[stays["split"] == "test"]
    head = paths.runs / settings.head
    rows = []
    for recipe in ("stock", "this study"):
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / settings.head).symlink_to(head.resolve())
            rows.append(run(recipe, settings, labels, train, test, Path(scratch) / "run"))
            print(json.dumps(rows[-1]), flush=True)
    speed = training.matrix_speed(training.fast_dtype())
    weights = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    used = 4 * weights * rows[1]["tokens_per_second"] / 1e9  # forward, and backward to the inputs: 2 + 2 per weight
    print(f"ratio of examples per second: {rows[1]['examples_per_second'] / rows[0]['examples_per_second']:.2f}")
    print(f"matrix speed of this machine {speed:.0f} GFLOP/s; a step reaches {used / speed:.0%} of it")


if __name__ == "__main__":
    main()
