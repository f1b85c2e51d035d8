"""CAML's fast path on a CPU against the textbook's network and against autograd. No time is asserted."""

import caml as textbook  # the benchmark: its `Textbook` is the independent implementation
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drgstudy.models import caml
from drgstudy.study import read_json
from drgstudy.training import PadRight


@pytest.fixture(autouse=True, scope="module")
def texts_one_after_the_other():
    """However few they are here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caml, "FEW", 0)
        yield


def networks(labels=9, kernel=5, vocabulary=60):
    torch.manual_seed(0)
    vectors = torch.randn(vocabulary, 12).numpy()
    vectors[caml.PAD] = 0
    ours = caml.Network(vectors, labels, kernel, 16, dropout=0.0)
    torch.nn.init.normal_(ours.query.weight)  # attention far from even
    plain = textbook.Textbook(vectors.copy(), labels, kernel, 16, dropout=0.0)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def batch(lengths, labels=9, vocabulary=60, seed=0):
    rng = np.random.default_rng(seed)
    rows = [{"input_ids": rng.integers(1, vocabulary, n).tolist(), "labels": rng.integers(labels)} for n in lengths]
    return PadRight(caml.PAD)(rows)


@pytest.mark.parametrize("kernel", [1, 3, 5, 9])
@pytest.mark.parametrize("lengths", [[1], [16, 14, 13], [40, 3, 1, 17, 64]])
def test_logits_and_gradients_are_the_textbooks(kernel, lengths):
    nets, rows = networks(kernel=kernel), batch(lengths)
    for a, b in zip(*(textbook.logits_and_gradients(net, rows) for net in nets), strict=True):
        assert b.abs().max() > 0 or lengths == [1]  # one word has all the attention: no query learns
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_even_kernel_looks_at_the_same_words_as_attend():
    (net, _), rows = networks(kernel=4), batch([20, 5, 33])
    features, weights = net.attend(rows["input_ids"], rows["attention_mask"])
    expected = (weights * (features @ net.score.weight.T)).sum(1) + net.score.bias
    torch.testing.assert_close(net(**rows)["logits"], expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 40))
def test_a_text_scores_the_same_in_any_company(lengths, padding):
    torch.manual_seed(0)
    vectors = torch.randn(60, 12).numpy()
    vectors[caml.PAD] = 0
    net, rows = caml.Network(vectors, 4, 5, 16, dropout=0.0), batch(lengths, labels=4)
    ids, mask = (torch.nn.functional.pad(rows[name], (0, padding)) for name in ("input_ids", "attention_mask"))
    together = net(ids, mask)["logits"]
    for text, n, logits in zip(ids, lengths, together, strict=True):
        torch.testing.assert_close(net(text[None, :n], mask[:1, :n] | 1)["logits"][0], logits, rtol=1e-4, atol=1e-5)


def test_the_hand_written_backward_is_the_forwards():
    torch.manual_seed(0)
    features, query, score = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (12, 4, 4))
    where = ([5, 4], [8, 4])
    assert torch.autograd.gradcheck(lambda *x: caml._LabelAttention.apply(*x, *where), (features, query, score))
    gradient = torch.autograd.grad(caml._LabelAttention.apply(features, query, score, *where).sum(), features)[0]
    assert (gradient[5:8] == 0).all() and (gradient[:5] != 0).any(1).all()


def test_it_learns_as_the_textbook_does():
    lengths = np.random.default_rng(0).integers(5, 60, (30, 8))
    batches = [batch(row, seed=i) for i, row in enumerate(lengths)]
    losses = []
    for net in networks():
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
        losses.append([])
        for rows in batches * 2:
            loss = net(**rows)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(loss.item())
        assert (net.embed.weight[caml.PAD] == 0).all()
    np.testing.assert_allclose(*losses, rtol=0.02, atol=1e-3)
    assert np.mean(losses[0][30:]) < 0.9 * np.mean(losses[0][:30])


def test_bfloat16_rounds_the_products_and_nothing_else_changes():
    (net, _), rows = networks(), batch([40, 3, 17])
    exact = textbook.logits_and_gradients(net, rows)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = textbook.logits_and_gradients(net, rows)
    for a, b in zip(rounded, exact, strict=True):
        assert a.dtype == torch.float32
        assert 0 < (a - b).abs().max() < 0.05 * b.abs().max() + 0.02


def test_the_benchmark_compares_equals_and_writes_what_the_page_reads(tmp_path, monkeypatch):
    for name, value in {"BATCH": 3, "FILTERS": 8, "SIZE": 6}.items():
        monkeypatch.setattr(textbook, name, value)
    arguments = ["--steps", "2", "--turns", "1", "--labels", "5", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr("sys.argv", ["caml.py", *arguments])
    monkeypatch.setattr(textbook, "Paths", lambda profile: type("Nowhere", (), {"stays": tmp_path / "none"}))
    textbook.main()
    found = read_json(tmp_path / "found.json")
    assert [row["name"] for row in found] == ["CAML, 512 words", "CAML, 2,000 words", "CAML, 512 words, no padding"]
    for row in found:
        assert row["ratio"] == pytest.approx(row["ours"] / row["plain"])
        assert row["met"] == ((row["ratio"] >= 2) if row["goal"] else None)
        assert sum(row["profile"].values()) == pytest.approx(1)
    assert [row["note"].startswith("0% of") for row in found] == [False, False, True]
