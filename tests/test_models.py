"""Each model against an independent implementation on a tiny configuration, and the promises that runs rely on."""

import copy
import dataclasses
import hashlib
import json
import shutil
import types

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from drgstudy import checkpoints, models, training
from drgstudy.drgs import CC_LABELS
from drgstudy.models import bert, caml, fast_lora, frozen, llama, tfidf
from drgstudy.models.pooling import pool
from drgstudy.study import StudyError
from drgstudy.training import ByLength, PadRight

LABELS = ["001", "002", "003", "004"]


def settings_of(base, **changes):
    defaults = dict(base=str(base), dtype="float32", max_tokens=32, epochs=2.0, batch_size=4, learning_rate=1e-2)
    return dataclasses.asdict(llama.Settings(**(defaults | changes)))


def adapted(base, dropout=0.0, layers=None):
    """A PEFT model whose adapters, in some layers or in all, are not zero, so that they matter."""
    torch.manual_seed(1)
    net = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    options = {"r": 3, "lora_alpha": 5, "lora_dropout": dropout, "layers_to_transform": layers}
    config = LoraConfig(task_type="SEQ_CLS", target_modules=targets, **options)
    net = get_peft_model(net, config)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return net


def batch(left=False):
    ids = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    if left:
        ids[1], mask[1] = ids[1].roll(2), mask[1].roll(2)
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize(("left", "layers"), [(False, None), (True, None), (False, [1])])
def test_accelerated_lora_equals_peft_in_outputs_and_gradients(tiny_llama, left, layers):
    plain = adapted(tiny_llama, layers=layers)
    fast = copy.deepcopy(plain)
    assert fast_lora.accelerate_on_cpu(fast)
    grads = []
    for net in (plain, fast):
        net.train()
        out = net(**batch(left), labels=torch.tensor([1, 3]))
        out.loss.backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if p.requires_grad})
        net.eval()
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch(left)).logits, plain(**batch(left)).logits, rtol=1e-4, atol=1e-5)
    assert len(grads[0]) == 2 * 4 * len(layers or [0, 1]) + 1  # A and B of four projections a layer, and the head
    for name, expected in grads[0].items():
        assert expected.abs().max() > 0
        torch.testing.assert_close(grads[1][name], expected, rtol=1e-3, atol=1e-6)


def test_fast_dropout_keeps_the_mean_and_the_rate():
    torch.manual_seed(0)
    mask = fast_lora._keep_mask(torch.ones(1000, 1001), 0.05)
    assert (mask == 0).float().mean() == pytest.approx(13 / 256, abs=1e-3)
    assert mask.mean() == pytest.approx(1, abs=1e-3)


def test_acceleration_refuses_what_it_does_not_know(tiny_bert):
    assert not fast_lora.accelerate_on_cpu(BertForSequenceClassification.from_pretrained(tiny_bert))


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_side_does_not_change_a_prediction(tiny_llama, tmp_path, pooling):
    model = models.build("llama", settings_of(tiny_llama, pooling=pooling), LABELS, tmp_path, 0)
    model.net.eval()
    with torch.no_grad():
        right, left = (model.net(**batch(side))["logits"] for side in (False, True))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_adapter_loads_with_plain_peft_to_the_same_logits(tiny_llama, tmp_path, notes):
    texts, y = notes
    model = models.build("llama", settings_of(tiny_llama, lora_dropout=0.05), LABELS, tmp_path, 0)
    model.fit(texts, np.array(y))
    torch.manual_seed(99)  # another random head: it must come from the adapter's files
    base = AutoModelForSequenceClassification.from_pretrained(tiny_llama, num_labels=4)
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    rows = PadRight(model.tokenizer.pad_token_id)([{"input_ids": ids} for ids in model.tokens(texts[:4])])
    with torch.no_grad():
        np.testing.assert_allclose(plain(**rows).logits.numpy(), model.predict(texts[:4]), rtol=1e-4, atol=1e-4)


