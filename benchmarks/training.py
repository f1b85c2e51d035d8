"""Examples per second of DRG-LLaMA's training on a CPU: this study's recipe beside the stock one, in one run.

The stock recipe is transformers' Trainer with PEFT's own LoRA over float32 weights under bfloat16 autocast, on random
batches that are padded to their longest note. Both recipes take the same number of steps on the same notes, start from
the same head (that of a probe), and are compared by their loss on the same held-out notes.

Then LoRA in the demo's upper layers alone, for 2.5 epochs, is compared with LoRA in all layers for one, which takes longer:
its loss on the held-out notes must not be higher by more than the tolerance.

    python benchmarks/training.py [--tokens 128 512] [--notes 512 128] [--held-out 256 96] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from drgstudy import cohort, mimic, training
from drgstudy.flow import read_rows
from drgstudy.labels import LabelSpace
from drgstudy.models import llama
from drgstudy.notes import hospital_course
from drgstudy.study import NOTEBOOKS, Paths, read_params, write_json

GOAL = 2.0  # times the examples per second
TOLERATED = 0.05  # nats of held-out loss above the stock recipe's, on top of two standard errors of the difference


def short_notes() -> pd.DataFrame:
    """text and drg_v34 of the demo's cohort, or of another one if there is none."""
    stays = next(Paths(name).stays for name in ("demo", "smoke", "gpu") if Paths(name).stays.is_file())
    return read_rows(stays, cohort.STAYS)[["text", "drg_v34"]]


