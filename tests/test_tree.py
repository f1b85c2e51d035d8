"""The model that knows the system, on a tiny LLaMA: its loss, its head of titles, and what it names unseen."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_models import Killed, _kill_at
from transformers import AutoModel

from drgstudy import drgs, models
from drgstudy.models import tree
from drgstudy.study import StudyError

DRGS = ["192", "313", "470", "871", "872"]  # COPD, chest pain, joint replacement, and sepsis with and without MCC
KINDS = {
    "192": "copd exacerbation treated with nebulizers and steroids improved",
    "470": "elective right hip replacement uncomplicated course",
    "872": "uti with e coli sepsis treated with ceftriaxone",
}
TEXTS = [f"{start} {text}" for start in ("admitted", "admitted with", "treated", "course") for text in KINDS.values()]
Y = np.array([DRGS.index(drg) for drg in KINDS] * 4)


def built(base, folder, seed=0, **changes):
    defaults = dict(base=str(base), dtype="float32", max_tokens=32, epochs=0.0, batch_size=4, learning_rate=1e-2)
    settings = dataclasses.asdict(tree.Settings(**(defaults | {"pooling": "mean"} | changes)))
    return models.build("tree", settings, DRGS, folder, seed)


def branches(rng, leaves=9):
    """A random tree: for each leaf its base, and the chapter of that base."""
    base = np.sort(rng.integers(0, 5, leaves))
    return rng.integers(0, 3, 5)[base], base, np.arange(leaves)


def as_levels(weights, numbers):
    return [(weight, torch.tensor(number)) for weight, number in zip(weights, numbers, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_over_the_tree_equals_a_loop(seed):
    rng = np.random.default_rng(seed)
    numbers, weights = branches(rng), (0.3, 0.7, 1.0)
    logits, labels = 3 * rng.normal(size=(7, 9)), rng.integers(0, 9, 7)
    expected = 0.0
    for row, label in zip(logits, labels, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        for weight, number in zip(weights, numbers, strict=True):
            expected -= weight * np.log(sum(p[leaf] for leaf in range(9) if number[leaf] == number[label])) / 7
    found = tree.level_loss(torch.tensor(logits), torch.tensor(labels), as_levels(weights, numbers))
    assert found.item() == pytest.approx(expected)


def test_gradients_of_the_loss_are_right_and_flow_to_every_leaf():
    rng = np.random.default_rng(0)
    levels, labels = as_levels((0.5, 0.5, 1.0), branches(rng)), torch.tensor([0, 4, 8])
    logits = torch.tensor(rng.normal(size=(3, 9)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tree.level_loss(x, labels, levels), logits)
    tree.level_loss(logits, labels, levels).backward()
    assert logits.grad.abs().min() > 0 and logits.grad.sum(1).abs().max() < 1e-12


def test_without_weights_above_the_drg_it_is_the_plain_cross_entropy_and_a_near_miss_costs_less():
    logits, labels = torch.tensor([[4.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 4]]), torch.tensor([0, 0, 0])
    numbers = ([0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3])
    plain = tree.level_loss(logits, labels, as_levels((0.0, 0.0, 1.0), numbers))
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(logits, labels))
    levels = as_levels((0.5, 0.5, 1.0), numbers)
    right, sibling, elsewhere = (tree.level_loss(logits[[i]], labels[[i]], levels) for i in range(3))
    assert right < sibling < elsewhere


def test_the_levels_are_those_of_the_drgs(tiny_llama, tmp_path):
    (mdc, of_mdc), (base, of_base), (leaf, itself) = built(tiny_llama, tmp_path, mdc_weight=0.2).levels
    assert (mdc, base, leaf) == (0.2, 0.5, 1.0) and itself.tolist() == [0, 1, 2, 3, 4]
    assert of_mdc.tolist() == [0, 1, 2, 3, 3] and of_base.tolist() == [0, 1, 2, 3, 3]
    assert (drgs.v34().groupby("base")["mdc"].nunique() == 1).all()  # else it would be no tree


def pooled(base, model, texts):
    net = AutoModel.from_pretrained(base).eval()
    with torch.no_grad():
        return np.array(
            [net(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy() for ids in model.tokens(texts)], float
        )


def test_the_heads_rows_are_the_states_of_the_titles_centred_and_scaled(tiny_llama, tmp_path):
    model = built(tiny_llama, tmp_path)
    model.fit(TEXTS, Y)
    titles = [title.lower() for title in drgs.v34().loc[DRGS, "title"]]
    said, notes = pooled(tiny_llama, model, titles), pooled(tiny_llama, model, TEXTS)
    expected = (said - said.mean(0)) / said.std(0, ddof=1) / notes.std(0)
    mean = notes.mean(0) / notes.std(0)
    for row in range(5):  # taken off: what scores the mean note, whose scaled state is `mean`
        expected[row] -= (expected[row] * notes.std(0) @ mean) / (mean @ mean) * mean / notes.std(0)
    logits = notes @ expected.T
    found = model.score.modules_to_save["default"].weight.detach().numpy()
    np.testing.assert_allclose(found, expected / logits.std(ddof=1), rtol=1e-2, atol=1e-3)
    predicted = model.predict(TEXTS)
    assert np.abs(predicted.mean(0)).max() < 1e-3 and predicted.std() == pytest.approx(1, abs=0.02)


def test_a_regression_near_nothing_is_scikit_learns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)), rng.integers(0, 4, 60)
    plain = LogisticRegression(C=0.3, fit_intercept=False, tol=1e-8, max_iter=1000).fit(x, y)
    notes, labels, flat = torch.tensor(x), torch.tensor(y), [(1.0, torch.arange(4))]
    found = tree.near(torch.zeros(4, 6, dtype=torch.float64), notes, labels, flat, 0.3)
    np.testing.assert_allclose(found, plain.coef_, atol=1e-4)


def test_a_regression_stays_as_near_the_titles_as_its_strength_says():
    rng = np.random.default_rng(0)
    notes, labels = torch.tensor(rng.normal(size=(60, 6))), torch.tensor(rng.integers(0, 3, 60))
    rows, levels = torch.tensor(rng.normal(size=(4, 6))), as_levels((0.5, 1.0), ([0, 0, 1, 1], [0, 1, 2, 3]))
    fits = [tree.near(rows, notes, labels, levels, strength) for strength in (1e-4, 0.1, 10)]
    moved = [(fit - rows).norm().item() for fit in fits]
    losses = [tree.level_loss(notes @ fit.T, labels, levels).item() for fit in [rows, *fits]]
    assert 0 < moved[0] < 0.01 < moved[1] < moved[2] and losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("tuned_layers", [0, 1])
def test_a_drg_without_a_training_stay_is_named_by_its_title(tiny_llama, tmp_path, tuned_layers):
    new = ["chest pain", "treated chest pain improved"]
    settings = dict(epochs=6.0, learning_rate=3e-3, probe_strength=0.01, tuned_layers=tuned_layers)
    model = built(tiny_llama, tmp_path / "tree", **settings)
    model.fit(TEXTS, Y)
    named = model.predict([*TEXTS, *new]).argmax(1)
    assert (named[:12] == Y).all() and [DRGS[i] for i in named[12:]] == ["313", "313"]
    about = dict(base=str(tiny_llama), dtype="float32", max_tokens=32, batch_size=4, pooling="mean", head="probe")
    plain = models.build("llama", about | settings, DRGS, tmp_path / "llama", 0)
    plain.fit(TEXTS, Y)
    named = plain.predict([*TEXTS, *new]).argmax(1)
    assert (named[:12] == Y).all() and "313" not in [DRGS[i] for i in named[12:]]


@pytest.mark.parametrize("step", [4, 8])  # before the first checkpoint, and after it
def test_a_killed_run_goes_on_to_the_same_weights_and_comes_back_from_its_folder(
    tiny_llama, tmp_path, monkeypatch, step
):
    settings = dict(epochs=4.0, probe_strength=0.01, checkpoint_steps=5)
    whole = built(tiny_llama, tmp_path / "whole", **settings)
    whole.fit(TEXTS, Y)
    monkeypatch.setattr("drgstudy.checkpoints.Clock.on_step_end", _kill_at(step))
    with pytest.raises(Killed):
        built(tiny_llama, tmp_path / "broken", **settings).fit(TEXTS, Y)
    monkeypatch.undo()
    again = built(tiny_llama, tmp_path / "broken", **settings)
    cost = again.fit(TEXTS, Y)
    assert cost["train_steps"] == 12 and (cost["seconds_before_kill"] > 0) == (step > 5)
    np.testing.assert_allclose(again.predict(TEXTS), whole.predict(TEXTS), rtol=1e-4, atol=1e-5)
    restored = built(tiny_llama, tmp_path / "broken", seed=1, **settings)
    restored.restore()
    np.testing.assert_array_equal(restored.predict(TEXTS), again.predict(TEXTS))


def test_it_takes_frozen_states_from_a_run_of_llama(tiny_llama, tmp_path, monkeypatch):
    shared = dict(base=str(tiny_llama), dtype="float32", max_tokens=32, pooling="mean", tuned_layers=1, head="probe")
    source = models.build("llama", shared | {"epochs": 0.0, "cuts": [[2, 3]]}, DRGS, tmp_path / "probe", 0)
    source.fit(TEXTS, Y)
    heir = built(tiny_llama, tmp_path / "tree", tuned_layers=1, features_of="probe", epochs=2.0)
    read, passes = [], heir._frozen
    monkeypatch.setattr(heir, "_frozen", lambda texts: passes(read.extend(texts) or texts))
    heir.fit(TEXTS, Y)
    assert sorted(read) == sorted(heir.tokens(heir.titles))  # and no note again
    alone = built(tiny_llama, tmp_path / "alone", tuned_layers=1, epochs=2.0)
    alone.fit(TEXTS, Y)
    np.testing.assert_allclose(heir.predict(TEXTS), alone.predict(TEXTS), rtol=1e-3, atol=1e-3)


def test_what_it_can_not_do_is_said(tiny_llama, tmp_path):
    settings = {"base": str(tiny_llama), "max_tokens": 32}
    with pytest.raises(StudyError, match="parameter model: 'tree' knows the DRGs of v34 alone, not '1943'"):
        models.build("tree", settings, ["192", "1943"], tmp_path, 0)
    with pytest.raises(StudyError, match="parameter labels: model 'tree' gives one label"):
        models.check("tree", settings, two_labels=True)
    models.check("tree", settings)
    for change in ({"head": "random"}, {"mdc_weight": -1.0}, {"lora_targets": ["qkv"]}):
        with pytest.raises(StudyError, match=f"setting {next(iter(change))}"):
            models.check("tree", settings | change)
