"""Encode on a Ray cluster: actors that hold the model, texts that stream through ray.data."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from assistant.embed import Vectors, open_encoder
from assistant.errors import IndexUnusable, ModelUnusable, UsageError
from assistant.settings import Settings

_PART = 64  # texts sent at once; what a dying node holds is encoded again elsewhere
_PATIENCE = 5.0  # seconds


class Actor:
    """Hold the model on a node of the cluster and encode the parts that come."""

    def __init__(self, settings: Settings, fingerprint: str) -> None:
        self._encoder = open_encoder(settings)
        if self._encoder.fingerprint != fingerprint:
            raise ModelUnusable(
                "a node of the cluster has another model of this name; copy it anew"
            )

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Encode one part."""
        texts = [text.decode("utf-8", "surrogatepass") for text in part["texts"]]
        vectors = self._encoder.encode_passages(texts)
        return {"begin": part["begin"], "vectors": vectors.astype("<f4").tobytes()}


class RayEngine:
    """Encode texts on the cluster that RAY_ADDRESS names, or on this machine's cores."""

    def __init__(self, settings: Settings, fingerprint: str, dimensions: int) -> None:
        """Take the settings with which every node opens the model, and what that must be."""
        _library()
        self._given = (settings, fingerprint)
        self._dimensions = dimensions

    def __call__(self, texts: Sequence[str]) -> Iterator[tuple[int, Vectors]]:
        """Yield the vectors of parts of the texts in whatever order they come."""
        ray = _library()
        ours = not ray.is_initialized()
        try:
            if ours:
                _join(ray)
            for part in self._encoded(ray, texts) if texts else ():
                vectors = np.frombuffer(part["vectors"], "<f4").reshape(-1, self._dimensions)
                yield int(part["begin"]), vectors
        except OSError as error:
            raise UsageError(
                f"no Ray cluster at RAY_ADDRESS = {os.environ.get('RAY_ADDRESS')!r} "
                f"({error!s:.100}). Start it with: ray start --head; or unset RAY_ADDRESS to use "
                "this machine alone"
            ) from None
        except (ray.exceptions.RayError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise IndexUnusable(f"the Ray cluster did not encode all: {reason[0]:.200}") from None
        finally:
            if ours:
                ray.shutdown()

    def _encoded(self, ray: Any, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # of its own
        parts = [
            {
                "begin": i,
                "texts": [t.encode("utf-8", "surrogatepass") for t in texts[i : i + _PART]],
            }
            for i in range(0, len(texts), _PART)
        ]
        most = max(1, int(ray.cluster_resources().get("CPU", 1)))
        data = ray.data.from_items(parts, override_num_blocks=min(len(parts), 100 * most))
        actors = ray.data.ActorPoolStrategy(min_size=1, max_size=most)
        encoded = data.map(Actor, fn_constructor_args=self._given, compute=actors, num_cpus=1)
        rows: Iterator[dict[str, Any]] = encoded.iter_rows()
        return rows


def _join(ray: Any) -> None:
    """Join the cluster of RAY_ADDRESS, or start one of this machine's cores alone."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address := os.environ.get("RAY_ADDRESS"):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if port.isdigit():  # Ray itself would try for a quarter of an hour
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(**quiet)
    else:
        ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)


@cache
def _library() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError(
            "--engine ray needs the extra 'ray'. Install it with: pip install '.[ray]'"
        ) from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of every step
    return ray
