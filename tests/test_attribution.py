"""Each model's reasons against hand-worked cases, models that were taught one decisive word, and the picture's HTML."""

import dataclasses
import html
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drgstudy import models
from drgstudy.attribution import (
    Explanation,
    bars,
    by_word,
    check,
    explain,
    page,
    picture,
    stay_to_explain,
    strongest,
    top,
    top_ngrams,
)
from drgstudy.models import caml
from drgstudy.predictions import Predictions, write_predictions
from drgstudy.study import StudyError

LABELS = ["001", "002", "003", "004"]
DECISIVE = {0: "nstemi", 1: "nebulizers", 2: "ceftriaxone", 3: "hip"}


def settings(kind, base):
    changes = {
        "llama": dict(base=str(base), dtype="float32", max_tokens=32, epochs=8.0, learning_rate=1e-2, pooling="mean"),
        "bert": dict(
            base=str(base), max_tokens=32, epochs=6.0, batch_size=4, learning_rate=3e-3, pooling="mean", dropout=0.0
        ),
        "caml": dict(epochs=20.0, batch_size=4, learning_rate=1e-2, patience=0, min_count=1, filters=16),
        "tfidf": dict(min_df=1),
    }[kind]
    changes |= {"dropout": 0.0, "vector_size": 16} if kind == "caml" else {}
    return dataclasses.asdict(dataclasses.replace(models.module(kind).Settings(), **changes))


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_llama, tiny_bert, notes):
    """One finished run of each kind: stays whose every word but one is noise."""
    torch.set_num_threads(1)
    # Few noise words, so that chance ties none of them to a label.
    known = sorted({word for note in notes[0] for word in note.split()} - set(DECISIVE.values()))[:9]
    rng = np.random.default_rng(0)
    y = np.arange(96) % 4
    texts = []
    for label in y:
        words = rng.choice(known, 7, replace=False).tolist()
        words.insert(rng.integers(8), DECISIVE[label])
        texts.append(" ".join(words))
    folder = tmp_path_factory.mktemp("runs")
    for kind, base in {"llama": tiny_llama, "bert": tiny_bert, "caml": "", "tfidf": ""}.items():
        chosen = settings(kind, base)
        model = models.build(kind, chosen, LABELS, folder / kind, 0)
        model.fit(texts, y)
        about = {"run": kind, "model": kind, "settings": chosen, "seed": 0, "labels": "one", "dataset": {}}
        write_predictions(folder / kind, Predictions(np.arange(96), y, np.array(LABELS), model.predict(texts), about))
    return folder, texts, y


@pytest.mark.parametrize("kind", ["llama", "bert", "caml", "tfidf"])
def test_a_loaded_model_predicts_what_its_run_recorded(taught, kind):
    folder, texts, _ = taught
    torch.manual_seed(99)
    model, labels = models.load(folder / kind)
    assert labels.tolist() == LABELS
    recorded = np.load(folder / kind / "predictions.npz")["logits"]
    np.testing.assert_allclose(model.predict(texts), recorded, rtol=2**-11, atol=1e-6)  # half precision


@pytest.mark.parametrize("kind", ["llama", "bert", "caml", "tfidf"])
def test_the_decisive_word_is_named_and_matters(taught, kind):
    folder, texts, y = taught
    model, _ = models.load(folder / kind)
    assert (model.predict(texts).argmax(1) == y).mean() > 0.9
    found, falls = 0, []
    for text, label in zip(texts[:8], y[:8], strict=True):
        pieces = explain(model, text, label).pieces
        start, end, _ = max(pieces, key=lambda piece: piece[2])
        found += DECISIVE[label] in text[start:end].split()
        falls.append(check(model, text, pieces, label, n=3))
    assert found > 4
    assert np.mean([fall["strongest"] - fall["random"] for fall in falls]) > 0.5


