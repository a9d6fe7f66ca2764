"""Keep vectors and find the nearest by cosine, higher is better.

A store holds unit rows numbered 0..n-1 in the order they were added; row *i* is view *i*. Every
store passes the same suite against brute-force numpy, scores included.
"""

import errno
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from assistant.errors import IndexUnusable

Vectors = NDArray[np.float32]
Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

_LARGEST_BYTES = 64 * 2**30
_LARGEST_LOOP = 2**31
_KINDS = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
_LEARNED_FROM = 40  # rows a list; FAISS warns below 39
_BLOCK = 10_000  # rows
_CACHE_LINE = 64  # bytes
_ROUNDS = 6  # of k-means
_PROBED = 8  # of so many lists one is read at least
_ROUGH = faiss.ScalarQuantizer.QT_8bit_direct_signed


class Store(Protocol):
    """Find the nearest rows of a fixed set of unit vectors."""

    dimensions: int

    def __len__(self) -> int:
        """Return the number of rows."""

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Return cosines and rows, shape (queries, min(k, n)), best first, ties by lower row."""

    def vectors(self, rows: Iterable[int]) -> Vectors:
        """Return the stored vectors of the rows, shape (rows, dimensions)."""

    def cosines(self, rows: Rows, query: Vectors) -> Scores:
        """Return the exact cosines of the rows with one query."""

    def matrix(self) -> Vectors:
        """Return all vectors, shape (n, dimensions), without a copy where the store can."""


class FaissStore:
    """Search exactly with FAISS: IndexIDMap2 over a flat inner-product index."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self._flat = flat = faiss.downcast_index(index.index)
        self.dimensions = int(index.d)
        self._halves: NDArray[np.int16] | None = None
        if isinstance(flat, faiss.IndexScalarQuantizer) and len(self):
            codes = faiss.rev_swig_ptr(flat.codes.data(), flat.codes.size())
            if flat.sq.qtype == _KINDS["float16"]:
                self._halves = codes.view(np.int16).reshape(len(self), -1)

    @classmethod
    def build(cls, vectors: Vectors, precision: str = "float32") -> "FaissStore":
        """Take unit rows of shape (n, dimensions); `precision` is one of the setting's.

        int8 cuts each dimension's span into 255 steps.
        """
        count, dimensions = vectors.shape
        flat: Any = faiss.IndexFlatIP(dimensions)
        if precision != "float32":
            kind = _KINDS[precision]
            flat = faiss.IndexScalarQuantizer(dimensions, kind, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexIDMap2(flat)
        if count:
            index.train(np.ascontiguousarray(vectors))
            index.add_with_ids(np.ascontiguousarray(vectors), np.arange(count, dtype=np.int64))
        return cls(index)

    @classmethod
    def open(cls, path: Path) -> "FaissStore":
        """Map what `write` wrote; the file's hash must have been checked before (see M1, M4).

        Processes that open the same file share its memory.
        """
        return cls(_read(path, faiss.IndexIDMap2))

    def write(self, path: Path) -> None:
        """Write the index to a new file; raise OSError when it does not fit."""
        _write(self._index, path)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Find the best `k` rows of each query exactly."""
        scores, rows = _searched(self._index, np.ascontiguousarray(queries), min(k, len(self)))
        for i in range(len(rows)):  # FAISS leaves the order of equal scores open; law 9 does not
            order = np.lexsort((rows[i], -scores[i]))
            scores[i], rows[i] = scores[i][order], rows[i][order]
        return scores, rows

    def vectors(self, rows: Iterable[int]) -> Vectors:
        """Read the rows back; rows equal ids, so the inner flat index is asked directly."""
        wanted = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, dtype=np.int64)
        if self._halves is not None:
            return _floats(self._halves[wanted])
        found: Vectors = self._flat.reconstruct_batch(wanted)
        return found

    def cosines(self, rows: Rows, query: Vectors) -> Scores:
        """Compare by vecdot, for `@` would wake a team of threads."""
        found: Scores = np.vecdot(self.vectors(rows), query)
        return found

    def matrix(self) -> Vectors:
        """Show FAISS's own memory where it is float32 and lies as processors are fast at."""
        if not isinstance(self._flat, faiss.IndexFlat) or not len(self):
            return _lined_up(self.vectors(range(len(self))))
        shape = (len(self), self.dimensions)
        numbers: Vectors = faiss.rev_swig_ptr(self._flat.get_xb(), math.prod(shape))
        return _lined_up(numbers.reshape(shape))


def _lined_up(vectors: Vectors) -> Vectors:
    """Return vectors that begin at a cache line: compared a fifth faster than where numpy begins.

    Those that do already are not copied.
    """
    if not vectors.ctypes.data % _CACHE_LINE:
        return vectors
    room = np.empty(vectors.nbytes + _CACHE_LINE, np.uint8)
    begin = -room.ctypes.data % _CACHE_LINE
    copy: Vectors = room[begin : begin + vectors.nbytes].view(np.float32).reshape(vectors.shape)
    copy[:] = vectors
    return copy


def _read(path: Path, kind: Any) -> Any:
    """Map an index of a kind from its file."""
    faiss.set_deserialization_vector_byte_limit(_LARGEST_BYTES)
    faiss.set_deserialization_loop_limit(_LARGEST_LOOP)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        if not isinstance(index, kind):
            raise RuntimeError(f"it holds a {type(index).__name__}")
        return index
    except (RuntimeError, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error) else "out of memory"
        raise IndexUnusable(
            f"cannot read {path.name}: {reason}. Rebuild with: assistant build"
        ) from None


def _write(index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).splitlines()[-1], str(path)) from None


