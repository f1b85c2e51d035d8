import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drgstudy import drgs
from drgstudy.labels import LabelSpace
from drgstudy.study import StudyError


def test_labels_ascend():
    labels = LabelSpace(["871", "003", "291", "003"])
    assert list(labels.codes) == ["003", "291", "871"] and len(labels) == 3
    assert labels.encode(["291", "871", "003"]).tolist() == [1, 2, 0]
    assert labels.encode([]).dtype == labels.encode(["291"]).dtype == np.int64


@given(st.lists(st.sampled_from(list(drgs.v34().index)), min_size=1))
def test_decode_inverts_encode(codes):
    labels = LabelSpace(codes)
    assert labels.decode(labels.encode(codes)).tolist() == codes
    assert labels.encode(labels.codes).tolist() == list(range(len(set(codes))))


def test_unknown_codes_and_positions_are_refused():
    with pytest.raises(StudyError, match="'230' is not a v34 code"):
        LabelSpace(["291", "230"])
    with pytest.raises(StudyError, match="'871' is not one of its 1 codes"):
        LabelSpace(["291"]).encode(["291", "871"])
    for position in (-1, 1):
        with pytest.raises(StudyError, match="between 0 and 0"):
            LabelSpace(["291"]).decode([position])
