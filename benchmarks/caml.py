"""Training examples per second of this study's CAML beside the textbook's, on the same batches, to the same logits.

The textbook's (Mullenbach et al. 2018) is an nn.Conv1d over padded texts, a softmax of every label over every position,
one attended vector for each text and label, and its product with the label's weights, all in float32. Both train from
the same start on the same random batches with the same AdamW, in turns. The best turn of each counts, from collating to
the step.

    python benchmarks/caml.py [--steps 4] [--turns 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from drgstudy import cohort
from drgstudy.flow import read_rows
from drgstudy.models import caml
from drgstudy.study import Paths, progress, write_json
from drgstudy.training import PadRight, fast_dtype, matrix_speed

GOAL, BATCH, FILTERS, KERNEL, SIZE = 2.0, 32, 256, 5, 100
SHARES = {  # of a step, by the operators that spend it
    "products of the attention": ("aten::mkldnn_linear", "aten::mm", "aten::addmm"),
    "convolution": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "copies between layouts": ("aten::copy_", "aten::to_mkldnn", "aten::_to_dense"),
    "random numbers of the dropout": ("aten::bernoulli_",),
    "optimizer": ("aten::_fused_adamw_",),
}


class Textbook(caml.Network):
    """The same parameters, used as in the textbook, but with padding masked as in ours."""

    def forward(self, input_ids, attention_mask, labels=None):
        features = torch.tanh(self.conv(self.dropout(self.embed(input_ids)).transpose(1, 2))).transpose(1, 2)
        scores = self.query(features).masked_fill(attention_mask.unsqueeze(-1) == 0, -torch.inf)
        read = scores.softmax(1).transpose(1, 2) @ features  # (texts, labels, filters)
        logits = self.score.weight.mul(read).sum(2) + self.score.bias
        return {"logits": logits} if labels is None else {"logits": logits, "loss": cross_entropy(logits, labels)}


def made_up(mean: float, cut: int, texts: int) -> list[list[int]]:
    """Texts, as word ids, of log-normal length around `mean` words, cut at `cut`. Of 30,000 words, few are frequent."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(10, 30_010)
    lengths = rng.lognormal(np.log(mean) - 0.08, 0.4, texts).clip(20, cut).astype(int)
    return [(2 + rng.choice(30_000, n, p=frequency / frequency.sum())).tolist() for n in lengths]


def of_the_demo(texts: int) -> list[list[int]]:
    """The demo cohort's training notes as word ids, cut at 200 words."""
    stays = read_rows(Paths("demo").stays, cohort.STAYS)
    notes = [caml.words_of(note) for note in stays.loc[stays["split"] == "train", "text"]]
    ids = {word: i + 2 for i, (word, _) in enumerate(Counter(word for note in notes for word in note).most_common())}
    return [[ids[word] for word in note[:200]] for note in notes[:texts]]


def train(net: nn.Module, batches: list[list[dict]], bfloat16: bool = False) -> tuple[float, list[float]]:
    """Examples per second of one pass over the batches, and their losses; `net` is left as it was."""
    net = copy.deepcopy(net).train()
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True), []
    start = time.perf_counter()
    for rows in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = net(**PadRight(caml.PAD)(rows))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return sum(map(len, batches)) / (time.perf_counter() - start), losses