def test_llama_learns_and_a_suffix_is_always_read(tiny_llama, tmp_path, notes):
    texts, y = notes
    settings = settings_of(tiny_llama, suffix="diagnosis", max_tokens=6, epochs=8.0)
    model = models.build("llama", settings, LABELS, tmp_path, 0)
    suffix = model.tokenizer("diagnosis").input_ids
    assert all(ids[-1:] == suffix and len(ids) <= 6 for ids in model.tokens(texts))
    cost = model.fit(texts, np.array(y))
    assert (model.predict(texts).argmax(1) == y).all()
    assert cost["train_steps"] == 48 and cost["train_examples"] == 192


def test_frozen_probe_trains_nothing_but_the_head_and_hands_its_states_on(tiny_llama, tmp_path, notes, monkeypatch):
    texts, y = notes
    frozen = settings_of(tiny_llama, epochs=0.0, head="probe", probe_strength=10.0, cuts=[[1, 32]])
    probe = models.build("llama", frozen, LABELS, tmp_path / "probe-run", 0)
    probe.fit(texts, np.array(y))
    expected = probe.predict(texts)
    assert (expected.argmax(1) == y).all()
    heir = models.build("llama", frozen | {"features_of": "probe-run", "cuts": []}, LABELS, tmp_path / "llama", 0)
    heir.fit(texts, np.array(y))
    np.testing.assert_allclose(heir.predict(texts), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(heir, "_frozen", None)  # it must not compute what the probe has left
    heir.fit(texts[:8], np.array(y[:8]))
    with pytest.raises(TypeError):
        heir.fit([*texts, "a text that the probe has not read"], np.array([*y, 0]))
    monkeypatch.undo()
    heir.fit([*texts, "a text that the probe has not read"], np.array([*y, 0]))
    kept = [*(tmp_path / "probe-run" / "frozen").iterdir()]
    assert len(kept) == 1 and not any(
        b"ids" in file.read_bytes()[:400] for file in kept
    )  # no text, not as tokens either
    lost = models.build("llama", frozen | {"features_of": "no-such-run"}, LABELS, tmp_path / "lost", 0)
    with pytest.raises(StudyError, match="no-such-run"):
        lost.fit(texts, np.array(y))


def test_one_pass_gives_the_features_of_fewer_layers_and_tokens(tiny_llama, tmp_path, notes, monkeypatch):
    texts, y = notes
    for pooling in ("mean", "last"):
        frozen = settings_of(tiny_llama, epochs=0.0, head="probe", probe_strength=10.0, pooling=pooling)
        whole = frozen | {"cuts": [[1, 32], [2, 3], [1, 3]]}
        models.build("llama", whole, LABELS, tmp_path / pooling, 0).fit(texts, np.array(y))
        for cut in ({}, {"layers": 1}, {"max_tokens": 3}, {"layers": 1, "max_tokens": 3}):
            alone = models.build("llama", frozen | cut, LABELS, tmp_path / "alone", 0)
            ids = alone.tokens(texts)
            expected = alone._kept(ids).pooled(ids)
            shutil.rmtree(tmp_path / "alone" / "frozen")
            heir = models.build("llama", frozen | cut | {"features_of": pooling}, LABELS, tmp_path / "heir", 0)
            monkeypatch.setattr(heir, "_frozen", None)
            torch.testing.assert_close(heir._kept(ids).pooled(ids), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(StudyError, match="setting cuts"):
        models.build("llama", whole | {"suffix": "diagnosis"}, LABELS, tmp_path, 0)


def test_of_frozen_layers_the_states_are_kept_and_training_reads_them(tiny_llama, tmp_path, notes, monkeypatch):
    texts, y = notes
    settings = settings_of(tiny_llama, tuned_layers=1, epochs=8.0, head="probe", probe_strength=0.1)
    probe = settings | {"epochs": 0.0, "cuts": [[2, 3]]}
    source = models.build("llama", probe, LABELS, tmp_path / "source", 0)
    source.fit(texts, np.array(y))
    source.predict(["a text of the test stays", *texts])
    for cut in ({}, {"max_tokens": 3}):
        made = {}
        for run, of in {"alone": "", "heir": "source"}.items():
            model = models.build("llama", settings | cut | {"features_of": of}, LABELS, tmp_path / run, 0)
            monkeypatch.setattr(model, "_frozen", None if of else model._frozen)
            model.fit(texts, np.array(y), (texts[:4], np.array(y[:4])))
            made[run] = model.predict(texts)
            with torch.no_grad():
                batch = model.collate([{"input_ids": ids} for ids in model.tokens(texts)])
                hidden = model._states(model.whole, **batch).last_hidden_state  # straight through all layers
                whole = model.score(pool(hidden, batch["attention_mask"], "last"))
            np.testing.assert_allclose(made[run], whole, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(made["heir"], made["alone"], rtol=1e-3, atol=1e-3)
        assert (made["heir"].argmax(1) == y).mean() > 0.9
        again = models.build("llama", settings | cut | {"features_of": "source"}, LABELS, tmp_path / "heir", 1)
        again.restore()
        np.testing.assert_allclose(again.predict([*texts, "a new text"])[:-1], made["heir"], rtol=1e-4, atol=1e-4)
    names = load_file(tmp_path / "heir" / "adapter" / "adapter_model.safetensors")
    assert {name.split("layers.")[1][0] for name in names if "lora" in name} == {"1"}  # as in the whole model
    with pytest.raises(StudyError, match="setting tuned_layers: expected at most the base's 2 layers"):
        models.build("llama", settings | {"tuned_layers": 3}, LABELS, tmp_path, 0)
    with pytest.raises(StudyError, match="setting cuts: expected 1 to 2 layers"):
        models.build("llama", settings | {"cuts": [[3, 8]]}, LABELS, tmp_path, 0)
    monkeypatch.setattr(frozen.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=100))
    full = models.build("llama", settings, LABELS, tmp_path / "full", 0)
    with pytest.raises(StudyError, match="setting tuned_layers: the frozen layers' states of these texts take"):
        full.fit(texts, np.array(y))
    assert not (tmp_path / "full" / "frozen").exists()


def test_a_killed_pass_over_texts_goes_on_after_its_last_whole_file(tiny_llama, tmp_path, notes, monkeypatch):
    monkeypatch.setattr(frozen, "TEXTS", 8)
    model = models.build("llama", settings_of(tiny_llama, tuned_layers=1), LABELS, tmp_path, 0)
    ids, passes = [[2, 5 + i % 10, 5 + i // 10] for i in range(24)], model._frozen
    monkeypatch.setattr(
        model, "_frozen", lambda texts: (row if i < 12 else 1 / 0 for i, row in enumerate(passes(texts)))
    )
    with pytest.raises(ZeroDivisionError):
        model._kept(ids)
    computed = []
    monkeypatch.setattr(model, "_frozen", lambda texts: passes(computed.append(len(texts)) or texts))
    kept = model._kept(ids)
    assert computed == [len(ids) - 8] and all(row in kept for row in ids)


def test_a_model_cut_to_its_first_layers_is_transformers_own(tiny_llama, tmp_path):
    model = models.build("llama", settings_of(tiny_llama, layers=1), LABELS, tmp_path, 0)
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_llama, num_labels=4)
    with torch.no_grad():
        ours = model.net.base_model.model.model(**batch()).last_hidden_state
        states = plain.model(**batch(), output_hidden_states=True).hidden_states
        torch.testing.assert_close(ours[0], plain.model.norm(states[1])[0], rtol=1e-4, atol=1e-5)


def test_two_label_loss_is_the_base_drgs_plus_half_the_severitys():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 12), torch.tensor([[0, 1], [3, 4], [6, 0], [2, 2], [5, 3], [1, 1]])
    base, severity = logits[:, :7].log_softmax(1), logits[:, 7:].log_softmax(1)
    by_hand = -sum(base[i, a] + 0.5 * severity[i, b] for i, (a, b) in enumerate(labels.tolist())) / 6
    torch.testing.assert_close(llama.label_loss(logits, labels, 0.5), by_hand)
    torch.testing.assert_close(
        llama.label_loss(logits, labels[:, 0], 0.5), torch.nn.functional.cross_entropy(logits, labels[:, 0])
    )


@pytest.mark.parametrize("head", ["random", "probe"])
def test_llama_learns_two_labels_and_comes_back_from_its_folder(tiny_llama, tmp_path, notes, head):
    texts, y = notes
    two = np.array([[label, label % 2] for label in y])
    settings = settings_of(tiny_llama, epochs=8.0, head=head, probe_strength=0.1)
    model = models.build("llama", settings, ["a", "b", "c", "d", *range(5)], tmp_path, 0)
    model.fit(texts, two)
    outputs = model.predict(texts)
    assert outputs.shape == (24, 9)
    assert (outputs[:, :4].argmax(1) == two[:, 0]).all() and (outputs[:, 4:].argmax(1) == two[:, 1]).all()
    again = models.build("llama", settings, ["a", "b", "c", "d", *range(5)], tmp_path, 1)
    again.restore()
    np.testing.assert_array_equal(again.predict(texts), outputs)
    with pytest.raises(StudyError, match="model 'tfidf' gives one label a stay"):
        models.build("tfidf", {}, ["a", *CC_LABELS], tmp_path, 0)


class Killed(Exception):
    pass


@pytest.mark.parametrize("order", ["random", "by_length"])
@pytest.mark.parametrize("step", [4, 8, 11])  # before the first checkpoint, and in the second epoch
def test_a_killed_run_goes_on_to_the_same_weights(tiny_llama, tmp_path, notes, monkeypatch, order, step):
    texts, y = notes
    settings = settings_of(tiny_llama, checkpoint_steps=5, lora_dropout=0.05, order=order)
    whole = models.build("llama", settings, LABELS, tmp_path / "whole", 0)
    whole.fit(texts, np.array(y))
    monkeypatch.setattr("drgstudy.checkpoints.Clock.on_step_end", _kill_at(step))
    broken = models.build("llama", settings, LABELS, tmp_path / "broken", 0)
    with pytest.raises(Killed):
        broken.fit(texts, np.array(y))
    monkeypatch.undo()
    for left in (tmp_path / "broken").glob("checkpoints-*"):
        for number in ("98", "99"):
            (left / f"checkpoint-{number}").mkdir()  # a kill while one was being saved
        (left / "checkpoint-98" / "trainer_state.json").write_text('{"epoch": 0.')
    again = models.build("llama", settings, LABELS, tmp_path / "broken", 0)
    cost = again.fit(texts, np.array(y))
    assert cost["train_steps"] == 12 and (cost["seconds_before_kill"] > 0) == (step > 5)
    np.testing.assert_allclose(again.predict(texts), whole.predict(texts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 7, 8, 203])
def test_order_by_length_is_a_permutation_with_little_padding_and_repeats_itself(n):
    lengths = np.random.default_rng(0).integers(40, 200, n).tolist()
    order = list(sampler := ByLength(lengths, 4, seed=1))
    assert sorted(order) == list(range(n)) and order == list(ByLength(lengths, 4, seed=1))
    sampler.set_epoch(1)
    assert n < 8 or list(sampler) != order
    if n > 200:
        padded = sum(4 * max(lengths[i] for i in order[k : k + 4]) for k in range(0, n, 4))
        assert padded < 1.1 * sum(lengths)


def _kill_at(step):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise Killed

    return on_step_end


def test_bert_equals_transformers_and_learns(tiny_bert, tmp_path, notes):
    texts, y = notes
    settings = dict(base=str(tiny_bert), epochs=15.0, batch_size=4, learning_rate=1e-3, max_tokens=32)
    model = models.build("bert", settings, LABELS, tmp_path, 0)
    model.fit(texts, np.array(y))
    assert (model.predict(texts).argmax(1) == y).all()
    rows = model.collate([{"input_ids": ids} for ids in model.tokens(texts[:4])])
    with torch.no_grad():
        expected = model.net(**rows).logits.numpy()
    np.testing.assert_allclose(model.predict(texts[:4]), expected, atol=1e-5)
    mean = models.build("bert", settings | {"pooling": "mean"}, LABELS, tmp_path / "mean", 0)
    assert np.isfinite(mean.predict(texts)).all()


def test_caml_equals_a_loop_over_labels_and_never_sees_padding():
    vectors = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    vectors[caml.PAD] = 0
    net = caml.Network(vectors, labels=3, kernel=5, filters=7, dropout=0.0).eval()
    ids = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 10, 11, 0, 0, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        logits = net(ids, mask)["logits"]
        for row, length in enumerate((6, 3)):
            words = net.embed(ids[row])[None].transpose(1, 2)
            features = torch.tanh(net.conv(words))[0].T[:length]
            for label in range(3):
                attention = torch.softmax(features @ net.query.weight[label], 0)
                read = (attention[:, None] * features).sum(0)
                expected = read @ net.score.weight[label] + net.score.bias[label]
                torch.testing.assert_close(logits[row, label], expected)
        longer = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], 1)
        torch.testing.assert_close(net(longer, (longer > 0).long())["logits"], logits)


