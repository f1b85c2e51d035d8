"""DRG-LLaMA's training on one GPU, at the shapes of LLaMA 7B and 13B with random weights: speed, share of peak, memory.

Each run uses the study's own `llama.Model` and `training.train` with the paper's settings: LoRA of rank 8 on q, k, v
and o, 738 DRGs, batches of 4 texts of full length, bfloat16. Beside it, on 7B at 512 tokens, runs the stock recipe:
unchanged PEFT under the Trainer's autocast. Each run is kept as a file in ``reports/benchmarks``; without a GPU, the
measurements are those that were kept, or none. ``--tiny`` runs the same code with tiny shapes, also on a CPU, and keeps
nothing.

Two shares of peak are given. By convention ("6N") a token costs six operations for each weight, as if all weights were
trained, so that different recipes can be compared. Really done are four, for frozen weights need no gradient, and the
attention's.

    python benchmarks/gpu.py [--only 7B-512-16 …] [--tiny] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModel, LlamaConfig, PreTrainedTokenizerFast

from drgstudy.models import llama
from drgstudy.predictions import versions
from drgstudy.study import REFERENCE, ROOT, progress, read_json, write_json
from drgstudy.training import TokenDataset, device, predict, train

SHAPES = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
RUNS = [  # shape, tokens a text, bits of the base, recipe
    ("7B", 512, 16, "ours"), ("7B", 512, 16, "stock"), ("7B", 512, 4, "ours"), ("7B", 340, 16, "ours"),
    ("7B", 1024, 16, "ours"), ("13B", 340, 16, "ours"), ("13B", 512, 16, "ours"), ("13B", 1024, 16, "ours"),
]  # fmt: skip
PEAKS = {  # dense bfloat16 operations a second, as NVIDIA states them; the first name that fits
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "A6000": 155e12,
}  # fmt: skip
LABELS, STAYS, EPOCHS = 738, 236_192, 3  # of the paper's run
WARM, TIMED, SEED = 5, 20, 42


def name_of(shape: str, tokens: int, bits: int, recipe: str) -> str:
    """A run's name, which is also part of its file's."""
    return f"{shape}-{tokens}-{bits}" + ("" if recipe == "ours" else f"-{recipe}")


def checkpoint(shape: dict, folder: Path) -> Path:
    """Write a LLaMA of this shape with random bfloat16 weights, and a tokenizer, for `models.weights.load` to read."""
    config = LlamaConfig(vocab_size=32_000, max_position_embeddings=2048, pad_token_id=0, **shape)
    torch.manual_seed(SEED)
    with device():
        AutoModel.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    unknown = {"unk_token": "[UNK]", "pad_token": "[UNK]"}
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, **unknown).save_pretrained(folder)
    return folder


def clock() -> float:
    """The time in seconds, once the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def matrix_speed(size: int) -> float:
    """Operations per second of a bfloat16 product of two matrices of `size` by `size` on this device."""
    x = torch.randn(size, size, device=device(), dtype=torch.bfloat16)
    for turn in range(13):
        if turn == 3:
            start = clock()
        x @ x
    return 10 * 2 * size**3 / (clock() - start)


