"""The admitting diagnosis kept from trained models: they read the notes alone, and each names the DRG of what it read."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from drgstudy import attribution, drgs, findings, undiagnosed
from drgstudy.study import Paths

STAYS = pd.DataFrame({"stay_id": [7, 8], "diagnosis": ["SEPSIS", "SEPSIS"]})
NOTES = pd.DataFrame({"stay_id": [7, 8, 7], "hours": [-9.0, 2.0, 5.0], "text": ["early", "late", "later"]})
LABELS = np.array(["193", "871"])


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """What two models are given to read, one of which names 871 where it reads anything, the other where it reads nothing."""
    seen = []

    def predict(texts, fold):
        seen.extend(texts)
        return np.array([[0.0, 1.0] if bool(text) == (fold == 1) else [1.0, 0.0] for text in texts])

    def remembered(paths, folder, made, asked, ask):
        fold = made.run["fold"]
        assert folder == paths.runs / "caml-ms" / f"fold-{fold}" and "2 stays" in asked and "[-6, 3]" in asked
        return ask(SimpleNamespace(predict=lambda texts: predict(texts, fold)))

    made = [SimpleNamespace(labels=LABELS, run={"system": "ms", "fold": fold}) for fold in (1, 2)]
    monkeypatch.setattr(undiagnosed, "read_folds", lambda paths, run: made)
    monkeypatch.setattr(undiagnosed, "read_rows", lambda *_: NOTES)
    monkeypatch.setattr(attribution, "remembered", remembered)
    return seen


def test_models_read_the_notes_up_to_the_hour_and_no_diagnosis(read):
    found = undiagnosed.weights(Paths("smoke", "early"), "caml-ms", STAYS, [-6, 3])
    assert read == 2 * ["early", "", "early", "late"]
    pneumonia, sepsis = drgs.fiscal_2013("ms")["relative_weight"][LABELS]
    assert found[-6].tolist() == [[sepsis, pneumonia], [pneumonia, sepsis]]  # by model, then by stay
    assert found[3].tolist() == [[sepsis, sepsis], [pneumonia, pneumonia]]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ((3.0, 1.0, 5.0), ", which is farther off (+3.0 points, 95 % interval +1.0 to +5.0)."),
        ((-3.0, -5.0, -1.0), ", which is nearer"),
        ((3.0, -1.0, 7.0), ", and it can’t be told whether that matters"),
    ],
)
def test_the_sentence_goes_by_the_interval(change, verdict):
    effect = pd.DataFrame(
        [(4.0, 3, 5), (7.0, 6, 8), change], ["earlier", "later", "change"], ["value", "lower", "upper"]
    )
    said = findings.undiagnosed_sentence(-6, effect)
    assert said.startswith("At hour −6 the index is off by 4.0 % with the admitting diagnosis and by 7.0 % without it")
    assert verdict in said