def profile(net: nn.Module, batches: list[list[dict]]) -> dict[str, float]:
    """Shares of the processor time of a training pass over the batches, by kind of operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        train(net, batches)
    spent = Counter({event.key: event.self_cpu_time_total for event in profiler.key_averages()})
    shares = {what: sum(spent[key] for key in keys) / spent.total() for what, keys in SHARES.items()}
    return shares | {"all else": 1 - sum(shares.values())}


def logits_and_gradients(net: nn.Module, batch: dict) -> list[torch.Tensor]:
    """Logits, and the gradient of the loss by each parameter."""
    out = net(**batch)
    return [out["logits"].detach(), *torch.autograd.grad(out["loss"], list(net.parameters()))]


def measure(name: str, data: str, texts: list[list[int]], labels: int, goal: str, turns: int) -> dict:
    """Measure both implementations on the same texts, after a check that they compute the same function."""
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, labels, len(texts))
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(texts, drawn, strict=True)]
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    torch.manual_seed(0)
    vectors = rng.normal(0, 0.3, (2 + max(map(max, texts)), SIZE)).astype(np.float32)
    vectors[caml.PAD] = 0
    ours = caml.Network(vectors, labels, KERNEL, FILTERS, dropout=0.0)
    plain = Textbook(vectors.copy(), labels, KERNEL, FILTERS, dropout=0.0)
    with torch.no_grad():  # makes the attention far from uniform
        ours.query.weight.mul_(10)
    plain.load_state_dict(ours.state_dict())

    batch = PadRight(caml.PAD)(batches[0])
    found, expected = logits_and_gradients(ours, batch), logits_and_gradients(plain, batch)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        off = float((ours(**batch)["logits"].float() - expected[0]).abs().max())
    np.testing.assert_allclose(train(ours, batches)[1], train(plain, batches)[1], rtol=1e-3)

    ours.dropout.p = plain.dropout.p = 0.2
    fast = fast_dtype() == torch.bfloat16
    speeds = [
        (train(ours, batches)[0], train(plain, batches)[0], train(ours, batches, bfloat16=True)[0] if fast else np.nan)
        for _ in progress(range(turns), desc=name, unit="turn")
    ]
    speed, plainly, in_bfloat16 = np.max(speeds, axis=0).tolist()
    words = np.mean([len(ids) for ids in texts])
    # Three products (convolution, query, score), once forward and twice backward; two operations per multiplication.
    operations = 3 * 2 * words * FILTERS * (KERNEL * SIZE + 2 * labels)
    reached = speed * operations / 1e9 / matrix_speed(torch.float32)
    positions = sum(len(rows) * max(len(row["input_ids"]) for row in rows) for rows in batches)
    note = f"{1 - words * len(texts) / positions:.0%} of the textbook's positions are padding; "
    note += f"a step multiplies at {reached:.2f} times the float32 speed of torch's own products"
    if fast:
        note += f"; in bfloat16 (a setting) {in_bfloat16:.0f} examples/s, {in_bfloat16 / plainly:.1f} times the "
        note += f"textbook's in float32, with logits up to {off:.2g} off"
    return {
        "name": name,
        "data": f"{data}: {len(texts):,} texts of {words:.0f} words on average, {labels} labels, batches of {BATCH}",
        "unit": "examples/s",
        "ours": speed,
        "plain": plainly,
        "plain_is": "nn.Conv1d and a full softmax attention over padded texts, float32",
        "ratio": speed / plainly,
        "goal": goal,
        "met": speed / plainly >= GOAL if goal else None,
        "equal": "logits to 1e-4, gradients to 1e-4 of their largest, losses of the same steps to 1e-3",
        "note": note,
        "profile": profile(ours, batches),
    }


def main() -> None:
    """Measure each shape, print a table, and write the measurements where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="steps in a turn; a third of them with 2,000 words")
    parser.add_argument("--turns", type=int, default=3, help="turns of which the best counts")
    parser.add_argument("--labels", type=int, default=738)
    parser.add_argument("--json", type=Path, help="where to write the measurements")
    chosen = parser.parse_args()
    few, many = BATCH * max(1, chosen.steps // 3), BATCH * chosen.steps
    wanted = "at least twice"
    cases = [
        ("CAML, 512 words", "made-up texts around 398 words", made_up(398, 512, many), chosen.labels, wanted),
        ("CAML, 2,000 words", "made-up texts around 1,200 words", made_up(1200, 2000, few), chosen.labels, wanted),
        ("CAML, 512 words, no padding", "made-up texts", [x[:512] for x in made_up(1e6, 512, many)], chosen.labels, ""),
    ]
    if Paths("demo").stays.exists():
        cases.append(("CAML, the demo's notes", "the demo's cohort", of_the_demo(4 * many), 99, ""))
    found = [measure(*case, chosen.turns) for case in cases]
    table = pd.DataFrame(found).set_index("name")
    print(table[["ours", "plain", "ratio", "met"]].round(2).to_string(), *table["note"], sep="\n")
    print(pd.DataFrame(table["profile"].to_dict()).map("{:.0%}".format).to_string())
    if chosen.json:
        write_json(chosen.json, found)


if __name__ == "__main__":
    main()
