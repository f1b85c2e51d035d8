"""Examples per second of DRG-LLaMA's training on a CPU: this study's recipe beside the stock one, in one run.

The stock recipe is transformers' Trainer with PEFT's own LoRA over float32 weights under bfloat16 autocast, on random
batches padded to their longest note. Both see the same notes of the demo's cohort for as many steps, from a probe's head,
and are then compared by their loss on the same held-out notes.

    python benchmarks/training.py [--notes 512] [--tokens 168]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from drgstudy import cohort, training
from drgstudy.labels import LabelSpace
from drgstudy.models import llama
from drgstudy.study import NOTEBOOKS, Paths, read_params

WEIGHTS = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)  # of SmolLM2-135M's blocks


def stock(settings: llama.Settings, *rest) -> llama.Model:
    """The same model without what this study does differently."""
    accelerate, llama.accelerate_on_cpu = llama.accelerate_on_cpu, lambda net: False
    try:
        model = llama.Model(dataclasses.replace(settings, dtype="float32", order="random"), *rest)
    finally:
        llama.accelerate_on_cpu = accelerate
    model.net.forward = torch.autocast("cpu", torch.bfloat16)(model.net.forward)
    return model


def measure(build, settings, labels, train, test) -> dict:
    """Speed of one training epoch and the held-out loss after it."""
    with tempfile.TemporaryDirectory() as scratch:
        model = build(settings, labels.codes, Path(scratch) / "run", 42)
        cost = model.fit(train["text"].tolist(), labels.encode(train["drg_v34"]))
        logits = torch.from_numpy(model.predict(test["text"].tolist()))
    truth = torch.from_numpy(labels.encode(test["drg_v34"]))
    return {
        "examples/s": cost["train_examples"] / cost["train_seconds"],
        "tokens/s": cost["train_tokens"] / cost["train_seconds"],
        "held-out loss": float(cross_entropy(logits, truth)),
        "held-out accuracy": float((logits.argmax(1) == truth).float().mean()),
    }


def main() -> None:
    """Compare both recipes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=512, help="training notes")
    parser.add_argument("--tokens", type=int, default=168, help="longest note")
    chosen = parser.parse_args()
    demo = llama.Settings(**read_params(NOTEBOOKS / "params" / "demo" / "05-train-llama.yaml")["settings"])
    settings = dataclasses.replace(demo, epochs=1.0, max_tokens=chosen.tokens, features_of="")
    stays = cohort.read_stays(Paths("demo").stays)
    train = stays[stays["split"] == "train"].sample(chosen.notes, random_state=0)
    test = stays[stays["split"] == "test"]
    recipes = {"stock recipe": stock, "this study": llama.Model}
    labels = LabelSpace(stays["drg_v34"])
    table = pd.DataFrame({name: measure(build, settings, labels, train, test) for name, build in recipes.items()}).T
    print(table.round(3).to_string())
    speed = training.matrix_speed(training.fast_dtype())
    # Forward and backward to the inputs: two operations a weight and token each; the frozen weights need no gradient.
    reached = 4 * WEIGHTS * table.loc["this study", "tokens/s"] / 1e9
    print(f"{table['examples/s'].iloc[1] / table['examples/s'].iloc[0]:.2f} times the examples per second")
    print(f"matrix speed of this machine: {speed:.0f} GFLOP/s; a training step reaches {reached / speed:.0%} of it")


if __name__ == "__main__":
    main()
