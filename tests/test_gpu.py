"""What runs on a GPU, on a CPU with tiny shapes: lighter operations, quantised bases, attention without a mask, benchmark."""

import copy
import importlib.util

import gpu
import numpy as np
import pytest
import torch
from test_models import LABELS, adapted, batch, settings_of

from drgstudy import models
from drgstudy.models import llama
from drgstudy.study import StudyError, read_json


def test_lighter_operations_equal_pefts_and_transformers_in_outputs_and_gradients(tiny_llama):
    plain, found = adapted(tiny_llama), {}
    for dtype in (torch.float32, torch.bfloat16):
        for change in (lambda net: None, llama.accelerate_on_gpu):
            net = copy.deepcopy(plain)
            for name, parameter in net.named_parameters():
                if "lora" not in name:
                    parameter.data = parameter.data.to(dtype)
            change(net)
            out = net.train()(**batch(), labels=torch.tensor([1, 3]))
            out.loss.backward()
            trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
            assert len(trained) == 2 * 4 * 2 + 1 and all(p.grad.dtype == p.dtype for p in trained)
            found[dtype, change] = torch.cat(
                [out.logits.flatten().float(), *(p.grad.flatten().float() for p in trained)]
            )
    exact, light, stock_rounded, light_rounded = found.values()
    torch.testing.assert_close(light, exact, rtol=1e-4, atol=1e-6)
    assert 0 < (light_rounded - exact).norm() < 1.5 * (stock_rounded - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_trained_without_a_mask_real_tokens_are_read_as_with_one(tiny_llama, tmp_path, pooling):
    settings = settings_of(tiny_llama, pooling=pooling, lora_targets=["q_proj"])
    model = models.build("llama", settings, LABELS, tmp_path, 0)
    assert model.always_masked and not model.accelerated
    real, holes = batch()["attention_mask"].bool(), batch()
    holes["attention_mask"][:, 1] = 0  # a word masked within the text, as attribution.py does
    found = []
    for model.always_masked in (True, False):  # False: as on a GPU
        with torch.no_grad():
            trained = model.net.train()(**batch())["logits"], model._states(model.whole, **batch()).last_hidden_state
            found.append((*trained, model.net.eval()(**holes)["logits"]))
    (logits, states, without_word), (free_logits, free_states, free_without_word) = found
    torch.testing.assert_close(free_logits, logits)
    torch.testing.assert_close(free_states[real], states[real])
    assert not torch.allclose(free_states[~real], states[~real])  # what stands behind a text does differ
    assert torch.equal(free_without_word, without_word) and not torch.allclose(without_word, logits)


quantised = pytest.mark.skipif(
    not importlib.util.find_spec("bitsandbytes"), reason="bitsandbytes is not installed: make env EXTRAS=bits"
)


@pytest.fixture(scope="module")
def wider_llama(tmp_path_factory, tokenizer):
    """Folder of a LLaMA wide enough for bitsandbytes' blocks of 64 weights."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("wider-llama")
    LlamaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_without_bitsandbytes_bits_are_refused_in_one_sentence(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ask in (lambda s: models.check("llama", s), lambda s: models.build("llama", s, LABELS, tmp_path, 0)):
        with pytest.raises(StudyError, match="setting bits: 4 needs bitsandbytes; `make env EXTRAS=bits`"):
            ask(settings_of(tiny_llama, bits=4))


@quantised
@pytest.mark.parametrize(("bits", "error"), [(4, 0.2), (8, 0.03)])
def test_a_quantised_base_reads_as_the_whole_one_and_hands_gradients_down(wider_llama, tmp_path, bits, error):
    found, settings = [], settings_of(wider_llama, lora_dropout=0.0, lora_targets=["q_proj", "v_proj"])
    for stored in (16, bits):
        model = models.build("llama", settings | {"bits": stored}, LABELS, tmp_path, 0)
        list(model._frozen([[5, 6, 7], [8, 9]]))  # bitsandbytes would repack its weights here
        torch.manual_seed(1)
        for name, parameter in model.net.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.net.train()(**batch(), labels=torch.tensor([1, 3]))["loss"].backward()
        found.append({n: p.grad for n, p in model.net.named_parameters() if p.requires_grad})
        found[-1]["states"] = model._states(model.whole, **batch()).last_hidden_state
    assert len(found[0]) == 2 * 2 * 2 + 2
    for name, expected in found[0].items():
        off = (found[1][name] - expected).norm() / expected.norm()
        assert 1e-4 < off < 4 * error if "lora" in name else off < error, (name, off)


@quantised
@pytest.mark.parametrize(("bits", "tuned"), [(4, 2), (8, 2), (4, 1)])
def test_a_quantised_model_learns_and_comes_back_while_its_base_stays(wider_llama, tmp_path, notes, bits, tuned):
    from peft.tuners.lora import Linear4bit  # which is there where bitsandbytes is

    texts, y = notes
    settings = settings_of(wider_llama, bits=bits, epochs=8.0, head="probe", probe_strength=0.01, tuned_layers=tuned)
    model = models.build("llama", settings, LABELS, tmp_path, 0)
    frozen = {n: p.detach().clone() for n, p in model.net.named_parameters() if not p.requires_grad}
    assert not model.accelerated and sum(p.dtype in (torch.uint8, torch.int8) for p in frozen.values()) == 2 * 7
    assert bits == 8 or sum(isinstance(m, Linear4bit) for m in model.net.modules()) == tuned * 4
    assert not any(getattr(module, "support_avx512bf16_for_cpu", False) for module in model.net.modules())
    cost = model.fit(texts, np.array(y))
    outputs = model.predict(texts)
    assert (outputs.argmax(1) == y).all() and cost["dtype"] == f"float32, stored in {bits} bits"
    for name, parameter in model.net.named_parameters():
        assert parameter.requires_grad == ("lora_" in name or "score.modules_to_save" in name)
        assert parameter.requires_grad or torch.equal(parameter, frozen[name])
    again = models.build("llama", settings, LABELS, tmp_path, 1)
    again.restore()
    np.testing.assert_array_equal(again.predict(texts), outputs)


@pytest.mark.parametrize(
    ("setting", "says"), [({"bits": 2}, r"setting bits: expected one of \(4, 8, 16\), got 2"), ({"bits": "4"}, "bits")]
)
def test_other_bits_are_refused_in_one_sentence(tiny_llama, tmp_path, setting, says):
    with pytest.raises(StudyError, match=says) as error:
        models.build("llama", settings_of(tiny_llama) | setting, LABELS, tmp_path, 0)
    assert "\n" not in str(error.value)


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """benchmarks/gpu.py on a study without files: a function of its arguments that returns its measurements."""
    monkeypatch.setattr(gpu, "ROOT", tmp_path)

    def measurements(*arguments):
        monkeypatch.setattr("sys.argv", ["gpu.py", *arguments, "--json", str(tmp_path / "measured.json")])
        gpu.main()
        return read_json(tmp_path / "measured.json")

    return measurements


def test_without_a_gpu_every_measurement_is_there_with_its_goal_and_not_measured(benchmark):
    rows = benchmark()
    assert len(rows) == 4 + 7 + 1 and all(row["ours"] is row["met"] is row["ratio"] is None for row in rows)
    assert {row["note"] for row in rows} == {"not measured: no GPU"}
    assert [row["goal"] for row in rows[:4]] == ["at least 50 %"] * 2 + ["at most 24 GB", "at most 7 h on one H100"]
    assert rows[3]["plain"] == 151  # hours, Supplementary Table 1
    assert not any(row["goal"] for row in rows[4:])


@quantised
def test_tiny_shapes_take_the_path_of_the_large_ones_and_are_not_kept(benchmark, tmp_path):
    rows = benchmark("--tiny", "--only", "7B-512-16", "7B-512-16-stock", "7B-512-4")
    assert [row["ours"] is not None for row in rows] == [True, True, False, True, True, True, *[False] * 6]
    assert all("tiny shapes" in row["note"] for row in rows if row["ours"] and row["unit"] != "tokens/s")
    fast, four = rows[4:6]
    assert fast["ratio"] == pytest.approx(fast["ours"] / fast["plain"]) and "bfloat16" in fast["equal"]
    assert four["ours"] > 0 and four["plain"] is None and "4 bits" in four["data"]
    assert [file.name for file in tmp_path.iterdir()] == ["measured.json"]


def test_kept_runs_are_shown_where_there_is_no_gpu(benchmark, tmp_path):
    weights, rate = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 14_397.0
    run = dict(
        device="NVIDIA H100 80GB HBM3", measured_on="2026-12-01", first_logits=[1.0, 2.0], tokens_per_second=rate
    )
    run |= dict(mfu_6n=600 * weights * rate / 989e12, mfu_done=40.0, memory_gb=23.5, reserved_gb=25.0)
    run |= dict(hours=236_192 * 3 * 512 / rate / 3600)
    gpu.write_json(tmp_path / "reports" / "benchmarks" / "gpu-7B-512-16.json", run)
    stock = run | dict(first_logits=[1.01, 2.0], tokens_per_second=rate / 2, memory_gb=27.0)
    gpu.write_json(tmp_path / "reports" / "benchmarks" / "gpu-7B-512-16-stock.json", stock)
    table = {"results": {"table_1": {"llama": {"All DRGs": {"acc_at_1": {"value": 0.5}}}}}}
    gpu.write_json(tmp_path / "reports" / "gpu" / "numbers.json", table)
    convention, done, memory, hours, training, *rest, at_size = benchmark()
    assert at_size["ours"] == 0.5 and "PROFILE=gpu" in at_size["note"]
    assert convention["ours"] == pytest.approx(56.6, abs=0.1) and convention["met"] and done["met"] is False
    assert (memory["met"], memory["ours"], memory["plain"]) == (True, 23.5, 27.0) and training["ratio"] == 2
    assert hours["ours"] == pytest.approx(7.0, abs=0.01) and hours["ratio"] == pytest.approx(151 / 7, rel=1e-3)
    assert "H100" in training["note"] and not any(row["ours"] for row in rest)
    gpu.write_json(tmp_path / "reports" / "benchmarks" / "gpu-7B-512-16.json", run | {"first_logits": [2, 1]})
    with pytest.raises(AssertionError, match="logits of both recipes differ"):
        benchmark()