def test_caml_learns_and_repeats_itself(tmp_path, notes):
    texts, y = notes
    settings = dict(epochs=30.0, batch_size=4, learning_rate=3e-3, filters=16, vector_size=12, min_count=1, patience=0)
    outputs = []
    for name in ("a", "b"):
        model = models.build("caml", settings, LABELS, tmp_path / name, 3)
        model.fit(texts, np.array(y))
        outputs.append(model.predict([*texts, "", "word-never-seen"]))
    np.testing.assert_array_equal(*outputs)
    assert (outputs[0][:-2].argmax(1) == y).all()


SMALL = dict(epochs=12.0, batch_size=4, learning_rate=3e-3, filters=16, vector_size=12, min_count=1)


def test_the_best_epoch_is_judged_by_the_stays_given_for_it(tmp_path, notes):
    texts, y = notes[0], np.array(notes[1])
    ends = {}
    for name, judged in {"right": y, "wrong": (y + 1) % 4}.items():
        model = models.build("caml", SMALL | {"patience": 2}, LABELS, tmp_path / name, 3)
        cost = model.fit(texts, y, (texts[:8], judged[:8]))
        seen = [entry["eval_accuracy"] for entry in cost["history"] if "eval_accuracy" in entry]
        assert (model.predict(texts[:8]).argmax(1) == judged[:8]).mean() == max(seen)
        assert cost["train_examples"] == 24 * len(seen)  # none of the training stays is kept back
        ends[name] = seen
    assert max(ends["right"]) == 1 and len(ends["wrong"]) < len(ends["right"]) and ends["wrong"][-1] == 0


