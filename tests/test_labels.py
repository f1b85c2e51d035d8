import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drgstudy import drgs
from drgstudy.labels import LabelSpace, TwoLabels, label_space
from drgstudy.study import StudyError


def test_labels_ascend():
    labels = LabelSpace(["871", "003", "291", "003"])
    assert list(labels.codes) == ["003", "291", "871"] and len(labels) == 3
    assert labels.encode(["291", "871", "003"]).tolist() == [1, 2, 0]
    assert labels.encode([]).dtype == labels.encode(["291"]).dtype == np.int64
    assert labels.decode([]).dtype == EVERY.outputs.dtype == object
    assert LabelSpace(["1944", "0014"], known=["0014", "1944"]).codes.tolist() == ["0014", "1944"]


@given(st.lists(st.sampled_from(list(drgs.v34().index)), min_size=1))
@settings(deadline=None)
def test_decode_inverts_encode(codes):
    labels = LabelSpace(codes)
    assert labels.decode(labels.encode(codes)).tolist() == codes
    assert labels.encode(labels.codes).tolist() == list(range(len(set(codes))))


def test_unknown_codes_and_positions_are_refused():
    with pytest.raises(StudyError, match="'230' is not a v34 code"):
        LabelSpace(["291", "230"])
    with pytest.raises(StudyError, match=r"'291' is not a code of this system$"):
        LabelSpace(["291"], known=["0014"])
    with pytest.raises(StudyError, match="'871' is not one of its 1 codes"):
        LabelSpace(["291"]).encode(["291", "871"])
    for position in (-1, 1):
        with pytest.raises(StudyError, match="between 0 and 0"):
            LabelSpace(["291"]).decode([position])


V34 = drgs.v34()
PAIRS = dict(zip(V34.index, zip(V34["base"], V34["cc_label"], strict=True), strict=True))
OWN = V34.groupby("base")["cc_label"].agg(set)  # the CC/MCC labels of each base DRG
EVERY = TwoLabels(V34.index, V34.index)


def supplement_scores_right(true_base, true_label, base, label) -> bool:
    """Rule (b) word by word, as METHODS states it: does a prediction count as the true DRG?"""
    own = OWN[true_base]
    if base != true_base:
        return False
    if label == true_label or len(own) == 1:
        return True
    if label in own:
        return False
    mapped = {frozenset({2, 1, 0}): 0, frozenset({2, 3}): 3, frozenset({1, 0}): 1 if label == 2 else 0}
    return mapped[frozenset(own)] == true_label


def outputs_naming(bases, labels):
    """Outputs of a model whose highest are these bases and CC/MCC labels."""
    outputs = np.zeros((len(bases), 345))
    outputs[np.arange(len(bases)), bases] = outputs[np.arange(len(bases)), 340 + np.asarray(labels)] = 1
    return outputs


def test_v34_has_340_bases_in_order_of_their_lowest_code_and_each_pair_names_one_drg():
    assert len(EVERY.outputs) == 345 and EVERY.n_bases == 340
    assert list(EVERY.outputs[-5:]) == list(drgs.CC_LABELS)
    lowest = V34.reset_index().groupby("base")["drg"].min().sort_values()
    assert list(EVERY.outputs[:340]) == list(lowest.index)
    pairs = EVERY.encode(V34.index)
    assert pairs.dtype == np.int64 and len({tuple(pair) for pair in pairs}) == 757
    # DRG 291 is "heart failure and shock with MCC", 069 "transient ischemia": the paper's example of no split.
    assert EVERY.outputs[EVERY.encode(["291"])[0, 0]] == "HEART FAILURE AND SHOCK"
    assert EVERY.encode(["291", "292", "293", "056", "057", "069"])[:, 1].tolist() == [2, 1, 0, 2, 3, 4]


def test_rule_b_scores_every_truth_against_every_prediction_as_the_supplement_does():
    bases, labels = np.divmod(np.arange(340 * 5), 5)
    named = EVERY.infer(outputs_naming(bases, labels), "mapped")
    for code, (base, label) in zip(V34.index, EVERY.encode(V34.index), strict=True):
        right = np.zeros(340 * 5, bool)  # another base is always wrong
        right[5 * base : 5 * base + 5] = [
            supplement_scores_right(EVERY.outputs[base], label, EVERY.outputs[base], said) for said in range(5)
        ]
        assert ((named == code) == right).all()
    assert not supplement_scores_right(EVERY.outputs[0], 2, EVERY.outputs[1], 2)
    assert len(set(named)) == 757  # every DRG can be named


