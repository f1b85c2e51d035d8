"""**TF-IDF with logistic regression**: no network and no reading, only which words and word pairs occur.

Each text becomes a long sparse vector of term frequencies, damped and weighted by how rare the term is; a multinomial
logistic regression learns a weight per term and DRG. The plainest model is the yardstick: whoever trails it has not
learned to read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


@dataclass(frozen=True)
class Settings:
    """Settings of vectorizer and regression, by scikit-learn's meaning."""

    ngrams: int = 2  # the longest run of words that is one term
    min_df: int = 2  # stays that a term must occur in
    strength: float = 30.0  # inverse L2 penalty


class Model:
    """A scikit-learn pipeline behind the study's interface."""

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        self.settings, self.n_labels = settings, len(labels)
        self.pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, settings.ngrams), min_df=settings.min_df, sublinear_tf=True),
            LogisticRegression(C=settings.strength, max_iter=1000),
        )

    def fit(self, texts: list[str], y: np.ndarray) -> dict:
        """Learn terms, their weights and the regression."""
        start = time.perf_counter()
        self.pipeline.fit(texts, y)
        return {"train_seconds": time.perf_counter() - start, "train_examples": len(texts)}

    def predict(self, texts: list[str]) -> np.ndarray:
        """Log-odds, float32, shape (texts, labels); labels that the training stays lack get the row's least minus one."""
        known = self.pipeline.decision_function(texts)
        out = np.repeat(known.min(1, keepdims=True) - 1, self.n_labels, 1)
        out[:, self.pipeline.classes_] = known
        return out.astype(np.float32)
