"""Lost in the middle: where the deciding word stands, how far a model reads, and what may be told of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from drgstudy import comparisons, positions

FILLER = "patient was seen and went home on day three "


@pytest.fixture(scope="module")
def notes() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Notes of two bases that differ in one word each; the test notes have it first, last, in capitals, and never."""
    train = [(FILLER + word, base) for word, base in (("sepsis", "SEPSIS"), ("fracture", "HIP")) for _ in range(40)]
    test = [
        ("sepsis " + FILLER, "SEPSIS"),
        (FILLER + "Fracture, fracture", "HIP"),
        (FILLER + "sepsis", "HIP"),  # the other base's word does not count
        ("sepsis " + FILLER, "NEVER TRAINED"),
    ]
    return tuple(pd.DataFrame(rows, columns=["text", "base"]) for rows in (train, test))


def test_the_deciding_word_is_found_where_it_first_stands(notes):
    starts = positions.deciding(*notes)
    assert starts.iloc[:2].tolist() == [0, len(FILLER)] and starts.iloc[2:].isna().all()


def test_a_word_of_few_notes_is_not_sure():
    train = pd.DataFrame({"text": [FILLER + "sepsis"] * 2 + [FILLER] * 60, "base": ["SEPSIS"] * 2 + ["HIP"] * 60})
    assert positions.deciding(train, train.head(1)).isna().all()


def test_a_word_stands_in_a_third_of_what_is_read_or_is_cut_off():
    starts, read = pd.Series([0, 29, 30, 60, 89, 90, np.nan]), pd.Series([90] * 7)
    found = positions.parts(starts, read)
    assert found.columns.tolist() == list(positions.PARTS) and (found.sum(axis=1) == 1).all()
    assert found.idxmax(axis=1).tolist() == [positions.PARTS[n] for n in (0, 0, 1, 2, 2, 3, 4)]


def test_how_far_a_model_reads_is_counted_in_its_own_tokens():
    texts = ["one two 33 three four", "one", ""]

    def tokenizer(texts, truncation=True, max_length=9, **_):
        if texts == "say":
            return SimpleNamespace(input_ids=[1])
        spans = [[(i, i + 3) for i in range(0, len(text), 4)][:max_length] for text in texts]
        return SimpleNamespace(offset_mapping=spans)

    language = SimpleNamespace(tokenizer=tokenizer, settings=SimpleNamespace(max_tokens=3, suffix="say"))
    assert positions.read_until(language, texts) == [7, 3, 0]  # two tokens of four letters; one is the suffix's
    caml = SimpleNamespace(settings=SimpleNamespace(max_tokens=3))
    assert positions.read_until(caml, texts) == [16, 3, 0]  # bare numbers are no words
    assert positions.read_until(SimpleNamespace(settings=SimpleNamespace()), texts) == [21, 3, 0]


def judged(right: list[int], stays: list[int]) -> pd.DataFrame:
    """As `comparisons.by_stratum` returns it, for so many right of so many stays in each part."""
    part = np.repeat(np.arange(len(stays)), stays)
    hits = np.concatenate([np.arange(n) < hits for hits, n in zip(right, stays, strict=True)])
    strata = pd.DataFrame({name: part == number for number, name in enumerate(positions.PARTS)})
    return comparisons.by_stratum(strata, pd.DataFrame({"llama": hits}))


@pytest.mark.parametrize(
    ("right", "says"),
    [
        (
            [90, 40, 90],
            "DRG-LLaMA misses what stands in the middle: it names right 40 % of the stays whose deciding word",
        ),
        ([50, 90, 50], "DRG-LLaMA does better with what stands in the middle: it names right 90 %"),
        ([70, 68, 70], "It can’t be told whether DRG-LLaMA misses what stands in the middle: it names right 68 %"),
    ],
)
def test_what_is_said_of_the_middle(right, says):
    said = positions.sentence(judged([*right, 20, 30], [100, 100, 100, 50, 60]), "llama", "DRG-LLaMA")
    assert said.startswith(says) and said.endswith("; where it is cut off, 40 %.")


def test_the_interval_is_newcombes():
    """Newcombe 1998, method 10, for 56/70 against 48/80: difference 0.2000, interval 0.0524 to 0.3339."""
    said = positions.sentence(judged([48, 56, 0, 0, 0], [80, 70, 0, 0, 0]), "llama", "DRG-LLaMA")
    assert said.startswith("Whether DRG-LLaMA misses words in the middle is not shown")
    said = positions.sentence(judged([24, 56, 24, 0, 0], [40, 70, 40, 0, 0]), "llama", "DRG-LLaMA")
    assert "(+20.0 points, 95 % interval +5.2 to +33.4)" in said


def test_parts_of_which_few_stays_are_right_or_wrong_are_not_told():
    table = positions.told(judged([60, 97, 60, 20, 30], [100, 100, 100, 50, 60]), 11)
    assert "middle third" not in set(table["stratum"]) and "all" in set(table["stratum"])
    assert len(set(table["stratum"])) == 4  # three wrong are few: another part hides how many
    assert "not shown" in positions.sentence(table, "llama", "DRG-LLaMA")
    whole = judged([60, 50, 60, 20, 30], [100, 100, 100, 50, 60])
    pd.testing.assert_frame_equal(positions.told(whole, 11), whole)