def test_two_labels_are_right_if_both_are():
    outputs = np.zeros((3, 2 + 5), np.float32)
    outputs[:, 1] = outputs[:, 4] = 1  # base DRG 1, CC/MCC label 2
    assert training._right(outputs, np.array([[1, 2], [0, 2], [1, 0]])).tolist() == [True, False, False]
    assert training._right(outputs, np.array([1, 4, 0])).tolist() == [True, False, False]


@pytest.mark.parametrize("as_array", [False, True])
def test_checkpoints_are_of_one_training(tmp_path, as_array):
    ids = np.ones((3, 2, 2), np.float32) if as_array else [[1], [2, 3], [4]]
    y, settings = np.array([0, 1, 2]), training.NeuralSettings()

    def name(*parts):
        read = [each for ids, y in parts for each in (ids, y.tolist())]
        return checkpoints.place(tmp_path, vars(settings), 0, *read).name

    first = name((ids, y))
    other = copy.deepcopy(ids)
    other[2][0] = 9
    assert name((copy.deepcopy(ids), y.copy())) == first
    different = [
        [(other, y)],
        [(ids, y[::-1])],
        [(ids, y), (ids, y)],
        [(ids, y), (other, y)],
        [(ids, y), (ids, y[::-1])],
    ]
    assert len({first, *(name(*parts) for parts in different)}) == 6
    if not as_array:  # runs that were begun before there were arrays go on
        what = json.dumps([vars(settings), 0, ids, y.tolist()]).encode()
        assert first == f"checkpoints-{hashlib.sha256(what).hexdigest()[:12]}"


