"""Sides: which conversation is trained on and which is examined on, for ever.

A conversation is known by two keys: its session (if it has one) and its prompt. Keys that occur together belong to one
cluster; the cluster's side is a hash of (seed, cluster), taken when it is first seen, and never changes as traffic grows:
a row once trained on can never turn up in an evaluation. A row that links clusters of both sides is left out.

What belongs here: keys, clusters, sides, and the state that remembers them. What does not: which rows of a side are
drawn (`draw`), and near-duplicates that are not equal (not built yet).
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.core.datasets.index import Array, read_columns

SPLIT_FILE = "split.json"
KEYS_FILE = "split_keys.parquet"
FORMAT = 1
# Rows looped over at a time: bounds the Python integers alive at once.
_LOOP_ROWS = 65_536


class Side(IntEnum):
    """The side of a cluster; UNKNOWN is what a key has before it is first seen."""

    UNKNOWN = 0
    TRAIN = 1
    EVAL = 2


@dataclass(frozen=True, slots=True)
class SplitTerms:
    """What was fixed when a workload's first dataset was built, and stays in force.

    `eval_share`, in (0, 1), is the share of clusters on the eval side; it was computed over `fixed_over` usable records.
    """

    random_seed: int
    eval_share: float
    fixed_over: int


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """Every key ever seen: sorted 64-bit hashes, and for each its side and its cluster (the hash of its first key)."""

    keys: Array
    sides: Array
    clusters: Array

    @classmethod
    def none(cls) -> KnownKeys:
        """Before the first build."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint8), np.empty(0, np.uint64))


@dataclass(frozen=True, slots=True)
class Assignment:
    """The side of each row. `links` marks rows whose keys lie on both sides; their `sides` mean nothing.

    `clusters` is the cluster of the row's session (its prompt where it has none), `prompt_clusters` that of its prompt:
    two clusters of one side that a later row linked keep their names.
    """

    sides: Array
    clusters: Array
    prompt_clusters: Array
    links: Array


def uniform_hash(purpose: str, seed: int, values: Array) -> Array:
    """Numbers in [0, 1), one for each 64-bit value: the same for the same purpose, seed and value on every machine."""
    salt = int.from_bytes(hashlib.sha256(f"{purpose}:{seed}".encode()).digest()[:8], "little")
    # The finaliser of SplitMix64: the values are hashes already, this only makes purposes and seeds independent.
    mixed = values.astype(np.uint64) ^ np.uint64(salt)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def assign_sides(
    terms: SplitTerms, known: KnownKeys, prompts: Array, sessions: Array, train_only: Array
) -> tuple[Assignment, KnownKeys]:
    """The side of each row, in ingestion order, and the keys known afterwards.

    `prompts` and `sessions` are 64-bit hashes, one a row (session 0: none). A cluster first seen in a `train_only` row
    goes to the training side. What was known keeps its side: giving rows again changes nothing.
    """
    has_session = sessions != 0
    keys = np.unique(np.concatenate([known.keys, prompts, sessions[has_session]]))
    place = np.searchsorted(keys, known.keys)
    sides = np.zeros(len(keys), np.uint8)
    sides[place] = known.sides
    clusters = np.zeros(len(keys), np.uint64)
    clusters[place] = known.clusters
    prompt_at = np.searchsorted(keys, prompts).astype(np.int32)
    session_at = np.where(has_session, np.searchsorted(keys, sessions), -1).astype(np.int32)
    lead = np.where(has_session, sessions, prompts)
    fresh = np.where(uniform_hash("side", terms.random_seed, lead) < terms.eval_share, Side.EVAL, Side.TRAIN).astype(
        np.uint8
    )
    fresh[train_only] = Side.TRAIN
    unseen = np.flatnonzero((sides[prompt_at] == 0) | (has_session & (sides[session_at] == 0)))
    sides, clusters = _see(keys, sides, clusters, prompt_at[unseen], session_at[unseen], fresh[unseen])
    lead_at = np.where(has_session, session_at, prompt_at)
    assignment = Assignment(
        sides=sides[lead_at],
        clusters=clusters[lead_at],
        prompt_clusters=clusters[prompt_at],
        links=sides[lead_at] != sides[prompt_at],
    )
    return assignment, KnownKeys(keys, sides, clusters)


def _see(
    keys: Array, sides: Array, clusters: Array, prompt_at: Array, session_at: Array, fresh: Array
) -> tuple[Array, Array]:
    """Give every key of these rows a side and a cluster, row by row: the order decides, as it does from day to day."""
    side = bytearray(sides.tobytes())
    # Positions of the first key instead of its hash: small integers are cheaper in the loop.
    first = array("i", np.zeros(len(keys), np.int32).tobytes())
    # A known cluster's first key is itself a known key.
    known = np.flatnonzero(sides)
    first_of_known = np.searchsorted(keys, clusters[known])
    as_array = np.frombuffer(first, np.int32)
    as_array[known] = first_of_known
    for start in range(0, len(prompt_at), _LOOP_ROWS):
        part = slice(start, start + _LOOP_ROWS)
        for prompt, session, new in zip(
            prompt_at[part].tolist(), session_at[part].tolist(), fresh[part].tolist(), strict=True
        ):
            if session < 0:
                if not side[prompt]:
                    side[prompt], first[prompt] = new, prompt
            elif side[session]:
                if not side[prompt]:
                    side[prompt], first[prompt] = side[session], first[session]
            elif side[prompt]:
                side[session], first[session] = side[prompt], first[prompt]
            else:
                side[session] = side[prompt] = new
                first[session] = first[prompt] = session
    return np.frombuffer(side, np.uint8), keys[as_array]


def write_split(folder: Path, terms: SplitTerms, known: KnownKeys) -> None:
    """Write `split.json` and `split_keys.parquet`."""
    content = {"format": FORMAT, **asdict(terms)}
    (folder / SPLIT_FILE).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    table = pa.table({"key": known.keys, "side": known.sides, "cluster": known.clusters})
    pq.write_table(table, folder / KEYS_FILE, use_dictionary=["side"], compression="none")


def read_split(folder: Path) -> tuple[SplitTerms, KnownKeys]:
    """What `write_split` wrote; ValueError on a format of another release (sides must not be guessed)."""
    content = orjson.loads((folder / SPLIT_FILE).read_bytes())
    if content.pop("format") != FORMAT:
        raise ValueError(
            f"{folder / SPLIT_FILE} has another format than {FORMAT}: the sides it remembers cannot be read, and new ones "
            "would mix training and eval rows. Use the release that wrote it, or start the workload under a new id."
        )
    table = read_columns(folder / KEYS_FILE, ["key", "side", "cluster"])
    known = KnownKeys(table["key"].to_numpy(), table["side"].to_numpy(), table["cluster"].to_numpy())
    return SplitTerms(**content), known
