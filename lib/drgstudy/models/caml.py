"""**CAML**: convolutional attention, adapted to one label for each stay.

Word vectors pass through one convolution that looks at five words at a time. Each DRG then has a query of its own,
which weighs all positions of the text by a softmax and reads one vector from them; the DRG's score is a linear function
of that vector. Attention never sees padding. The word vectors start from a pretrained file or, where none can be had,
from word2vec trained on the training notes.

With a single output the same network learns a number, such as a stay's relative weight, by least squares; or its scores
of the DRGs are read by a further layer that ends in one number, as in the early-DRG study's published code.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_model
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, linear, mse_loss, pad
from transformers import set_seed

from drgstudy.models.vectors import read_vectors
from drgstudy.study import StudyError, atomic, one_line, read_json, setting, write_json
from drgstudy.training import NeuralSettings, PadRight, TokenDataset, device, fast_dtype, predict, train

PAD, UNKNOWN = 0, 1
UNITS = 100  # between the DRGs' scores and a number
FEW = 2_000_000  # batch * words * labels up to which a CPU trains as fast on all texts at once
WORD = re.compile(r"[0-9]*[a-z][a-z0-9]*", re.ASCII | re.IGNORECASE)  # no bare number, no mark of a de-identified word


@dataclass(frozen=True)
class Settings(NeuralSettings):
    """Defaults are the early-DRG paper's (Methods, "NLP modeling")."""

    epochs: float = 50.0
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "constant"
    patience: int = 10
    kernel: int = setting(5, "words that one filter sees")
    filters: int = setting(256, "filters of the convolution")
    dropout: float = setting(0.2, "of the word vectors", share=True)
    min_count: int = setting(3, "words seen less often in the training notes share one vector")
    vectors: str = setting("", "a word2vec-format file such as BioWordVec; empty: word2vec on the training notes")
    vector_size: int = setting(100, "of the word2vec trained here")
    activation: str = setting(
        "tanh", "of the convolution: tanh, the original's; relu, the early-DRG code's", choices=("tanh", "relu")
    )
    drg_outputs: int = setting(
        0,
        "of a model of numbers: scores that a layer of 100 units with ReLU turns into one; 0 has no such layer",
        zero=True,
    )
    bfloat16: bool = setting(False, "multiply in bfloat16 where this machine is faster at it")


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a bᵀ on a CPU: (m, k), (n, k) -> (m, n). Where the processor is not Intel's, oneDNN is twice as fast as MKL."""
    if a.dtype == torch.float32 and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu"):
        return linear(a.to_mkldnn(), b.to_mkldnn()).to_dense()  # torch asks oneDNN only in oneDNN's own layout
    return linear(a, b).to(a.dtype)


