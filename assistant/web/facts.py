"""Say what index is in use, for health, metrics and programs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import orjson

from assistant.desk import Desk
from assistant.generations import MANIFEST


@dataclass(frozen=True, slots=True)
class Generation:
    """Hold what the index in use is: when it was made (ISO 8601), with what, and how large.

    `age_seconds` is None, and other facts are empty, when its manifest cannot be read any more.
    """

    generation: str
    created: str
    age_seconds: float | None
    model: str
    dimensions: int
    documents: int | None
    passages: int
    views: int


def generation(desk: Desk) -> Generation:
    """Return what index a desk answers from."""
    index = desk.index
    created, documents = _made(index.folder)
    age = (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds() if created else None
    return Generation(
        generation=index.folder.name,
        created=created,
        age_seconds=age,
        model=desk.encoder.name,
        dimensions=desk.encoder.dimensions,
        documents=documents,
        passages=len(index),
        views=index.view_count,
    )


@lru_cache(maxsize=4)
def _made(folder: Path) -> tuple[str, int | None]:
    """Return when a generation was made and of how many documents; a generation never changes."""
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        return str(manifest["created"]), int(manifest["facts"]["counts"]["documents"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", None