def test_caml_learns_a_number_from_its_mean_on(tmp_path):
    rng, words = np.random.default_rng(0), np.array(["alpha", "beta", "gamma", "delta"])
    drawn = rng.integers(0, 4, (80, 6))
    texts, y = [" ".join(row) for row in words[drawn]], np.array([0.5, 1.0, 2.0, 6.0])[drawn].mean(1)
    still = models.build("caml", SMALL | {"epochs": 1.0, "learning_rate": 1e-9}, ["relative weight"], tmp_path / "0", 3)
    still.fit(texts, y)
    assert still.net.score.bias.item() == pytest.approx(y.mean(), abs=1e-5)
    model = models.build("caml", SMALL | {"epochs": 40.0, "dropout": 0.0}, ["relative weight"], tmp_path / "1", 3)
    cost = model.fit(texts[:60], y[:60], (texts[60:], y[60:]))
    predicted = model.predict(texts)
    assert predicted.shape == (80, 1) and predicted.dtype == np.float32
    error = np.abs(predicted[60:, 0] - y[60:]).mean()
    assert error < 0.2 * np.abs(y[60:] - y[:60].mean()).mean()
    judged = [entry["eval_mean_absolute_error"] for entry in cost["history"] if "eval_mean_absolute_error" in entry]
    assert error == pytest.approx(min(judged), abs=1e-6) and judged[0] > 2 * min(judged)