class _LabelAttention(torch.autograd.Function):
    """The score of what each label's query reads from each text, one text at a time so that it fits the cache.

    With the features h of one text, queries u and score weights w: z = Σ over words of softmax(h uᵀ) ∘ (h wᵀ).
    `features` (positions, filters) holds the texts end to end, text i in ``rooms[i]`` positions, of which the first
    ``lengths[i]`` are its words and the rest padding. `query` and `score` are (labels, filters).
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, features, query, score, lengths, rooms):
        both, read, parts = torch.cat([score, query]), features.new_empty(len(lengths), len(query)), []
        for z, length, h in zip(read, lengths, features.split(rooms), strict=True):  # (labels,), int, (room, filters)
            parts.append(_product(both, h).view(2, len(query), -1))  # (2, labels, room)
            scores, weights = parts[-1]
            weights[:, length:] = -torch.inf
            torch.softmax(weights, -1, out=weights)
            torch.sum(scores * weights, -1, out=z)
        ctx.save_for_backward(features, query, score, read, *parts)
        return read  # (batch, labels)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, grad):
        features, query, score, read, *parts = ctx.saved_tensors
        both, grads = torch.cat([query, score]), []  # (2 * labels, filters)
        turned, grad_both = both.T.contiguous(), torch.zeros_like(both)
        texts = features.split([part.shape[-1] for part in parts])
        for h, part, z, grad_z in zip(texts, parts, read.unsqueeze(-1), grad.unsqueeze(-1), strict=True):
            (scores, weights), inner = part, torch.empty_like(part)  # part (2, labels, room); z, grad_z (labels, 1)
            torch.mul(weights, grad_z, out=inner[1])  # the gradient of h wᵀ
            torch.sub(scores, z, out=inner[0]).mul_(inner[1])  # of h uᵀ
            inner = inner.flatten(0, 1)  # (2 * labels, room)
            grads.append(_product(turned, inner.T).T)  # (room, filters)
            grad_both += _product(inner, h.T)
        return torch.cat(grads), *grad_both.chunk(2), None, None


class Network(nn.Module):
    """Embedding, convolution and one attention query for each label; `vectors` is float32 (vocabulary, vector size).

    With `number`, a last layer turns the labels' scores into a single output.

    Notes
    -----
    Source: Mullenbach et al. 2018, here with a softmax over the labels.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        labels: int,
        kernel: int,
        filters: int,
        dropout: float,
        activation: str = "tanh",
        number: bool = False,
    ):
        super().__init__()
        self.activate = getattr(torch, activation)
        self.embed = nn.Embedding.from_pretrained(torch.from_numpy(vectors), freeze=False, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv1d(vectors.shape[1], filters, kernel, padding=kernel // 2)
        self.query = nn.Linear(filters, labels, bias=False)
        self.score = nn.Linear(filters, labels)
        for layer in (self.conv, self.query, self.score):
            nn.init.xavier_uniform_(layer.weight)
        units = (nn.ReLU(), nn.Linear(labels, UNITS), nn.ReLU(), nn.Linear(UNITS, 1), nn.ReLU()) if number else ()
        self.head = nn.Sequential(*units)

    def attend(self, input_ids, attention_mask):
        """Features of each position (batch, words, filters), and its weight for each label (batch, words, labels)."""
        words = self.dropout(self.embed(input_ids)).transpose(1, 2)  # (batch, vector size, words)
        features = self.activate(self.conv(words))[:, :, : input_ids.shape[1]].transpose(1, 2)
        return features, self.query(features).masked_fill(attention_mask.unsqueeze(-1) == 0, -torch.inf).softmax(1)

    def _read(self, input_ids, attention_mask):
        """The attended scores (batch, labels), computed faster on a CPU: texts end to end, with hardly any padding."""
        # Each text is followed by as much padding as a filter looks ahead, so that no filter sees two texts, and by
        # more up to a multiple of 16 words: oneDNN compiles a product for every new shape, so there should be few.
        gap, lengths = self.conv.kernel_size[0] // 2, attention_mask.sum(1)
        rooms = (lengths + gap + 15) // 16 * 16  # (batch,)
        width = int(rooms.max())
        ids = pad(input_ids, (0, width - input_ids.shape[1]), value=PAD)[torch.arange(width) < rooms[:, None]]
        words = self.dropout(self.embed(pad(ids, (gap, gap), value=PAD)))  # (positions + 2 * gap, vector size)
        # As an image of one row whose pixels are words, with their channels side by side in memory, the texts need no
        # transposed copy. Features: (positions, filters).
        features = conv2d(words.T[None, :, None], self.conv.weight[:, :, None], self.conv.bias)[0, :, 0].T[: len(ids)]
        where = lengths.tolist(), rooms.tolist()
        return _LabelAttention.apply(self.activate(features), self.query.weight, self.score.weight, *where)

    def forward(self, input_ids, attention_mask, labels=None):
        """Logits (batch, labels or 1) of ids and mask (batch, words), and the loss if labels (batch,) are given."""
        if self.training and input_ids.is_cpu and input_ids.numel() * self.score.out_features > FEW:
            logits = self._read(input_ids, attention_mask) + self.score.bias
        else:
            features, weights = self.attend(input_ids, attention_mask)
            # A label's score is linear in what its query reads, so score every position first and weigh the scores:
            # the vectors of shape (batch, labels, filters) are never built.
            logits = (weights * (features @ self.score.weight.T)).sum(1) + self.score.bias  # (batch, labels)
        logits = self.head(logits)
        if labels is None:
            return {"logits": logits}
        if labels.is_floating_point():
            return {"logits": logits, "loss": mse_loss(logits[:, 0], labels.to(logits.dtype))}
        return {"logits": logits, "loss": cross_entropy(logits, labels)}


def words_of(text: str) -> list[str]:
    """Lower-case alphanumeric words that hold at least one letter; the marks of de-identified words are left out."""
    return [word.lower() for word in WORD.findall(text)]


def check(settings: Settings) -> None:
    """Raise StudyError if the settings name a file that holds no word vectors."""
    if settings.vectors:
        _pretrained(settings, set())


def _pretrained(settings: Settings, words: set[str]) -> tuple[dict[str, np.ndarray], int]:
    """The pretrained vectors of those of the words that have one, and their length."""
    file = Path(os.path.expanduser(settings.vectors))
    if not file.is_file():
        raise StudyError(f"setting vectors: {file} is not a file; give word vectors in word2vec's format")
    try:
        return read_vectors(file, words)
    except ValueError as error:
        raise StudyError(f"setting vectors: {file} is not in word2vec's format ({one_line(error)})") from None


class Model:
    """CAML over whole words."""

    numbers = True
    attribution = "attention (share of 1)"

    def __init__(self, settings: Settings, labels: list[str], folder: Path, seed: int):
        self.settings, self.n_labels, self.folder, self.seed = settings, len(labels), folder, seed
        self.collate = PadRight(PAD)

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Word ids of each text, cut at `max_tokens` words; an empty text is one unknown word."""
        limit = self.settings.max_tokens
        return [[self.vocabulary.get(w, UNKNOWN) for w in words_of(t)[:limit]] or [UNKNOWN] for t in texts]

    def _vectors(self, sentences: list[list[str]]) -> np.ndarray:
        """Vectors of padding, of unknown words and of each known word (float32); sets the vocabulary."""
        counts = Counter(word for sentence in sentences for word in sentence)
        known = sorted(word for word, count in counts.items() if count >= self.settings.min_count)
        if self.settings.vectors:
            source, size = _pretrained(self.settings, set(known))
            known = [word for word in known if word in source and np.isfinite(source[word]).all()]
        else:
            from gensim.models import Word2Vec

            # One worker and a fixed hash: the same notes give the same vectors.
            source = Word2Vec(
                sentences,
                vector_size=self.settings.vector_size,
                min_count=self.settings.min_count,
                sg=1,
                epochs=10,
                workers=1,
                seed=self.seed,
                hashfxn=lambda word: int.from_bytes(word.encode()[:8], "little"),
            ).wv
            size = source.vector_size
        self.vocabulary = {word: i + 2 for i, word in enumerate(known)}
        rng = np.random.default_rng(self.seed)
        unknown = rng.normal(0, 0.1, size)
        return np.vstack([np.zeros_like(unknown), unknown, *(source[w] for w in known)]).astype(np.float32)

    def _network(self, vectors: np.ndarray) -> Network:
        s, labels = self.settings, self.settings.drg_outputs or self.n_labels
        made = Network(vectors, labels, s.kernel, s.filters, s.dropout, s.activation, number=s.drg_outputs > 0)
        return made.to(device())

    def fit(self, texts: list[str], y: np.ndarray, validation: tuple | None = None) -> dict:
        """Learn or read word vectors, then train the network with early stopping on accuracy (equal to micro-F1).

        `y`, of shape (texts,), holds label indices (int64) or finite numbers (float). Numbers are learned by a single
        output that starts from their mean, with early stopping on its mean absolute error. With `drg_outputs` it is the
        last of further layers, as in the early-DRG study's published code.

        Notes
        -----
        Source: early-DRG paper, Supplementary Method 3 (relative weights without the detour over a DRG).
        """
        numbers = y.dtype.kind == "f"
        if numbers and (self.n_labels > 1 or not np.isfinite(y).all()):
            raise StudyError(f"y: numbers must be finite and have one output; got {self.n_labels} outputs")
        if self.settings.drg_outputs and not numbers:
            raise StudyError("setting drg_outputs: for a model that learns a number; set it to 0, or target to weight")
        set_seed(self.seed)
        s = self.settings
        self.net = self._network(self._vectors([words_of(text) for text in texts]))
        if numbers:
            nn.init.constant_((self.net.head[-2] if s.drg_outputs else self.net.score).bias, y.mean())
        data = TokenDataset(self.tokens(texts), y)
        kept = validation and TokenDataset(self.tokens(validation[0]), validation[1])
        autocast, forward = s.bfloat16 and fast_dtype() == torch.bfloat16, self.net.forward
        cost = train(self.net, self.collate, data, s, self.folder, self.seed, autocast, kept)
        self.net.forward = forward  # the trainer leaves it wrapped in its autocast
        write_json(self.folder / "vocabulary.json", self.vocabulary)
        with atomic(self.folder / "model.safetensors") as beside:
            save_model(self.net, str(beside))
        return cost

    def restore(self) -> None:
        """Load what `fit` saved in `folder`."""
        self.vocabulary = read_json(self.folder / "vocabulary.json")
        saved = load_file(self.folder / "model.safetensors", device=str(device()))
        self.net = self._network(saved["embed.weight"].cpu().numpy())
        self.net.load_state_dict(saved)

    @torch.no_grad()
    def attributions(self, text: str, label: int) -> list[tuple[int, int, float]]:
        """Each n-gram that one filter sees, with the attention that the label's query pays it: (start, end, weight).

        The weights are positive and sum to 1.

        Notes
        -----
        Source: early-DRG paper, which shows these n-grams.
        """
        self.net.eval()
        batch = self.collate([{"input_ids": self.tokens([text])[0]}])
        _, weights = self.net.attend(*(part.to(device()) for part in batch.values()))  # (1, words, labels)
        spans, half = [m.span() for m in WORD.finditer(text)][: self.settings.max_tokens], self.settings.kernel // 2
        grams = [spans[max(0, i - half) : i + half + 1] for i in range(len(spans))]
        return [(g[0][0], g[-1][1], w) for g, w in zip(grams, weights[0, :, label].tolist(), strict=False)]

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return the logits: float32, shape (texts, labels)."""
        self.net.eval()
        return predict(lambda batch: self.net(**batch)["logits"], self.collate, self.tokens(texts), 65536)
