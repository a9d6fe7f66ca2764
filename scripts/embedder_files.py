"""Write the model folder: sentence-transformers' layout, rows in eight bits, checksums last."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from embedder_vocabulary import compact
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer

_STATIC = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
_NORMALIZE = "sentence_transformers.base.modules.normalize.Normalize"
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": _STATIC},
    {"idx": 1, "name": "1", "path": "1_Normalize", "type": _NORMALIZE},
]
_NORMALIZED = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
_CONFIG = {
    "__version__": {"sentence_transformers": "6.2.0"},
    "model_type": "SentenceTransformer",
    "prompts": {"query": "", "document": ""},
    "default_prompt_name": None,
    "similarity_fn_name": "cosine",
}


def eight_bits(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return rows of -127 to 127 and the factor of each row that gives it back, nearly."""
    factors = np.abs(rows).max(axis=1) / 127
    safe = np.where(factors > 0, factors, 1)
    return np.rint(rows / safe[:, None]).astype(np.int8), factors.astype(np.float32)


def write_model(folder: Path, tokenizer: Tokenizer, rows: NDArray[np.float32]) -> None:
    """Write every file beside its place, then move all there, the checksums last."""
    embeddings, weights = eight_bits(rows / np.linalg.norm(rows[2:], axis=1).mean())
    files = {
        "model.safetensors": save({"embeddings": embeddings, "weights": weights}),
        "tokenizer.json": compact(tokenizer).encode(),
        "modules.json": _json(_MODULES),
        "1_Normalize/config.json": _json(_NORMALIZED),
        "config_sentence_transformers.json": _json(_CONFIG),
    }
    sums = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    files["SHA256SUMS"] = "".join(sums).encode()
    for name, data in files.items():
        path = folder / f"{name}.new"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in files:
        os.replace(folder / f"{name}.new", folder / name)


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