def test_numbers_are_refused_where_classes_are_learned(tiny_llama, tiny_bert, tmp_path, notes):
    y = np.linspace(0.5, 2, 24)
    for name, settings in {
        "llama": settings_of(tiny_llama), "bert": {"base": str(tiny_bert)}, "tfidf": {}, "lstm": {}
    }.items():  # fmt: skip
        with pytest.raises(StudyError, match="only a model whose `numbers` is true"):
            models.build(name, settings, ["relative weight"], tmp_path, 0).fit(notes[0], y)
    with pytest.raises(StudyError, match="got 4 outputs"):
        models.build("caml", SMALL, LABELS, tmp_path, 0).fit(notes[0], y)
    with pytest.raises(StudyError, match="finite"):
        models.build("caml", SMALL, ["relative weight"], tmp_path, 0).fit(notes[0], y * np.nan)


def test_caml_words_leave_out_numbers_and_placeholders():
    assert caml.words_of("On ___ pt w/ SpO2 88%, 3L NC.") == ["on", "pt", "w", "spo2", "3l", "nc"]


@pytest.mark.parametrize("settings", [{"min_df": 1}, {"features": 4096}])
def test_tfidf_scores_untrained_labels_last(tmp_path, notes, settings):
    texts, y = notes
    model = models.build("tfidf", settings, [*LABELS, "005"], tmp_path, 0)
    model.fit(texts, np.array(y))
    scores = model.predict(texts)
    assert (scores.argmax(1) == y).all() and (scores.argmin(1) == 4).all()
    assert isinstance(model.pipeline[0].get_params()["ngram_range"], tuple) and tfidf.Settings().ngrams == 2
    again = models.build("tfidf", settings, [*LABELS, "005"], tmp_path, 0)
    again.restore()
    np.testing.assert_array_equal(again.predict(texts), scores)
    reasons = model.attributions(texts[0], 2)
    assert again.attributions(texts[0], 2) == reasons
    intercept = model.pipeline[-1].intercept_[2]
    assert sum(score for *_, score in reasons) + intercept == pytest.approx(scores[0, 2], abs=1e-5)


