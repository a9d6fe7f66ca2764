"""Turn texts into unit vectors with a local model.

Two encoders meet one protocol. `StaticEncoder` serves sentence-transformers folders that hold a
`StaticEmbedding` (the shipped model is one) with numpy and `tokenizers` alone: a text's vector is
the sum of its tokens' rows, normalised (model2vec, Minish Lab 2024). `TransformerEncoder` serves
every other sentence-transformers model, offline unless a setting allows downloads, and never runs
code that a model brings along.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assistant.errors import ModelUnusable
from assistant.fold import simplify
from assistant.settings import Settings

Vectors = NDArray[np.float32]
_SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {
    "I8": np.dtype("i1"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}
# How the shipped model's tokenizer cuts texts.
_RUNS = r"[\u4e00-\u9fff]+|[a-z]+|[0-9]"
_CUT = f'Split(pattern=Regex("{_RUNS}"), behavior=Removed, invert=True)'
_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


class Encoder(Protocol):
    """Map texts to unit rows; a text without a single known token maps to a zero row.

    `fingerprint` identifies the model's files and prompts: vectors of encoders with different
    fingerprints must never be compared, even when their dimensions agree.
    """

    name: str
    dimensions: int
    fingerprint: str

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return float32 rows of shape (len(texts), dimensions) for questions."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return float32 rows of shape (len(texts), dimensions) for passages."""


def open_encoder(settings: Settings) -> Encoder:
    """Open the model that the settings name: a folder, or a sentence-transformers name."""
    folder = Path(settings.model)
    if not folder.is_dir():
        if not _looks_like_a_name(settings.model):
            raise ModelUnusable(
                f"no model folder at {folder}; expected a sentence-transformers folder. "
                "Set ASSISTANT_MODEL to one, or unset it for the shipped model."
            )
        return TransformerEncoder(settings.model, settings)
    _verify_checksums(folder)
    if _is_static(folder):
        return StaticEncoder(folder, settings)
    return TransformerEncoder(str(folder), settings)


def is_light(settings: Settings) -> bool:
    """Tell whether the model that the settings name starts no threads, so that a fork shares it."""
    folder = Path(settings.model)
    return folder.is_dir() and _is_static(folder)