def measure(base: Path, tokens: int, bits: int, recipe: str) -> dict:
    """Train as the study does, on texts drawn at random; speed is taken from the sixth step on."""
    gc.collect()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.empty_cache()
    settings = llama.Settings(base=str(base), max_tokens=tokens, bits=bits, dtype="bfloat16", epochs=1.0)
    rng = np.random.default_rng(SEED)
    texts = (WARM + TIMED + 1) * settings.batch_size
    ids = rng.integers(1, 32_000, (texts, tokens)).tolist()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as changes:
        changes.enter_context(patch.object(llama, "accelerate_on_cpu", lambda net: False))  # with --tiny
        if recipe == "stock":
            changes.enter_context(patch.object(llama, "accelerate_on_gpu"))
        start = clock()
        model = llama.Model(settings, list(range(LABELS)), Path(scratch), SEED)
        model.always_masked = recipe == "stock"
        load_seconds, begins = clock() - start, []
        logits = predict(lambda batch: model.net.eval()(**batch)["logits"], model.collate, ids[:1])[0, :16].tolist()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        model.net.register_forward_pre_hook(lambda *_: begins.append(clock()))
        data = TokenDataset(ids, rng.integers(0, LABELS, texts))
        cost = train(model.net, model.collate, data, settings, Path(scratch), SEED, autocast=recipe == "stock")
    config = model.net.config
    width, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * width**2 + 3 * width * config.intermediate_size)
    rate = settings.batch_size * tokens * TIMED / (begins[WARM + TIMED] - begins[WARM])
    kind = torch.cuda.get_device_name() if cuda else "CPU"
    speed = matrix_speed(8192 if cuda else 256)
    peak = next((peak for name, peak in PEAKS.items() if name in kind), speed)
    return {
        "device": kind,
        "measured_on": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": versions(),
        "settings": vars(settings) | {"base": f"{config.num_hidden_layers} layers of width {width}, random weights"},
        "recipe": recipe,
        "weights": weights,
        "tokens_per_second": rate,
        "mfu_6n": 100 * 6 * weights * rate / peak,
        # A causal mask leaves half of the attention's two products; the backward pass takes twice as many operations.
        "mfu_done": 100 * (4 * weights + 6 * layers * tokens * width) * rate / peak,
        "peak_flops": peak,
        "matrix_flops": speed,
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9 if cuda else None,
        "hours": STAYS * EPOCHS * tokens / rate / 3600,
        "load_seconds": load_seconds,
        "step_seconds": np.diff(begins).tolist(),
        "first_logits": logits,
        "history": cost["history"],
    }


def published_hours(shape: str, tokens: int) -> float:
    """Training hours of the paper's models on an RTX A6000.

    Notes
    -----
    Source: DRG-LLaMA, Supplementary Table 1.
    """
    table = pd.read_csv(REFERENCE / "published_tables.csv")
    of = (table["model"] == f"DRG-LLaMA-{shape}") & (table["max_tokens"] == tokens)
    return float(table.loc[of & (table["column"] == "training_hours"), "value"].iloc[0])


def compared(run: dict | None, stock: dict | None, key: str) -> dict:
    """The stock recipe's part of a measurement; the logits of both must agree up to bfloat16's rounding."""
    if not (run and stock and run[key]):
        return {}
    logits, theirs = np.array(run["first_logits"]), np.array(stock["first_logits"])
    off = np.linalg.norm(logits - theirs) / np.linalg.norm(theirs)
    assert off < 0.1, f"the logits of both recipes differ by {off:.1%}"
    ratio = run[key] / stock[key] if key == "tokens_per_second" else stock[key] / run[key]
    equal = f"logits, to bfloat16's rounding ({off:.1%})"
    return {"plain": stock[key], "plain_is": "PEFT under the Trainer's autocast", "ratio": ratio, "equal": equal}


