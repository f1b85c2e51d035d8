"""The tokenizer of a base that has a ``tokenizer.model``: LLaMA 1 and 2, Mistral, Gemma.

Its ids are those of the sentencepiece library, with which these models were pretrained. Transformers builds a tokenizer
of its own from that file, which gives other ids for blanks and newlines.
"""

from __future__ import annotations

from sentencepiece import SentencePieceProcessor
from transformers import BatchEncoding


class SentencePieces:
    """As much of a transformers tokenizer as the models and `attribution.py` use.

    Parameters
    ----------
    model : bytes
        What a ``tokenizer.model`` holds.
    add_bos_token, add_eos_token : bool
        Whether a text gets the mark of its beginning, and that of its end, if the model has such a mark.

    Raises
    ------
    RuntimeError
        If it is not a sentencepiece model.
    """

    def __init__(self, model: bytes, add_bos_token: bool = True, add_eos_token: bool = False):
        self._model = SentencePieceProcessor()
        self._model.LoadFromSerializedProto(model)
        known = {name: getattr(self._model, f"{name}_id")() for name in ("pad", "unk", "bos", "eos")}
        known = {name: number if number >= 0 else None for name, number in known.items()}
        self.pad_token_id, self.unk_token_id, bos, self.eos_token_id = known.values()
        self._before = [bos] if add_bos_token and bos is not None else []
        self._after = [self.eos_token_id] if add_eos_token and self.eos_token_id is not None else []

    def __call__(
        self,
        texts: str | list[str],
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
        return_offsets_mapping: bool = False,
    ) -> BatchEncoding:
        """``input_ids`` of one text or of each; ``offset_mapping`` has the start and end of each token in the text."""
        before, after = (self._before, self._after) if add_special_tokens else ([], [])
        room = max(0, max_length - len(before + after)) if truncation else None
        many = [texts] if isinstance(texts, str) else texts
        found = {"input_ids": [before + ids[:room] + after for ids in self._model.encode(many)]}
        if return_offsets_mapping:
            none, rows = (0, 0), [found["offsets"] for found in self._model.encode(many, return_type="offset_mapping")]
            # Of the bytes of one character only the last has a length: here each spans the character.
            rows = [[(start, max(end, start + 1)) for start, end in row[:room]] for row in rows]
            found["offset_mapping"] = [[none] * len(before) + row + [none] * len(after) for row in rows]
        return BatchEncoding({name: rows if many is texts else rows[0] for name, rows in found.items()})
