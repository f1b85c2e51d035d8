"""The bases that people have on disk: tokenizers, architectures, padding; and the word vectors."""

import gzip
import io
import json
import re
import tracemalloc

import numpy as np
import pytest
import sentencepiece
import torch
from gensim.models import KeyedVectors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
)

from drgstudy import attribution, models
from drgstudy.models import vectors, weights
from drgstudy.study import StudyError

LABELS, Y = list("abcd"), np.array([0, 1, 2, 3] * 6)
TINY = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 1}
TEXTS = [
    *("", " ", "   ", "  a", "a    b", "a" + " " * 41 + "b ", "\tx\t\ty", "a\n\n b\r\n", "___ y.o. man", "1,234.5 mg", "a\x00b"),
    *("naïve café", "e\u0301", "😀 ok 🏥", "\u2581x", "\u00a0x", "<s> the </s> end", "=====_____-----", "MIXED Case\n# A"),
]  # fmt: skip
DECAPODA = {
    "bos_token": "",
    "eos_token": "",
    "unk_token": "",
    "tokenizer_class": "LLaMATokenizer",
    "add_bos_token": None,
}


@pytest.fixture(scope="module")
def pieces():
    """A ``tokenizer.model`` with LLaMA's options and special ids."""
    lines, made = (
        [f"{text} x{'  ' * i}y  admitted with chest pain {i} mg" for i in range(9) for text in TEXTS],
        io.BytesIO(),
    )
    about = {"model_type": "bpe", "byte_fallback": True, "split_digits": True, "normalization_rule_name": "identity"}
    about |= {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "character_coverage": 0.98}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=made, vocab_size=330, minloglevel=2, **about
    )
    return made.getvalue()


def folder_with(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(
            content if isinstance(content, bytes) else json.dumps(content).encode()
        )
    return folder


@pytest.mark.parametrize("about", [None, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}, DECAPODA])
@pytest.mark.parametrize("whole", [False, True])  # a tokenizer.json beside it, as transformers makes it
def test_a_tokenizer_model_gives_sentencepieces_own_ids(tmp_path, pieces, about, whole):
    folder = folder_with(tmp_path / "base", config__json={"model_type": "llama"}, tokenizer__model=pieces)
    if whole:
        pytest.importorskip("google.protobuf", reason="transformers needs it; it comes with EXTRAS=cluster")
        LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
    if about:
        folder_with(folder, tokenizer_config__json=about)
    tokenizer, truth = weights.tokenizer(str(folder)), sentencepiece.SentencePieceProcessor(model_proto=pieces)
    assert tokenizer(TEXTS).input_ids == [[1, *truth.encode(text)] for text in TEXTS]
    assert len(set(map(str, tokenizer(TEXTS).input_ids))) == len(TEXTS) and tokenizer.pad_token_id == 0
    cut = tokenizer("a b c d e f", truncation=True, max_length=4)
    assert cut.input_ids == [1, *truth.encode("a b c d e f")][:4]
    assert tokenizer("a b", add_special_tokens=False).input_ids == truth.encode("a b")


def test_marks_of_beginning_and_end_are_those_of_the_folder(tmp_path, pieces):
    about = {"add_bos_token": False, "add_eos_token": True}
    folder = folder_with(
        tmp_path / "base", config__json={"model_type": "llama"}, tokenizer__model=pieces, tokenizer_config__json=about
    )
    ids = weights.tokenizer(str(folder))("chest pain", truncation=True, max_length=3).input_ids
    assert ids == [*sentencepiece.SentencePieceProcessor(model_proto=pieces).encode("chest pain")[:2], 2]


def test_each_token_says_which_characters_it_stands_for(tmp_path, pieces):
    folder = folder_with(tmp_path / "base", config__json={"model_type": "llama"}, tokenizer__model=pieces)
    text = "a  naïve 😀 man"
    found = weights.tokenizer(str(folder))(text, return_offsets_mapping=True)
    spans = found.offset_mapping
    assert len(spans) == len(found.input_ids) and spans[0] == (0, 0) and all(end > start for start, end in spans[1:])
    assert "".join(text[start:end] for start, end in dict.fromkeys(spans)) == text
    assert spans.count((9, 10)) == 4  # the bytes of 😀


@pytest.mark.parametrize(
    "content", [b"", b"IQ== 0\nIg== 1\n", b"version https://git-lfs.github.com/spec/v1\noid sha256:9e55\nsize 499723\n"]
)
def test_another_tokenizer_model_is_read_past_or_refused(tmp_path, tokenizer, content):
    folder = folder_with(tmp_path / "base", config__json={"model_type": "llama"}, tokenizer__model=content)
    with pytest.raises(StudyError, match=r"its tokenizer\.model is not sentencepiece's; add the tokenizer\.json"):
        weights.tokenizer(str(folder))
    tokenizer.save_pretrained(folder)  # as LLaMA 3 has both
    assert weights.tokenizer(str(folder))("chest pain").input_ids == tokenizer("chest pain").input_ids