def long_notes(scratch: Path) -> pd.DataFrame:
    """text and drg_v34 (the billed DRG) of the first stays of a hospital whose notes are as long as MIMIC's."""
    raw = Paths("gpu").raw
    if not (raw / "hospital.json").is_file():
        from drgstudy.synthetic import make_hospital

        raw = scratch / "raw"
        make_hospital(raw, patients=1000, seed=7, course_words=398, tail=0.1)
    drgs = mimic.read(raw, "drgcodes", ["hadm_id", "drg_type", "drg_code"])
    drgs = drgs[drgs["drg_type"] == "HCFA"].drop_duplicates("hadm_id").set_index("hadm_id")["drg_code"]
    texts: dict[int, str] = {}
    for batch in mimic.notes(raw):
        for stay, note in zip(batch["hadm_id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            if stay in drgs.index and (course := hospital_course(note)):
                texts.setdefault(stay, course)
        if len(texts) > 2000:
            break
    return pd.DataFrame({"text": pd.Series(texts), "drg_v34": drgs.reindex(list(texts)).astype("str").str.zfill(3)})


def stock(settings: llama.Settings, *rest) -> llama.Model:
    """The same model, trained as transformers and PEFT do it by themselves."""
    with (
        patch.object(llama, "accelerate_on_cpu", lambda net: False),
        patch.object(llama, "accelerate_on_gpu", lambda net: None),
    ):
        model = llama.Model(dataclasses.replace(settings, dtype="float32", order="random"), *rest)
    model.net.forward = torch.autocast("cpu", torch.bfloat16)(model.net.forward)
    return model


def operations(lengths: np.ndarray, config) -> float:
    """Operations of the matrix products in a step over texts of these lengths, without padding and LoRA's matrices.

    Each weight and token costs two operations forward, and two backward for the inputs: a frozen weight needs no
    gradient. Attention takes two products forward and four backward over the pairs of tokens that a causal model
    compares.
    """
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    weights = 2 * width**2 + 2 * width * config.num_key_value_heads * size + 3 * width * config.intermediate_size
    pairs = lengths * (lengths + 1) / 2
    return config.num_hidden_layers * float((4 * weights * lengths + 6 * 2 * width * pairs).sum())


KINDS = {  # of operations, by a part of the name of the operation or of a caller; the first that fits counts
    "optimizer": ("Optimizer", "clip_grad", "_foreach"),
    "attention": ("_CausalAttention",),
    "LoRA": ("_LoraLinear", "block_diag", "BlockDiag", "random_", "randint", "ge_", "__lshift__"),
    "norms": ("_RMSNorm",),
    "elementwise of the MLP": ("silu", "Silu"),
}


def kind_of(event, config) -> str:
    """The part of a step to which an operation of the profile belongs."""
    shapes = [shape for shape in event.input_shapes if len(shape) > 1]
    if event.name == "aten::mm" and min(min(shape) for shape in shapes) >= config.head_dim:
        return "frozen projections"
    names, caller = [event.name], event.cpu_parent
    while caller is not None:
        names.append(caller.name)
        caller = caller.cpu_parent
    for kind, parts in KINDS.items():
        if any(part in name for part in parts for name in names):
            return kind
    wide = event.name == "aten::mul" and any(shape[-1] == config.intermediate_size for shape in shapes)
    return "elementwise of the MLP" if wide else "other"


def profile_of(model: llama.Model, data: training.TokenDataset) -> dict[str, float]:
    """Shares of the processor time of three training steps, by kind of operation."""
    config = model.net.config
    optimizer = torch.optim.AdamW([p for p in model.net.parameters() if p.requires_grad], lr=0.0)
    middle = np.argsort([len(ids) for ids in data.input_ids])[len(data) // 2 :][: model.settings.batch_size]
    batch = model.collate([data[i] for i in middle])  # texts of similar length, as in training

    def step() -> None:
        model.net(**batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    model.net.train()
    step()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        for _ in range(3):
            step()
    spent: Counter = Counter()
    for event in seen.events():
        spent[kind_of(event, config)] += event.self_cpu_time_total
    return {kind: round(spent[kind] / spent.total(), 3) for kind in ["frozen projections", *KINDS, "other"]}


def demo(**changes) -> llama.Settings:
    """The demo's settings for one epoch, of a run that takes nothing from another."""
    settings = read_params(NOTEBOOKS / "params" / "demo" / "05-train-llama.yaml")["settings"]
    return llama.Settings(**settings | {"epochs": 1.0, "features_of": ""} | changes)


def drawn(notes: pd.DataFrame, n: int, held_out: int) -> tuple[pd.DataFrame, pd.DataFrame, LabelSpace]:
    """Notes to train on, others to judge by, and the labels of both: the commonest, so that there is something to learn."""
    common = notes["drg_v34"].value_counts().index[:50]
    notes = notes[notes["drg_v34"].isin(common)].sample(n + held_out, random_state=0)
    return notes[:n], notes[n:], LabelSpace(notes["drg_v34"])


def compare_layers(notes: pd.DataFrame, n: int, held_out: int, scratch: Path) -> list[dict]:
    """LoRA in the demo's tuned layers beside LoRA in all, on `n` notes and `held_out` others: two measurements."""
    train, test, labels = drawn(notes, n, held_out)
    y, truth = labels.encode(train["drg_v34"]), torch.from_numpy(labels.encode(test["drg_v34"]))
    texts, asked = train["text"].tolist(), test["text"].tolist()
    costs, losses, speed, begun = {}, {}, {}, time.perf_counter()
    probe = llama.Model(demo(epochs=0, cuts=[[30, 64]]), labels.codes, scratch / "probe", 42)
    probe.fit(texts, y)
    probe.predict(asked)
    passed = time.perf_counter() - begun
    recipes = {"upper": demo(epochs=2.5, features_of="probe"), "all": demo(tuned_layers=0, features_of="probe")}
    for name, settings in recipes.items():
        model = llama.Model(settings, labels.codes, scratch / name, 42)
        costs[name] = model.fit(texts, y)
        begun = time.perf_counter()
        losses[name] = float(cross_entropy(torch.from_numpy(model.predict(asked)), truth))
        speed[name] = held_out / (time.perf_counter() - begun)
    ours, plain = (costs[name]["train_examples"] / costs[name]["train_seconds"] for name in recipes)
    equal = losses["upper"] <= losses["all"] + TOLERATED
    about = {
        "data": f"{n} notes, {held_out} others, SmolLM2-135M",
        "unit": "stays/s",
        "equal": "the base, notes and head",
    }
    seconds = {name: f"{cost['train_seconds']:.0f} s" for name, cost in costs.items()}
    return [
        about
        | {"name": f"LoRA in {recipes['upper'].tuned_layers} of 30 layers, training", "ours": ours, "plain": plain}
        | {"plain_is": "LoRA in all layers", "ratio": ours / plain, "goal": "at least 3 times", "met": equal and ours >= 3 * plain}
        | {"note": f"held-out loss {losses['upper']:.3f} after {seconds['upper']}, {losses['all']:.3f} after {seconds['all']};"
        f" {passed:.0f} s before that for the frozen layers of all {n + held_out}, once for all runs"},
        about
        | {"name": "the same, prediction", "ours": speed["upper"], "plain": speed["all"], "plain_is": "through all layers"}
        | {"ratio": speed["upper"] / speed["all"], "goal": "at least twice", "met": speed["upper"] >= 2 * speed["all"]}
        | {"note": "of stays whose frozen states are kept"},
    ]  # fmt: skip


def compare(notes: pd.DataFrame, tokens: int, n: int, held_out: int, scratch: Path) -> dict:
    """Train both recipes on `n` notes, and compare them on `held_out` others; return one measurement."""
    settings = demo(max_tokens=tokens, tuned_layers=0)
    train, test, labels = drawn(notes, n, held_out)
    y, truth = labels.encode(train["drg_v34"]), torch.from_numpy(labels.encode(test["drg_v34"]))
    ours = llama.Model(settings, labels.codes, scratch / f"ours-{tokens}", 42)
    ours.folder.mkdir()
    ids = ours.tokens(train["text"].tolist())
    ours._start_head(ours._kept(ids).pooled(ids).numpy(), y)
    head = ours.score.modules_to_save["default"].weight.detach().clone()
    speed, losses = {}, {}
    for name, build in {"ours": llama.Model, "stock": stock}.items():
        kept = dataclasses.replace(settings, head="random")
        model = build(kept, labels.codes, scratch / f"{name}-{tokens}", 42)
        model.score.modules_to_save["default"].weight.data.copy_(head)
        cost = model.fit(train["text"].tolist(), y)
        speed[name] = cost["train_examples"] / cost["train_seconds"]
        losses[name] = cross_entropy(torch.from_numpy(model.predict(test["text"].tolist())), truth, reduction="none")
        if name == "ours":
            start = float(cross_entropy(torch.from_numpy(ours.predict(test["text"].tolist())), truth))
    apart = losses["ours"] - losses["stock"]
    difference, error = float(apart.mean()), float(apart.std() / len(apart) ** 0.5)
    assert difference <= 2 * error + TOLERATED, f"{tokens} tokens: held-out loss {difference:+.3f} ± {error:.3f}"
    matrix_speed = training.matrix_speed(ours.dtype)
    done = operations(np.array([len(row) for row in ids]), ours.net.config) / n * speed["ours"] / 1e9
    means = {name: round(float(values.mean()), 3) for name, values in losses.items()}
    return {
        "name": f"DRG-LLaMA training, {tokens} tokens",
        "data": f"{n} notes of {np.mean([len(row) for row in ids]):.0f} tokens, SmolLM2-135M",
        "unit": "examples/s",
        "ours": speed["ours"],
        "plain": speed["stock"],
        "plain_is": "Trainer, PEFT, random batches padded to their longest, autocast",
        "ratio": speed["ours"] / speed["stock"],
        "goal": "at least twice at equal held-out loss",
        "met": speed["ours"] >= GOAL * speed["stock"],
        "equal": f"held-out loss, no more than {TOLERATED} and two standard errors above the stock recipe's",
        "note": f"loss on {held_out} other notes: {start:.3f} before, {means['ours']} after, {means['stock']} stock "
        f"(difference {difference:+.3f} ± {error:.3f}); a step reaches {done / matrix_speed:.0%} of the {matrix_speed:.0f} "
        "GFLOP/s at which this machine multiplies",
        "profile": profile_of(ours, training.TokenDataset(ids, y)),
        "matrix_share": done / matrix_speed,
        "matrix_gflops": matrix_speed,
    }


def main() -> None:
    """Compare both recipes at each length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512], help="where longer notes are cut")
    parser.add_argument("--notes", type=int, nargs="+", default=[512, 128], help="training notes at each length")
    parser.add_argument("--held-out", type=int, nargs="+", default=[256, 96], help="held-out notes at each length")
    parser.add_argument("--json", type=Path, help="where the measurements go")
    chosen = parser.parse_args()
    measurements = []
    with tempfile.TemporaryDirectory() as scratch:
        for tokens, n, held_out in zip(chosen.tokens, chosen.notes, chosen.held_out, strict=True):
            notes = short_notes() if tokens < 256 else long_notes(Path(scratch))
            measurements.append(compare(notes, tokens, n, held_out, Path(scratch)))
            row = measurements[-1]
            print(f"{row['name']}: {row['ours']:.2f} examples/s, stock {row['plain']:.2f}: {row['ratio']:.2f} times")
            print(f"  {row['note']}\n  shares of a step: {row['profile']}", flush=True)
        if chosen.json:
            write_json(chosen.json, measurements)
        for row in compare_layers(short_notes(), chosen.notes[0], chosen.held_out[0], Path(scratch)):
            measurements.append(row)
            print(
                f"{row['name']}: {row['ours']:.2f} stays/s, {row['plain']:.2f}: {row['ratio']:.2f} times; {row['note']}"
            )
    if chosen.json:
        write_json(chosen.json, measurements)


if __name__ == "__main__":
    main()