@pytest.mark.parametrize("settings", [{"min_df": 1}, {"features": 4096}])
def test_tfidf_knows_two_drgs(tmp_path, notes, settings):
    texts, y = notes[0], np.array(notes[1])
    some = [text for text, kind in zip(texts, y, strict=True) if kind in (1, 3)]
    model = models.build("tfidf", settings, LABELS, tmp_path, 0)
    model.fit(some, y[np.isin(y, (1, 3))])
    scores = model.predict(texts)
    assert scores.shape == (24, 4) and (scores.argmax(1)[np.isin(y, (1, 3))] == y[np.isin(y, (1, 3))]).all()
    np.testing.assert_allclose(scores[:, 1], -scores[:, 3], atol=1e-6)
    reasons = model.attributions(some[0], 3)
    assert sum(score for *_, score in reasons) + model.pipeline[-1].intercept_[1] == pytest.approx(
        model.predict(some[:1])[0, 3], abs=1e-5
    )


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("gpt", {}, "not a model"),
        ("llama", {"lora_rnak": 8}, "lora_rnak"),
        ("llama", {"lora_rank": "8"}, "lora_rank"),
        ("llama", {"learning_rate": float("nan")}, "learning_rate"),
        ("llama", {"pooling": "first"}, "pooling"),
        ("llama", {"head": "prob"}, "head"),
        ("llama", {"dtype": "float8"}, "dtype"),
        ("llama", {"order": "sorted"}, "order"),
        ("bert", {"batch_size": 0}, "batch_size"),
        ("bert", {"pooling": "last"}, "pooling"),
        ("llama", {"base": "no/such-model"}, "no/such-model"),
    ],
)
def test_bad_settings_are_one_sentence(tmp_path, name, settings, says, monkeypatch):
    monkeypatch.setattr("drgstudy.models.weights.OFFLINE", True)
    with pytest.raises(StudyError, match=says) as error:
        models.build(name, settings, LABELS, tmp_path, 0)
    assert "\n" not in str(error.value)


def test_targets_and_suffix_that_do_not_fit_are_named(tiny_llama, tmp_path):
    with pytest.raises(StudyError, match="lora_targets"):
        models.build("llama", settings_of(tiny_llama, lora_targets=["qkv"]), LABELS, tmp_path, 0)
    long = models.build("llama", settings_of(tiny_llama, suffix="diagnosis " * 9, max_tokens=8), LABELS, tmp_path, 0)
    with pytest.raises(StudyError, match="setting suffix"):
        long.tokens(["a note"])


def test_missing_vectors_are_named(tmp_path, notes):
    model = models.build("caml", {"vectors": "no-such-file.bin"}, LABELS, tmp_path, 0)
    with pytest.raises(StudyError, match=r"no-such-file\.bin"):
        model.fit(notes[0], np.array(notes[1]))
    assert bert.Settings().batch_size == 16


def test_on_apple_silicon_the_cpu_is_used_whatever_else_is_there(monkeypatch, tmp_path, notes):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)  # which accelerate calls
    model = models.build("caml", {"epochs": 1.0, "min_count": 1}, LABELS, tmp_path, 0)
    model.fit(notes[0], np.array(notes[1]))
    assert training.device().type == "cpu" == next(model.net.parameters()).device.type