def test_a_converted_llama_7b_of_the_first_days_trains_and_comes_back(tmp_path, pieces, notes, monkeypatch):
    """Named ``~/base``; weights as two pickled shards, the ids of its special tokens wrong in config.json."""
    config = AutoConfig.for_model("llama", **TINY | {"vocab_size": 330, "pad_token_id": 0})
    state = {f"model.{name}": part for name, part in AutoModel.from_config(config).state_dict().items()}
    names, shards = sorted(state), {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-0000{i}-of-00002.bin"
        shards |= dict.fromkeys(part, file)
        folder_with(tmp_path / "base")
        torch.save({name: state[name] for name in part}, tmp_path / "base" / file)
    about = config.to_dict() | {"architectures": ["LLaMAForCausalLM"], "bos_token_id": 0, "eos_token_id": 1}
    folder = folder_with(
        tmp_path / "base", config__json=about | {"pad_token_id": -1}, tokenizer__model=pieces,
        tokenizer_config__json=DECAPODA, pytorch_model__bin__index__json={"metadata": {}, "weight_map": shards},
    )  # fmt: skip
    (folder / "special_tokens_map.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    model, again = fitted("llama", "~/base", notes[0], tmp_path / "run")
    assert (
        again.net.base_model.model.model.embed_tokens.weight[5].tolist()
        == state["model.embed_tokens.weight"][5].tolist()
    )
    pieces_of_text = attribution.explain(model, notes[0][0], 0).pieces
    assert len(pieces_of_text) == len(notes[0][0].split()) and any(score for *_, score in pieces_of_text)


def fitted(name, base, texts, folder, **settings):
    """A model after one step, and the same from its folder; both predict the same, with and without padding."""
    settings = {"base": str(base), "max_tokens": 32, "epochs": 1 / 6, "batch_size": 4, "learning_rate": 1e-2} | settings
    if name == "llama":
        settings |= {"dtype": "float32", "lora_dropout": 0.0}
    model = models.build(name, settings, LABELS, folder, 0)
    start = model.predict(texts)
    assert model.fit(texts, Y)["train_steps"] == 1
    again = models.build(name, settings, LABELS, folder, 1)
    again.restore()
    logits = again.predict(texts)
    np.testing.assert_array_equal(logits, model.predict(texts))
    assert np.isfinite(logits).all() and not np.allclose(logits, start)
    np.testing.assert_allclose(np.vstack([again.predict([text]) for text in texts[:4]]), logits[:4], atol=1e-5)
    return model, again


def base_of(kind, folder, tokenizer, auto, **config):
    torch.manual_seed(0)
    auto.from_config(AutoConfig.for_model(kind, **TINY | config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3 |= {"original_max_position_embeddings": 8, "rope_theta": 500000.0}
DECODERS = {
    "llama": {"rope_parameters": LLAMA_3},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 3},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 3, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 3, "query_pre_attn_scalar": 8},
}


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_train_by_one_value_of_base(tmp_path, tokenizer, notes, kind):
    base = base_of(kind, tmp_path / kind, tokenizer, AutoModelForCausalLM, num_key_value_heads=2, **DECODERS[kind])
    upper, _ = fitted("llama", base, notes[0], tmp_path / "upper", tuned_layers=1)
    learned = [part for name, part in upper.net.named_parameters() if "lora_B" in name]
    assert len(learned) == 4 and all(part.abs().max() > 0 for part in learned)
    model, _ = fitted("llama", base, notes[0], tmp_path / "run")
    assert model.accelerated == (kind == "llama")
    tuned = [part for name, part in model.net.named_parameters() if "lora_B" in name]
    assert len(tuned) == 8 and all(part.abs().max() > 0 for part in tuned)
    settings, plain = vars(model.settings), AutoModel.from_pretrained(base)
    frozen = models.build("llama", settings | {"cuts": [[1, 3]]}, LABELS, tmp_path, 0)
    ids = frozen.tokens(notes[0][:4])
    with torch.no_grad():
        expected = [plain(torch.tensor([row])).last_hidden_state[0, -1].numpy() for row in ids]
    made = {tuple(row): pooled for row, _, pooled in frozen._frozen(ids)}
    whole, cut = np.stack([made[tuple(row)] for row in ids]).swapaxes(0, 1)
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-4)
    shorter = models.build("llama", settings | {"layers": 1, "max_tokens": 3}, LABELS, tmp_path, 0)
    np.testing.assert_allclose(shorter._kept(cuts := [row[:3] for row in ids]).pooled(cuts), cut, rtol=1e-4, atol=1e-4)
    batch = frozen.collate([{"input_ids": row} for row in ids])
    with torch.no_grad():
        masked = frozen.net.train()(**batch)["logits"]
        frozen.always_masked = kind == "llama"  # as on a GPU, which does not accelerate LLaMA as a CPU does
        torch.testing.assert_close(frozen.net(**batch)["logits"], masked, rtol=1e-4, atol=1e-5)


HEADS = {  # what stands between the mean of a text's hidden states and its logits
    "roberta": lambda net, mean: net.classifier(mean[:, None]),
    "longformer": lambda net, mean: net.classifier(mean[:, None]),
    "modernbert": lambda net, mean: net.classifier(net.head(mean)),
    "distilbert": lambda net, mean: net.classifier(mean),
    "deberta-v2": lambda net, mean: net.classifier(mean),
}
ENCODERS = {"longformer": {"attention_window": [4, 4]}, "modernbert": {"local_attention": 4}}
ENCODERS |= {"distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}}


@pytest.mark.parametrize("kind", HEADS)
def test_encoders_train_by_one_value_of_base(tmp_path, tokenizer, notes, kind):
    base = base_of(kind, tmp_path / kind, tokenizer, AutoModelForMaskedLM, **ENCODERS.get(kind, {}))
    first, _ = fitted("bert", base, notes[0], tmp_path / "first", dropout=0.25)
    rates = {part.p for part in first.net.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates <= {0.25, 0.0} and 0.25 in rates
    mean, _ = fitted("bert", base, notes[0], tmp_path / "mean", pooling="mean")
    net, batch = mean.net.eval(), mean.collate([{"input_ids": row} for row in mean.tokens(notes[0][:4])])
    with torch.no_grad():
        hidden = getattr(net, net.base_model_prefix)(**batch).last_hidden_state
        means = [row[mark.bool()].mean(0) for row, mark in zip(hidden, batch["attention_mask"], strict=True)]
        expected = HEADS[kind](net, torch.stack(means)).numpy()
    np.testing.assert_allclose(mean.predict(notes[0][:4]), expected, rtol=1e-4, atol=1e-4)


def test_without_a_padding_token_the_end_mark_pads_and_is_still_read(tmp_path, tokenizer, notes):
    """As LLaMA 3: neither padding nor unknown token. The suffix ends in the mark that pads."""
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]")
    base = base_of("llama", tmp_path / "base", bare, AutoModelForCausalLM, pad_token_id=None)
    model, _ = fitted("llama", base, notes[0], tmp_path / "run", suffix=" [SEP]")
    assert model.tokenizer.pad_token_id == 3 and all(row[-1] == 3 for row in model.tokens(notes[0]))
    _, other = fitted("llama", base, notes[0], tmp_path / "other", suffix=" diagnosis [SEP]")
    assert not np.allclose(model.predict(notes[0]), other.predict(notes[0]))


def test_more_tokens_than_a_base_has_positions_are_refused(tmp_path, tokenizer):
    long = ["chest pain " * 40]
    for kind, most in {"bert": 40, "roberta": 38}.items():  # RoBERTa begins to count after its padding id
        base = base_of(kind, tmp_path / kind, tokenizer, AutoModelForMaskedLM, max_position_embeddings=40)
        settings = {"base": str(base), "max_tokens": most}
        model = models.build("bert", settings, LABELS, tmp_path, 0)
        assert len(model.tokens(long)[0]) == most and np.isfinite(model.predict(long)).all()
        with pytest.raises(StudyError, match=f"setting max_tokens: expected at most {most}"):
            models.build("bert", settings | {"max_tokens": most + 1}, LABELS, tmp_path, 0)


GEMMA_3 = {
    "vision_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
}
GEMMA_3["vision_config"] |= {"image_size": 28, "patch_size": 14}
GEMMA_3["text_config"] = TINY | {"head_dim": 8, "num_key_value_heads": 2}
UNFIT = [
    ("llama", "bert", {}, {}, "no decoder; .*model bert encoders"),
    ("bert", "llama", {}, {}, "no encoder .*model llama decoders"),
    ("llama", "gemma3", GEMMA_3, {}, "reads more than text"),
    ("llama", "gemma3_text", {"head_dim": 8, "use_bidirectional_attention": True}, {}, "looks at later tokens"),
    ("llama", "phi", {}, {}, "setting lora_targets: phi has no o_proj; choose among dense, "),
    ("llama", "phi", {}, {"lora_targets": ["dense"], "cuts": [[1, 8]]}, "setting cuts: phi"),
    ("llama", "cohere", {}, {}, "no text classifier of its architecture"),
]


@pytest.mark.parametrize(("name", "kind", "config", "settings", "says"), UNFIT)
def test_an_unfit_base_is_refused_in_one_sentence(tmp_path, tokenizer, name, kind, config, settings, says):
    base = base_of(kind, tmp_path / kind, tokenizer, AutoModel, **config)
    with pytest.raises(StudyError, match=says) as error:
        models.build(name, {"base": str(base), "max_tokens": 32} | settings, LABELS, tmp_path, 0)
    assert "\n" not in str(error.value)


def test_a_llama_of_another_activation_is_not_accelerated(tmp_path, tokenizer):
    base = base_of("llama", tmp_path / "base", tokenizer, AutoModelForCausalLM, hidden_act="relu")
    assert not models.build("llama", {"base": str(base), "dtype": "float32"}, LABELS, tmp_path, 0).accelerated


# --- word vectors -----------------------------------------------------------------------------------------------------
WORDS = ["pain", "fever", "café", "x" * 3000, "chest"]


@pytest.fixture(scope="module")
def word_vectors(tmp_path_factory):
    """What gensim writes of five words: the vectors, and the bytes of a text and of a binary file."""
    made, file = KeyedVectors(6), tmp_path_factory.mktemp("vectors") / "file"
    made.add_vectors(WORDS, np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32))
    contents = []
    for binary in (False, True):
        made.save_word2vec_format(str(file), binary=binary)
        contents.append(file.read_bytes())
    return made, *contents


@pytest.mark.parametrize("name", ["vectors", "vectors.bin", "vectors.txt", "vectors.bin.gz"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_word_vectors_are_known_by_their_content(tmp_path, word_vectors, name, packed, binary):
    content = word_vectors[1 + binary].replace("café".encode(), b"caf\xc3")  # cut within a character
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    found, size = vectors.read_vectors(tmp_path / name, {"pain", "chest", "caf", "nothing"})
    assert size == 6 and sorted(found) == ["chest", "pain"]
    for word, vector in found.items():
        assert vector.dtype == np.float32 and vector.tolist() == word_vectors[0][word].tolist()


def test_records_that_end_lines_and_words_with_blanks_are_read(tmp_path):
    one, two = np.ones(2, "<f4").tobytes(), np.full(2, 2, "<f4").tobytes()
    contents = [b"3 2\npain " + one + b"\nchest " + two + b"\npain " + two + b"\n"]  # the original tool ends each by \n
    contents += [b"4 2\r\npain 1 1\r\nchest x-ray 3 3\r\nchest 2 2 \r\npain 2 2\r\n"]
    for content in contents:
        found, _ = vectors.read_vectors(folder_with(tmp_path, file=content) / "file", {"pain", "chest"})
        assert {word: vector.tolist() for word, vector in found.items()} == {"pain": [1, 1], "chest": [2, 2]}


@pytest.mark.parametrize(("says", "damage"), [
    ("ends after 4 of 5 words", lambda content: content[:-3]),
    ("before the end-of-stream marker", lambda content: gzip.compress(content)[:-9]),
    ("first line does not give", lambda content: content.partition(b"\n")[2]),
    ("ends after 0 of 5 words", lambda content: content[:4] + b"x" * 3_000_000),
])  # fmt: skip
def test_damaged_word_vectors_say_what_is_wrong(tmp_path, word_vectors, notes, says, damage):
    file = folder_with(tmp_path, file=damage(word_vectors[2])) / "file"
    model = models.build("caml", {"vectors": str(file)}, LABELS, tmp_path, 0)
    with pytest.raises(StudyError, match=f"setting vectors: {re.escape(str(file))} is not in .*{says}"):
        model.fit(notes[0], Y)


def test_a_file_of_word_vectors_need_not_fit_into_memory(tmp_path, monkeypatch):
    block = b"".join(b"w%d " % i + bytes(4 * 200) for i in range(1000))
    with gzip.open(tmp_path / "large", "wb", 1) as file:
        file.write(b"30000 200\n" + block * 29 + block.replace(b"w7 ", b"pain "))
    monkeypatch.setenv("HOME", str(tmp_path))
    model = models.build("caml", {"vectors": "~/large", "min_count": 1}, LABELS, tmp_path, 0)
    tracemalloc.start()
    found = model._vectors([["pain", "w3", "unseen"]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (4, 200) and list(model.vocabulary) == ["pain", "w3"] and peak < 8e6  # of 24 MB
