"""Fakes with meaning: an encoder whose similarities follow from shared characters."""

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=10_000)
def _vector(key: str, dimensions: int) -> np.ndarray:
    seed = zlib.crc32(key.encode("utf-8", "surrogatepass"))
    return np.random.default_rng(seed).normal(size=dimensions)


class CharacterEncoder:
    """Encode a text as its bag of characters: texts that share characters are near."""

    dimensions = 64

    def __init__(self, name: str = "characters", salt: str = "") -> None:
        self.name = name
        self.fingerprint = f"{name}/{salt}"
        self._salt = salt
        self.encoded: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for character in text:
                if character.isalnum():
                    row += _vector(self._salt + character, self.dimensions)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded.extend(texts)
        return self.encode_queries(texts)