def test_ablation_is_the_fall_of_the_logit_without_the_words_tokens(taught):
    folder, texts, _ = taught
    model, _ = models.load(folder / "llama")
    ids = torch.tensor(model.tokens(texts[:1]))
    pieces = explain(model, texts[0], 2).pieces
    for i, (start, end, score) in enumerate(pieces):
        assert texts[0][start:end] == texts[0].split()[i]
        mask = torch.ones_like(ids)
        with torch.no_grad():
            whole = model.net(input_ids=ids, attention_mask=mask)["logits"][0, 2]
            mask[0, i] = 0
            without = model.net(input_ids=ids, attention_mask=mask)["logits"][0, 2]
        assert score == pytest.approx((whole - without).item(), abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_only_what_the_language_model_read_is_scored_and_a_suffix_is_no_word(tiny_llama, tiny_bert, tmp_path, kind):
    base, suffix = (tiny_llama, {"suffix": "diagnosis"}) if kind == "llama" else (tiny_bert, {})
    model = models.build(kind, settings(kind, base) | {"max_tokens": 5} | suffix, LABELS, tmp_path, 0)
    text = "admitted  with chest\n pain and nstemi treated with heparin"
    read = [text[start:end] for start, end, _ in explain(model, text, 0).pieces]
    assert read == text.split()[: 5 - len(suffix)]


@pytest.mark.parametrize("text", ["Hip, hip: replacement of hip replacement", "İİ CHEST pain. Chest pain; heparin 50"])
def test_tfidf_parts_and_the_intercept_are_the_logit(taught, text):
    model, _ = models.load(taught[0] / "tfidf")
    vectorizer, weighting, regression = model.pipeline
    row = weighting.transform(vectorizer.transform([text])).toarray()[0]
    logits = model.pipeline.decision_function([text])[0]
    for label in range(4):
        pieces = model.attributions(text, label)
        assert sum(score for *_, score in pieces) + regression.intercept_[label] == pytest.approx(logits[label])
        terms = vectorizer.get_feature_names_out()
        for term in terms[row > 0]:
            spots = [p for p in pieces if " ".join(re.findall(r"\w\w+", text[p[0] : p[1]].lower())) == term]
            expected = row[vectorizer.vocabulary_[term]] * regression.coef_[label, vectorizer.vocabulary_[term]]
            assert spots and sum(score for *_, score in spots) == pytest.approx(expected)
    regression.classes_ = np.array([0, 1, 2, 9])
    assert model.attributions(text, 3) == []


def test_caml_shows_the_ngrams_its_filters_see(taught):
    model, _ = models.load(taught[0] / "caml")
    text = "Admitted 12 with CHEST pain, and nstemi ___ treated with heparin"
    pieces = model.attributions(text, 0)
    assert [text[start:end] for start, end, _ in pieces][:4] == [
        "Admitted 12 with CHEST",
        "Admitted 12 with CHEST pain",
        "Admitted 12 with CHEST pain, and",
        "with CHEST pain, and nstemi",
    ]
    assert len(pieces) == 9 and sum(weight for *_, weight in pieces) == pytest.approx(1)
    assert " ".join(caml.words_of(text)) == "admitted with chest pain and nstemi treated with heparin"


class Weighs:
    """Stands for a model whose query weighs the five words around each word."""

    def __init__(self, *weights):
        self.weights = weights

    def attributions(self, text, label):
        words = [m.span() for m in re.finditer(r"\S+", text)]
        grams = [words[max(0, i - 2) : i + 3] for i in range(len(words))]
        return [(gram[0][0], gram[-1][1], weight) for gram, weight in zip(grams, self.weights, strict=True)]


def test_top_ngrams_are_the_strongest_that_share_at_most_half_of_their_words():
    text = "a b  c\nd e f g h i"
    # With the strongest, "a b c" shares two of its three words, "d e f g h" three of five, "e f g h i" two of five.
    assert top_ngrams(Weighs(0.2, 0.0, 0.0, 0.3, 0.01, 0.05, 0.04, 0.0, 0.0), text, 0) == [
        ("b c d e f", 0.3),
        ("e f g h i", 0.04),
    ]
    assert top_ngrams(Weighs(*[0.1] * 9), text, 0, k=1) == [("a b c", 0.1)]
    assert top_ngrams(Weighs(), "", 0) == []
    twice = "a b c d e x x x x A B C D E"
    phrases = [phrase for phrase, _ in top_ngrams(Weighs(0, 0, 0.4, *[0.0] * 8, 0.3, 0, 0), twice, 0)]
    assert phrases[0] == "a b c d e" and "A B C D E" not in phrases


def test_top_ngrams_of_caml_begin_with_its_strongest(taught):
    model, _ = models.load(taught[0] / "caml")
    text = "Admitted with CHEST pain\n\nand nstemi  treated with heparin"
    start, end, weight = max(model.attributions(text, 0), key=lambda piece: piece[2])
    found = top_ngrams(model, text, 0)
    assert found[0] == (" ".join(text[start:end].split()), weight)
    assert [w for _, w in found] == sorted((w for _, w in found), reverse=True) and len(found) > 1


def test_the_words_of_caml_are_alphanumeric_runs_with_a_letter():
    text = "A1 12 1a2b ___ 3-vessel Dr. O'Brien 007x é"
    assert caml.words_of(text) == [w for w in re.findall(r"[a-z0-9]+", text.lower()) if not w.isdigit()]


TEXTS = st.text(st.sampled_from("ab<&é \n"), min_size=1).filter(str.strip)


@given(TEXTS, st.data())
def test_words_are_places_of_the_text_and_keep_the_sum(text, data):
    words = [m.span() for m in re.finditer(r"\S+", text)]
    at = st.integers(0, len(words) - 1)
    pieces = []
    for first, last, score in data.draw(st.lists(st.tuples(at, at, st.floats(-5, 5)), min_size=1)):
        first, last = sorted((first, last))
        pieces.append((words[first][0], words[last][1], score))
    shared = by_word(text, pieces)
    assert [(start, end) for start, end, _ in shared] == words[: len(shared)]
    assert shared[-1][1] == max(end for _, end, _ in pieces)
    assert sum(score for *_, score in shared) == pytest.approx(sum(score for *_, score in pieces), abs=1e-9)


def test_a_piece_is_shared_among_its_words_and_a_blank_touches_none():
    assert by_word("one two six", [(0, 7, 1.0), (3, 4, 9.0), (4, 7, 2.0)]) == [(0, 3, 0.5), (4, 7, 2.5)]


def test_strongest_phrases_are_summed_by_their_words_and_never_overlap():
    text = "Chest pain; chest  pain, pain"
    pieces = [(0, 10, 1.0), (12, 23, 1.5), (6, 10, -1.0), (25, 29, -1.0), (25, 29, 0.0)]
    assert strongest(text, pieces, 5).to_dict() == {"chest pain": 2.5}
    assert strongest(text, pieces[2:], 1).to_dict() == {"pain": -2.0}


@given(TEXTS)
def test_the_picture_shows_exactly_the_text(text):
    shown = picture(text, Explanation("x", by_word(text, [(0, len(text), 1.0)])), "title")
    body = re.search(r'pre-wrap;margin:.5em 0">(.*)</div><div', shown, re.DOTALL).group(1)
    assert html.unescape(re.sub(r"<[^>]*>", "", body)) == text


def test_the_picture_stands_alone_escapes_and_marks_the_strongest_for_grey():
    text = "<script>alert(1)</script> fever no cough unread & dull"
    start = text.index("fever")
    pieces = [(start, start + 5, 2.0), (start + 6, start + 8, -1.5), (start + 9, start + 14, 0.5)]
    shown = picture(text, Explanation("<unit>", pieces), "<b>bad</b>")
    assert "<script" not in shown and "&lt;script&gt;" in shown and "&lt;unit&gt;" in shown and "<b>bad" not in shown
    assert not re.search(r"https?:|src=|url\(|class=", shown)
    style = {w: re.search(rf'style="([^"]*)" title="[^"]*">{w}<', shown).group(1) for w in ("fever", "no", "cough")}
    assert "underline solid" in style["fever"] and "0.60)" in style["fever"] and "bold" in style["fever"]
    assert "underline dotted" in style["no"] and "underline" not in style["cough"]
    assert re.search(r'color:#767676"> unread &amp; dull</span>', shown)


def test_top_and_its_bars():
    table = top(np.log([0.1, 0.6, 0.25, 0.05]), np.array(["001", "190", "193", "871"]), 2)
    assert table["drg"].tolist() == ["190", "193"] and table["label"].tolist() == [1, 2]
    assert table["probability"].tolist() == pytest.approx([0.6, 0.25])
    assert "Chronic obstructive" in table["title"][0]
    shown = bars(table, "193")
    assert "60.0 %" in shown and shown.index("✓ billed") > shown.index("193") and shown.count("✓") == 1


def test_bad_input_is_refused_with_one_sentence(taught, tmp_path):
    folder = taught[0]
    model, _ = models.load(folder / "tfidf")
    with pytest.raises(StudyError, match="fewer than two words"):
        explain(model, " sepsis\n", 0)
    with pytest.raises(StudyError, match=r"run\.json is missing"):
        models.load(tmp_path / "nothing")
    for kind, part in {
        "llama": "adapter",
        "bert": "model.safetensors",
        "caml": "vocabulary.json",
        "tfidf": "model.npz",
    }.items():
        (tmp_path / kind).mkdir()
        for file in (folder / kind).iterdir():
            if file.name != part:
                (tmp_path / kind / file.name).symlink_to(file)
        with pytest.raises(StudyError, match=f"run {kind} has left no weights .*train it again"):
            models.load(tmp_path / kind)


def test_a_run_with_two_labels_is_refused(tmp_path):
    about = {"run": "both", "model": "llama", "settings": {}, "seed": 0, "labels": "two", "dataset": {}}
    write_predictions(tmp_path, Predictions(np.arange(1), np.zeros(1, int), np.array(["001"]), np.zeros((1, 1)), about))
    with pytest.raises(StudyError, match="two labels a stay"):
        models.load(tmp_path)


def test_credentialed_text_goes_to_a_file_and_only_its_path_is_shown(tmp_path):
    file = tmp_path / "data" / "paper" / "review" / "why-7.html"
    assert page(["<p>note</p>"], file, False).data == "<p>note</p>" and not file.exists()
    shown = page(["<p>nöte</p>"], file, True)
    assert "nöte" not in shown and shown.endswith("data/paper/review/why-7.html") and str(tmp_path) not in shown
    assert file.read_text(encoding="utf-8").endswith("<p>nöte</p>")


def test_the_telling_stay_is_a_near_miss_of_median_confidence():
    truth = np.array([0, 1, 1, 1, 1, 0])
    # right; near misses with p = 0.9, 0.5, 0.7 and 0.6 of a wrong top; the truth is last of seven
    logits = np.full((6, 7), -9.0)
    logits[0, 0] = 5
    for row, p in zip(range(1, 5), (0.9, 0.5, 0.7, 0.6), strict=True):
        logits[row, :2] = np.log([p, (1 - p) * 0.9])
    logits[5] = np.arange(7)
    labels = np.array([f"{i:03d}" for i in range(7)])
    assert stay_to_explain(Predictions(np.arange(6), truth, labels, logits, {})) == 4
    assert stay_to_explain(Predictions(np.arange(2), truth[[0, 5]], labels, logits[[0, 5]], {})) == 1