def measurements(found: dict[str, dict]) -> list[dict]:
    """Every measurement of the page; those without a run are marked as not measured."""
    rows = []

    def add(run: dict | None, name: str, unit: str, key: str, data: str, goal="", met=None, note="", **more) -> None:
        ours = run and run[key]
        note = f"{run['device']}, {run['measured_on']}; {note}".rstrip("; ") if run else "not measured: no GPU"
        row = {"name": name, "data": data, "unit": unit, "ours": ours, "plain": None, "plain_is": "", "ratio": None}
        row |= {"goal": goal, "met": None if ours is None or not met else met(ours), "equal": "", "note": note}
        rows.append(row | more)

    def about(shape: str, tokens: int, bits: int) -> str:
        return f"LLaMA-{shape}, random weights in {bits} bits, batches of 4 × {tokens} tokens, 738 DRGs"

    run, stock, data = found.get("7B-512-16"), found.get("7B-512-16-stock"), about("7B", 512, 16)
    half = {"goal": "at least 50 %", "met": lambda share: share >= 50}
    note = "the share that published MFUs state"
    add(run, "Share of peak, 6N convention", "% of peak", "mfu_6n", data, **half, note=note)
    note = "4N and attention: frozen weights need no gradient"
    add(run, "Share of peak, operations really done", "% of peak", "mfu_done", data, **half, note=note)
    note = f"{run['reserved_gb']:.1f} GB reserved" if run and run["reserved_gb"] else ""
    gains = compared(run, stock, "memory_gb")
    add(run, "Peak memory", "GB", "memory_gb", data, "at most 24 GB", lambda peak: peak <= 24, note, **gains)
    hours, one_h100 = published_hours("7B", 512), bool(run) and "H100" in run["device"]
    add(
        run, "The paper's run, projected", "h", "hours", f"{STAYS:,} stays × {EPOCHS} epochs, all padded to 512 tokens",
        "at most 7 h on one H100", (lambda hours: hours <= 7) if one_h100 else None, "an upper bound: many are shorter",
        plain=hours, plain_is="as published, on an RTX A6000", ratio=run and hours / run["hours"],
    )  # fmt: skip
    for shape, tokens, bits in dict.fromkeys(run[:3] for run in RUNS):
        name = name_of(shape, tokens, bits, "ours")
        run, more = found.get(name), compared(found.get(name), found.get(f"{name}-stock"), "tokens_per_second")
        if run:
            memory = "" if run["memory_gb"] is None else f", {run['memory_gb']:.1f} GB"
            more["note"] = (
                f"{run['mfu_6n']:.0f} % of peak by 6N, {run['mfu_done']:.0f} % in operations done{memory}; projected "
                f"{run['hours']:.1f} h, published {published_hours(shape, tokens):.0f} h on an A6000"
            )
        add(run, "Training", "tokens/s", "tokens_per_second", about(shape, tokens, bits), **more)
    numbers = ROOT / "reports" / "gpu" / "numbers.json"
    table = read_json(numbers)["results"]["table_1"]["llama"]["All DRGs"] if numbers.is_file() else None
    row = rows[-1] | {"name": "Top-1 accuracy at the paper's size", "unit": "", "ratio": None, "plain": None}
    row |= {"data": "params/gpu: SmolLM2-135M, the synthetic hospital", "equal": "", "plain_is": "", "goal": ""}
    row |= {"ours": table and table["acc_at_1"]["value"], "met": None, "note": "Table 1 of `make report PROFILE=gpu`"}
    return [*rows, row if table else row | {"note": "not measured: no GPU"}]


def main() -> None:
    """Measure what this machine can, keep it, print all measurements, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name_of(*run) for run in RUNS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, also on a CPU")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    kept = ROOT / "reports" / "benchmarks"
    found = {} if chosen.tiny else {name: read_json(f) for name in names if (f := kept / f"gpu-{name}.json").is_file()}
    runs = [run for run in RUNS if name_of(*run) in chosen.only] if chosen.tiny or torch.cuda.is_available() else []
    for shape in dict.fromkeys(run[0] for run in runs):
        with tempfile.TemporaryDirectory() as scratch:
            base = checkpoint(TINY if chosen.tiny else SHAPES[shape], Path(scratch))
            of_shape = [run for run in runs if run[0] == shape]
            for run in progress(of_shape, desc=f"training {shape}", unit="run"):
                _, tokens, bits, recipe = run
                done = measure(base, tokens // 32 if chosen.tiny else tokens, bits, recipe)
                if chosen.tiny:
                    done["device"] += " (tiny shapes)"
                else:
                    write_json(kept / f"gpu-{name_of(*run)}.json", done)
                found[name_of(*run)] = done
    rows = measurements(found)
    shown = [[row["name"], row["data"], row["ours"], row["unit"], row["goal"], row["note"]] for row in rows]
    print(pd.DataFrame(shown, columns=["", "on", "ours", "unit", "goal", "note"]).to_string(index=False, na_rep="–"))
    if chosen.json:
        write_json(chosen.json, rows)


if __name__ == "__main__":
    main()