def _floats(halves: NDArray[np.int16]) -> Vectors:
    """Return half-precision numbers, given by their bits, as floats: thrice as fast as FAISS.

    The sign goes to its place, exponent and mantissa to theirs, and a product mends the exponent.
    """
    bits = halves.astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)
    floats: Vectors = bits.view(np.float32)
    floats *= np.float32(2.0**112)
    return floats


def _searched(index: Any, queries: Vectors, k: int) -> tuple[Scores, Rows]:
    """Search by the calling thread alone; the number of threads is each thread's own setting.

    One question gains nothing from a team of threads, and on a busy machine the team waits a whole
    scheduler tick for its last member: 8 ms instead of 0.02 ms over 372 rows.
    """
    faiss.omp_set_num_threads(1)
    found: tuple[Scores, Rows] = index.search(queries, k)
    return found


def _to_eight_bits(most: Any) -> Any:
    """Return what to multiply values up to `most` by, so that they fit into -127..127."""
    return np.float32(127) / np.maximum(most, np.float32(1e-6))


class Lists:
    """Find rows that are near, roughly: those in the lists whose middles are nearest.

    IVF (Sivic & Zisserman 2003), mapped, so that a question reads a part of the file only. With one
    list every row is compared; with more a near row in a far list is missed.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._rough = index.sq.qtype == _ROUGH

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        rows: Rows,
        least_read: int,
        most: int | None = None,
        rough: bool = False,
    ) -> "Lists":
        """Take unit vectors and their rows, and learn lists from some of them, `most` at most.

        A question reads the lists that hold about `least_read` rows, and an eighth of them at
        least. `rough` keeps eight bits instead of float16: for what is scored again anyway.
        """
        most = most or 4 * math.isqrt(len(rows))
        count = max(1, min(most, len(rows) // _LEARNED_FROM))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(vectors.shape[1]),
            vectors.shape[1],
            count,
            _ROUGH if rough else _KINDS["float16"],
            faiss.METRIC_INNER_PRODUCT,
            False,  # rows as they are, not as they differ from the middle of their list
        )
        index.cp.min_points_per_centroid = 1  # no warning of few rows
        index.cp.max_points_per_centroid = _LEARNED_FROM
        index.cp.niter = _ROUNDS
        index.cp.spherical = True
        some = vectors[:: max(1, len(vectors) // (_LEARNED_FROM * count))]
        index.train(some if len(some) else np.zeros((1, index.d), np.float32))
        scale = _to_eight_bits(max(vectors.max(initial=0), -vectors.min(initial=0)))
        for begin in range(0, len(rows), _BLOCK):
            part = vectors[begin : begin + _BLOCK]
            part = np.round(part * scale) if rough else np.ascontiguousarray(part)
            index.add_with_ids(part, rows[begin : begin + _BLOCK])
        index.nprobe = math.ceil(count * min(1, max(1 / _PROBED, least_read / max(1, len(rows)))))
        return cls(index)

    @classmethod
    def open(cls, path: Path) -> "Lists":
        """Map what `write` wrote; the file's hash must have been checked before."""
        return cls(_read(path, faiss.IndexIVFScalarQuantizer))

    def write(self, path: Path) -> None:
        """Write the lists to a new file; raise OSError when they do not fit."""
        _write(self._index, path)

    def __len__(self) -> int:
        """Return the number of rows in all lists."""
        return int(self._index.ntotal)

    @property
    def count(self) -> int:
        """Return the number of lists."""
        return int(self._index.nlist)

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Rows]:
        """Return cosines and rows, shape (queries, k), best first; row -1 where there are fewer.

        Of rough lists the cosines are of some other scale.
        """
        if self._rough:
            queries = np.round(queries * _to_eight_bits(np.abs(queries).max(axis=1, keepdims=True)))
        return _searched(self._index, np.ascontiguousarray(queries), k)
