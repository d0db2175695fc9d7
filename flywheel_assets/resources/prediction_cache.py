"""The prediction cache: an answer that a model has already given to exactly this question is not asked for again.

What belongs here: what makes two questions the same, and where answers are kept. What does not: building the question and
asking it (`resources.asking`). Errors are never kept: the next attempt may succeed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from flywheel_assets.core.rows import Answer, Json, Variant
from flywheel_assets.resources.serving import Endpoint

# Under the flywheel's home, whatever the platform.
CACHE_FILE = Path("cache") / "predictions.sqlite"
# Bump when the meaning of a key or an entry changes: old entries are then never found.
_FORMAT = 1
# SQLite binds 32,766 variables in one statement at most; far fewer keep each statement short.
_KEYS_A_QUERY = 500
# These say where and by whom a request is answered, which the identities say better.
_NOT_MEANING = ("model", "lora")


class CacheError(Exception):
    """The cache file cannot be used; the message says which file and what to do."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer as it was given. Latency is milliseconds, of the call that produced it; tokens are `core.usage`'s.

    `knows_end`: how the answer ended was read when it was given; entries of earlier versions do not know.
    """

    answer: Answer
    latency_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None = None
    knows_end: bool = True


def prediction_key(body: Mapping[str, object], endpoint: Endpoint, variant: Variant, *, sample: int = 0) -> str:
    """What a prediction depends on, hashed (64 hex digits).

    `body` is the request as it is sent. The variant itself has no part in it, only what it changes: the adapter. So base
    and prefixed share an entry where the prefix is empty. `sample` tells repeated draws of one question apart.
    """
    meaning = {
        "format": _FORMAT,
        "body": {name: value for name, value in body.items() if name not in _NOT_MEANING},
        "model": endpoint.model_identity,
        "template": endpoint.template_identity,
        "adapter": endpoint.adapter_for(variant),
        "engine": endpoint.engine_build,
        "context_length": endpoint.context_length,
        "sample": sample,
        # Only where there is one: the answers of homes that know of none are found under the key they always had.
        **({} if endpoint.again is None else {"again": endpoint.again}),
    }
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


class PredictionCache:
    """Answers by key, in a SQLite file that any number of threads and processes may use at once."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises CacheError when it is something else."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            # A lost entry costs one model call after a power cut; syncing every answer would cost more.
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS predictions (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            raise CacheError(
                f"the prediction cache {path} cannot be used ({error}). Delete it: it is only a cache."
            ) from error

    def __enter__(self) -> PredictionCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def get_many(self, keys: Iterable[str]) -> dict[str, CachedAnswer]:
        """The entries that exist, by key."""
        wanted = list(keys)
        found: dict[str, CachedAnswer] = {}
        for start in range(0, len(wanted), _KEYS_A_QUERY):
            some = wanted[start : start + _KEYS_A_QUERY]
            marks = ",".join("?" * len(some))
            with self._lock:
                rows = self._db.execute(f"SELECT key, value FROM predictions WHERE key IN ({marks})", some).fetchall()
            found.update((key, _decode(json.loads(value))) for key, value in rows)
        return found

    def put(self, key: str, entry: CachedAnswer) -> None:
        """Keep an answer. Where two processes asked the same at the same time, the first answer stays for both."""
        value = json.dumps(_encode(entry), separators=(",", ":"))
        with self._lock:
            self._db.execute("INSERT OR IGNORE INTO predictions (key, value) VALUES (?, ?)", (key, value))

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM predictions").fetchone()[0])


def _encode(entry: CachedAnswer) -> Json:
    return {
        "answer": entry.answer.to_json(),
        "latency_ms": entry.latency_ms,
        "prompt_tokens": entry.prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "cached_tokens": entry.cached_tokens,
        "knows_end": entry.knows_end,
    }


def _decode(value: Json) -> CachedAnswer:
    return CachedAnswer(
        answer=Answer.from_json(value["answer"]),
        latency_ms=value["latency_ms"],
        prompt_tokens=value["prompt_tokens"],
        completion_tokens=value["completion_tokens"],
        # Absent from answers that were kept before cached tokens were read.
        cached_tokens=value.get("cached_tokens"),
        knows_end=value.get("knows_end", False),
    )
