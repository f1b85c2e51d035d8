"""**TF-IDF with logistic regression**: no network and no reading, only which words and word pairs occur.

Each text becomes a long sparse vector of term frequencies, damped and weighted by how rare the term is; a multinomial
logistic regression learns a weight for each term and DRG. This plainest of the models is the yardstick: a model that
trails it has not learned to read. For hundreds of thousands of stays there is a faster way: terms are hashed into a fixed
number of features, and each DRG's regression against all others is fitted by stochastic gradient descent.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils import murmurhash3_32

from drgstudy.models import refuse_numbers
from drgstudy.study import atomic, setting

REGRESSION = ("classes_", "coef_", "intercept_")  # what scikit-learn's regression learns


@dataclass(frozen=True)
class Settings:
    """Settings of the vectorizer and the regression, as scikit-learn means them."""

    ngrams: int = setting(2, "the longest run of words that is one term")
    min_df: int = setting(2, "stays that a term must occur in; hashed terms are not counted")
    strength: float = setting(30.0, "inverse L2 penalty")
    features: int = setting(
        0, "that terms are hashed into, with stochastic descent; 0 keeps all terms and fits exactly", zero=True
    )


class Model:
    """A scikit-learn pipeline behind the study's interface."""

    attribution = "coefficient × tf-idf (logit)"

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        self.settings, self.n_labels, self.folder = settings, len(labels), folder
        self.seed, ngrams = seed, {"ngram_range": (1, settings.ngrams)}
        if settings.features:
            counts = HashingVectorizer(n_features=settings.features, alternate_sign=False, norm=None, **ngrams)
        else:
            counts = CountVectorizer(min_df=settings.min_df, **ngrams)
        self.pipeline = make_pipeline(counts, TfidfTransformer(sublinear_tf=True), self._regression(1))

    def _regression(self, stays: int) -> LogisticRegression | SGDClassifier:
        """The regression before it is fitted to so many stays."""
        if not self.settings.features:
            return LogisticRegression(C=self.settings.strength, max_iter=1000)
        weak = 1 / (self.settings.strength * stays)  # the same penalty on the mean loss as `strength` is on the sum
        return SGDClassifier("log_loss", alpha=weak, max_iter=20, n_jobs=-1, random_state=self.seed)

    def fit(self, texts: list[str], y: np.ndarray, validation: tuple | None = None) -> dict:
        """Learn terms, their weights and the regression of `y`, label indices (int, shape (texts,)).

        `validation` is ignored, for there is no epoch to choose. Returns the cost.
        """
        refuse_numbers(y)
        start = time.perf_counter()
        self.pipeline.steps[-1] = ("regression", self._regression(len(texts)))
        self.pipeline.fit(texts, y)
        seconds = time.perf_counter() - start
        counts, weighting, regression = self.pipeline
        if len(regression.classes_) == 2:  # scikit-learn keeps one row, the second label's against the first
            for name in REGRESSION[1:]:
                row = getattr(regression, name)
                setattr(regression, name, np.concatenate([-row, row]) / 2)
        terms = [] if self.settings.features else counts.get_feature_names_out()
        learned = {name: getattr(regression, name) for name in REGRESSION}
        with atomic(self.folder / "model.npz") as beside:
            np.savez(beside, terms=np.array(terms, str), idf=weighting.idf_, **learned)
        return {"train_seconds": seconds, "train_examples": len(texts)}

    def restore(self) -> None:
        """Load what `fit` saved in `folder`."""
        counts, weighting, regression = self.pipeline
        with np.load(self.folder / "model.npz", allow_pickle=False) as saved:
            if not self.settings.features:
                counts.set_params(vocabulary=saved["terms"].tolist())
            weighting.idf_ = saved["idf"]
            for name in REGRESSION:
                setattr(regression, name, saved[name])

    def attributions(self, text: str, label: int) -> list[tuple[int, int, float]]:
        """Each term where it stands in the text, with its part of the label's logit: (start, end, score).

        The scores are exact: together with the label's intercept they sum to the logit. A term that occurs several
        times shares its part evenly among its places. The list is empty for a label that no training stay has.
        """
        counts, weighting, regression = self.pipeline
        row = np.flatnonzero(regression.classes_ == label)
        if not len(row):
            return []
        parts = weighting.transform(counts.transform([text])).toarray()[0] * regression.coef_[row[0]]  # (terms,)
        # Lower case may be longer ("İ" becomes two characters): where in the text does each of its characters stand?
        where = [i for i, character in enumerate(text) for _ in character.lower()]
        words = list(re.finditer(counts.token_pattern, text.lower()))
        places: dict[int, list[tuple[int, int]]] = {}  # by feature, which hashed terms may share
        for i, first in enumerate(words):
            for n, last in enumerate(words[i : i + self.settings.ngrams], 1):
                term = " ".join(word.group() for word in words[i : i + n])
                if self.settings.features:
                    feature = abs(murmurhash3_32(term)) % self.settings.features
                else:
                    feature = counts.vocabulary_.get(term)
                if feature is not None:
                    places.setdefault(feature, []).append((where[first.start()], where[last.end() - 1] + 1))
        return [(*spot, parts[feature] / len(spots)) for feature, spots in places.items() for spot in spots]

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return the logits: float32, shape (texts, labels); those of unseen labels are the row's least minus 1."""
        known = self.pipeline.decision_function(texts)  # (texts, labels that training stays have)
        out = np.repeat(known.min(1, keepdims=True) - 1, self.n_labels, 1)
        out[:, self.pipeline.classes_] = known
        return out.astype(np.float32)
