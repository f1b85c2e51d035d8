"""**TF-IDF with logistic regression**: no network and no reading, only which words and word pairs occur.

Each text becomes a long sparse vector of term frequencies, damped and weighted by how rare the term is; a multinomial
logistic regression learns a weight for each term and DRG. This plainest of the models is the yardstick: a model that
trails it has not learned to read.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from drgstudy.models import refuse_numbers
from drgstudy.study import atomic, setting

REGRESSION = ("classes_", "coef_", "intercept_")  # what scikit-learn's regression learns


@dataclass(frozen=True)
class Settings:
    """Settings of the vectorizer and the regression, as scikit-learn means them."""

    ngrams: int = setting(2, "the longest run of words that is one term")
    min_df: int = setting(2, "stays that a term must occur in")
    strength: float = setting(30.0, "inverse L2 penalty")


class Model:
    """A scikit-learn pipeline behind the study's interface."""

    attribution = "coefficient × tf-idf (logit)"

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        self.settings, self.n_labels, self.folder = settings, len(labels), folder
        self.pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, settings.ngrams), min_df=settings.min_df, sublinear_tf=True),
            LogisticRegression(C=settings.strength, max_iter=1000),
        )

    def fit(self, texts: list[str], y: np.ndarray, validation: tuple | None = None) -> dict:
        """Learn terms, their weights and the regression of `y`, label indices (int, shape (texts,)).

        `validation` is ignored, for there is no epoch to choose. Returns the cost.
        """
        refuse_numbers(y)
        start = time.perf_counter()
        self.pipeline.fit(texts, y)
        seconds = time.perf_counter() - start
        vectorizer, regression = self.pipeline
        terms, learned = vectorizer.get_feature_names_out(), {name: getattr(regression, name) for name in REGRESSION}
        with atomic(self.folder / "model.npz") as beside:
            np.savez(beside, terms=terms.astype(str), idf=vectorizer.idf_, **learned)
        return {"train_seconds": seconds, "train_examples": len(texts)}

    def restore(self) -> None:
        """Load what `fit` saved in `folder`."""
        vectorizer, regression = self.pipeline
        with np.load(self.folder / "model.npz", allow_pickle=False) as saved:
            vectorizer.set_params(vocabulary=saved["terms"].tolist())
            vectorizer.idf_ = saved["idf"]
            for name in REGRESSION:
                setattr(regression, name, saved[name])

    def attributions(self, text: str, label: int) -> list[tuple[int, int, float]]:
        """Each term where it stands in the text, with its part of the label's logit: (start, end, score).

        The scores are exact: together with the label's intercept they sum to the logit. A term that occurs several
        times shares its part evenly among its places. The list is empty for a label that no training stay has.
        """
        vectorizer, regression = self.pipeline
        row = np.flatnonzero(regression.classes_ == label)
        if not len(row):
            return []
        parts = vectorizer.transform([text]).toarray()[0] * regression.coef_[row[0]]  # (terms,)
        # Lower case may be longer ("İ" becomes two characters): where in the text does each of its characters stand?
        where = [i for i, character in enumerate(text) for _ in character.lower()]
        words = list(re.finditer(vectorizer.token_pattern, text.lower()))
        places: dict[str, list[tuple[int, int]]] = {}
        for i, first in enumerate(words):
            for n, last in enumerate(words[i : i + self.settings.ngrams], 1):
                term = " ".join(word.group() for word in words[i : i + n])
                places.setdefault(term, []).append((where[first.start()], where[last.end() - 1] + 1))
        known = {term: spots for term, spots in places.items() if term in vectorizer.vocabulary_}
        return [(*spot, parts[vectorizer.vocabulary_[t]] / len(spots)) for t, spots in known.items() for spot in spots]

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return the logits: float32, shape (texts, labels); those of unseen labels are the row's least minus 1."""
        known = self.pipeline.decision_function(texts)  # (texts, labels that training stays have)
        out = np.repeat(known.min(1, keepdims=True) - 1, self.n_labels, 1)
        out[:, self.pipeline.classes_] = known
        return out.astype(np.float32)