def test_rule_b_maps_the_papers_own_example():
    # DRG 056 and 057: with MCC and without MCC. "Without CC/MCC", "with CC" and "not applicable" all become "without MCC".
    base = EVERY.encode(["056"])[0, 0]
    assert EVERY.infer(outputs_naming([base] * 5, range(5)), "mapped").tolist() == ["057", "057", "056", "057", "057"]


def test_rule_a_names_only_what_training_has_seen_with_that_base():
    space = TwoLabels(["291", "292", "293", "069"], ["291", "293", "069"])
    heart, ischemia = space.encode(["291", "069"])[:, 0]
    outputs = outputs_naming([heart, heart, heart, ischemia], [1, 2, 0, 2])
    outputs[:, 340] += 0.5  # "without CC/MCC" comes second
    assert space.infer(outputs, "seen").tolist() == ["293", "291", "293", "069"]
    assert space.infer(outputs, "mapped").tolist() == ["292", "291", "293", "069"]
    unseen = space.encode(["001"])[0, 0]  # heart transplant: with MCC, without MCC
    assert space.infer(outputs_naming([unseen], [2]), "seen") == ["001"]
    with pytest.raises(StudyError, match="expected 'seen' or 'mapped', got 'c'"):
        space.infer(outputs, "c")


CODES = st.lists(st.sampled_from(list(V34.index)), min_size=1, max_size=60, unique=True)


@given(CODES)
@settings(max_examples=20, deadline=None)
def test_two_labels_lead_back_to_their_drg_under_both_rules(codes):
    named = outputs_naming(*EVERY.encode(codes).T)
    assert EVERY.infer(named, "seen").tolist() == EVERY.infer(named, "mapped").tolist() == codes
    assert EVERY.codes[EVERY.drg_logits(named).argmax(1)].tolist() == codes


@pytest.mark.filterwarnings("error")
@given(CODES, st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_two_labels_equal_a_plain_loop(codes, trained, seed):
    """Rule (a) and the log-probabilities, one stay and one code at a time; any part of the codes is in training."""
    trained = codes[:trained]
    space, titles = TwoLabels(codes, trained), list(EVERY.outputs)
    outputs = np.random.default_rng(seed).normal(0, 2, (3, 345))
    outputs[0, titles.index(PAIRS[trained[0]][0])] += 20  # a base that it knows
    seen = V34.loc[trained].groupby("base")["cc_label"].agg(list)
    for row, rule_a, logits in zip(outputs, space.infer(outputs, "seen"), space.drg_logits(outputs), strict=True):
        base = titles[row[:340].argmax()]
        assert PAIRS[rule_a] == (base, max(seen.get(base, OWN[base]), key=lambda label: row[340 + label]))
        known = {}
        for code in trained:
            base, label = PAIRS[code]
            severity = row[340 + label] - np.log(np.exp(row[[340 + other for other in seen[base]]]).sum())
            known[code] = row[titles.index(base)] - np.log(np.exp(row[:340]).sum()) + severity
        expected = [known.get(code, min(known.values()) - 1) for code in sorted(codes)]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_the_probabilities_of_all_pairs_seen_in_training_sum_to_one(seed):
    outputs = np.random.default_rng(seed).normal(0, 3, (4, 345)).astype(np.float32)
    logits = EVERY.drg_logits(outputs)
    assert logits.shape == (4, 757) and logits.dtype == np.float32
    np.testing.assert_allclose(np.exp(logits.astype(float)).sum(1), 1, atol=1e-5)
    base, label = EVERY.encode(["292"])[0]  # by hand: softmax over bases times softmax over the base's own labels
    odds, own = np.exp(outputs[0, :340].astype(float)), np.exp(outputs[0, 340 + np.array([0, 1, 2])].astype(float))
    by_hand = odds[base] / odds.sum() * own[label] / own.sum()
    assert np.exp(logits[0, list(V34.index).index("292")]) == pytest.approx(by_hand, rel=1e-4)


def test_a_drg_without_training_stay_comes_last_and_one_label_passes_outputs_through():
    space = label_space("two", ["291", "292", "069"], ["291", "069"])
    logits = space.drg_logits(outputs_naming(space.encode(["292"])[:, 0], [1]))
    assert space.codes.tolist() == ["069", "291", "292"] and logits[0, 2] == logits[0, :2].min() - 1
    one = label_space("one", ["291", "069"], [])
    outputs = np.array([[1.0, 2.0]])
    assert one.outputs.tolist() == ["069", "291"] and one.drg_logits(outputs) is outputs
    with pytest.raises(StudyError, match="parameter labels: expected 'one' or 'two', got 'three'"):
        label_space("three", ["291"], ["291"])