class StaticEncoder:
    """Serve a StaticEmbedding folder: memory-mapped rows, no torch, about 20 µs a query."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.name = folder.name
        self._rows, self._factors = _map_rows(folder / "model.safetensors")
        self.dimensions = int(self._rows.shape[1])
        self._tokenizer = _read_tokenizer(folder / "tokenizer.json", len(self._rows))
        self._runs = _runs(self._tokenizer)
        self._run = lru_cache(maxsize=20_000)(self._run_tokens)
        self._query_prompt, self._document_prompt = _prompts(folder, settings)
        self.fingerprint = _fingerprint(folder, self._query_prompt, self._document_prompt)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Encode questions behind the model's query prompt."""
        return self._encode([self._query_prompt + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Encode passages behind the model's document prompt."""
        return self._encode([self._document_prompt + text for text in texts])

    def _encode(self, texts: list[str]) -> Vectors:
        sums = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, tokens in enumerate(self._tokens(list(map(simplify, texts)))):
            if tokens:
                ids = np.array(tokens)
                rows = self._rows.take(ids, axis=0).astype(np.float32)
                np.dot(self._factors.take(ids), rows, out=sums[row])
        return _unit(sums)

    def _tokens(self, texts: list[str]) -> Iterable[list[int]]:
        """Return the tokens of each text, run by run where that is the same: runs come again."""
        if self._runs is None:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            return (encoding.ids for encoding in encodings)
        plain, runs, tokens_of = self._tokenizer.normalizer.normalize_str, self._runs, self._run
        return ([i for run in runs.findall(plain(text)) for i in tokens_of(run)] for text in texts)

    def _run_tokens(self, run: str) -> list[int]:
        return [token.id for token in self._tokenizer.model.tokenize(run)]


class TransformerEncoder:
    """Serve any sentence-transformers model; imports torch, so it starts in seconds."""

    def __init__(self, model: str, settings: Settings) -> None:
        from sentence_transformers import SentenceTransformer

        offline = not settings.allow_downloads
        try:
            self._model: Any = SentenceTransformer(
                model,
                device="cpu",
                local_files_only=offline,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            hint = "Give the folder of its files" + (
                ", or set ASSISTANT_ALLOW_DOWNLOADS=true where there is a network."
                if offline
                else "."
            )
            raise ModelUnusable(f"cannot load the model {model!r}: {reason}. {hint}") from None
        self._model.float()  # a half-precision file would give half-precision vectors
        self.name = Path(model).name
        self.dimensions = int(self._model.get_embedding_dimension() or 0)
        prompts = self._model.prompts or {}
        self._query_prompt = _either(settings.query_prompt, prompts.get("query"))
        self._document_prompt = _either(settings.document_prompt, prompts.get("document"))
        folder = Path(model)
        self.fingerprint = (
            _fingerprint(folder, self._query_prompt, self._document_prompt)
            if folder.is_dir()
            else _weights_fingerprint(self._model, self._query_prompt, self._document_prompt)
        )

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Encode questions behind the model's query prompt."""
        return self._encode(texts, self._query_prompt)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Encode passages behind the model's document prompt."""
        return self._encode(texts, self._document_prompt)

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        rows = self._model.encode(
            [simplify(text) for text in texts],
            prompt=prompt,
            batch_size=64,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return _unit(np.asarray(rows, dtype=np.float32))


def _unit(rows: Vectors) -> Vectors:
    lengths: Vectors = np.sqrt(np.vecdot(rows, rows))
    lengths[lengths == 0] = 1.0
    unit: Vectors = rows / lengths[:, None]
    return unit


def _looks_like_a_name(model: str) -> bool:
    return model.count("/") <= 1 and not model.startswith((".", "/", "~")) and "\\" not in model


def _is_static(folder: Path) -> bool:
    """Tell whether the folder's modules are a StaticEmbedding and at most a Normalize."""
    modules = _read_json(folder / "modules.json", "a sentence-transformers folder has one")
    try:
        kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
        paths = [str(module["path"]) for module in modules]
    except (KeyError, TypeError):
        raise ModelUnusable(
            f"{folder / 'modules.json'} does not list modules; copy it anew."
        ) from None
    if not kinds:
        raise ModelUnusable(f"{folder / 'modules.json'} lists no modules; copy the model anew.")
    return kinds in (["StaticEmbedding"], ["StaticEmbedding", "Normalize"]) and paths[0] == ""


def _read_json(path: Path, expected: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelUnusable(
            f"{path} is missing ({expected}); copy the model folder anew."
        ) from None
    except (OSError, ValueError) as error:
        raise ModelUnusable(f"cannot read {path} ({error}); copy the model folder anew.") from None


def _map_rows(path: Path) -> tuple[NDArray[Any], Vectors]:
    """Map the matrix of a safetensors file and its factor for each row (1 where it has none).

    The matrix is `embedding.weight`, or `embeddings` with `weights` as model2vec writes it.
    """
    try:
        tensors = _map_tensors(path)
        factors = tensors.pop("weights", None)
        (rows,) = tensors.values()
        if rows.ndim != 2 or (factors is not None and factors.shape != rows.shape[:1]):
            raise ValueError("its shapes do not fit")
        ones = np.ones(len(rows), np.float32)
        return rows, ones if factors is None else factors.astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnusable(
            f"cannot use {path} ({error}); expected one matrix and at most one factor a row. "
            "Copy the model folder anew."
        ) from None


def _map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map every tensor of a safetensors file (format: huggingface/safetensors README)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise ValueError("its header is not that of a safetensors file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    end = max(entry["data_offsets"][1] for entry in header.values())
    if 8 + length + end != size:
        raise ValueError(f"it has {size} bytes, its header speaks of {8 + length + end}")
    return {name: _map_tensor(path, 8 + length, entry) for name, entry in header.items()}


def _map_tensor(path: Path, base: int, entry: dict[str, Any]) -> NDArray[Any]:
    kind, shape = _SAFETENSORS_TYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
    begin, end = entry["data_offsets"]
    if begin < 0 or end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError("its offsets do not fit its shapes")
    mapped = np.memmap(path, kind, "r", base + begin, shape)
    return np.asarray(mapped)  # still mapped, without memmap's cost at every indexing


def _read_tokenizer(path: Path, rows: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        raise ModelUnusable(f"cannot read {path} ({error}); copy the model folder anew.") from None
    if tokenizer.get_vocab_size() != rows:
        raise ModelUnusable(
            f"{path} has {tokenizer.get_vocab_size()} tokens but the model {rows} rows: "
            "they belong to different models. Copy the model folder anew."
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _runs(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Return what cuts a text into runs whose tokens are the text's; None when that is not sure."""
    known = tokenizer.normalizer is not None and not tokenizer.get_added_tokens_decoder()
    return re.compile(_RUNS) if known and repr(tokenizer.pre_tokenizer) == _CUT else None


def _prompts(folder: Path, settings: Settings) -> tuple[str, str]:
    path = folder / "config_sentence_transformers.json"
    prompts = (
        (_read_json(path, "it holds the prompts").get("prompts") or {}) if path.exists() else {}
    )
    return (
        _either(settings.query_prompt, prompts.get("query")),
        _either(settings.document_prompt, prompts.get("document")),
    )


def _either(setting: str | None, own: str | None) -> str:
    return setting if setting is not None else own or ""


def _model_files(folder: Path) -> list[Path]:
    return sorted({path for pattern in _MODEL_FILES for path in folder.rglob(pattern)})


def _fingerprint(folder: Path, *prompts: str) -> str:
    digest = hashlib.sha256(json.dumps(prompts).encode())
    for path in _model_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _weights_fingerprint(model: Any, *prompts: str) -> str:
    digest = hashlib.sha256(json.dumps(prompts).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _verify_checksums(folder: Path) -> None:
    """Refuse a model whose files differ from its `SHA256SUMS`, where it has that file."""
    sums = folder / "SHA256SUMS"
    if not sums.exists():
        return
    for line in sums.read_text("utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        try:
            with path.open("rb") as file:
                seen = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelUnusable(f"{path}: {error.strerror}; copy the model folder anew.") from None
        if seen != expected:
            raise ModelUnusable(
                f"{path} has sha256 {seen[:12]}…, expected {expected[:12]}…: it is damaged or "
                "half copied. Copy the model folder anew."
            )
