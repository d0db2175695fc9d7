"""Sides: which conversation is trained on and which is examined on, for ever.

A conversation is known by its keys: its session (if it has one), its prompt, and those it shares with near-duplicates (the
bands of `core.cleaning.near`). Keys that occur together belong to one cluster; the cluster's side is a hash of (seed,
cluster), taken when it is first seen, and never changes as traffic grows: a row once trained on can never turn up in an
evaluation. A row that links clusters of both sides is left out.

What belongs here: keys, clusters, sides, and the state that remembers them. What does not: which rows of a side are
drawn (`draw`), and how alike near-duplicates are (`core.cleaning.near`).
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_assets.core.datasets.exam import Draw
from flywheel_assets.core.datasets.index import Array, read_columns

SPLIT_FILE = "split.json"
KEYS_FILE = "split_keys.parquet"
FORMAT = 2
# A near-duplicate key that so many rows share (and this share of them) is the mark of a template that requests are written
# from. Its rows differ where it matters; kept together they would be one cluster, and nothing would be left to examine on.
TEMPLATE_ROWS = 50
TEMPLATE_SHARE = 0.02
# Rows looped over at a time: bounds the Python integers alive at once.
_LOOP_ROWS = 65_536


class Side(IntEnum):
    """The side of a cluster. A key has UNKNOWN before it is first seen, and TEMPLATE once it tells nothing."""

    UNKNOWN = 0
    TRAIN = 1
    EVAL = 2
    TEMPLATE = 3


@dataclass(frozen=True, slots=True)
class SplitTerms:
    """What was fixed when a workload's first dataset was built, and stays in force.

    `eval_share`, in (0, 1), is the share of clusters on the eval side; it was computed over `fixed_over` usable records.
    The others hold where the settings say nothing: how an exam is drawn, how many rows it takes of one conversation at
    most (None: any number), and how large it is (None: `exam.OLD_EVAL_SIZE`), with the row counts at which to look, the
    reason for both, and the margins of default gates (`exam.ExamPlan`). Their defaults are those of workloads that began
    before they were written down.
    """

    random_seed: int
    eval_share: float
    fixed_over: int
    draw: str = Draw.BALANCED
    max_rows_per_conversation: int | None = None
    eval_size: int | None = None
    looks: tuple[int, ...] = ()
    note: str = ""
    default_margins: Mapping[str, float | None] | None = None


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """Every key ever seen: sorted 64-bit hashes, and for each its side and its cluster.

    A cluster's name is its first key; `firsts` says where among `keys` that stands. Positions, because looking millions of
    hashes up costs more than everything else here together.
    """

    keys: Array
    sides: Array
    firsts: Array

    @classmethod
    def none(cls) -> KnownKeys:
        """Before the first build."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint8), np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class Assignment:
    """The side of each row. `links` marks rows whose keys lie on both sides; their `sides` mean nothing.

    `clusters` is the cluster of the row's session (its prompt where it has none). Two clusters of one side that a later
    row linked keep their names, so a row can have keys of several: `places` (rows x keys, -1 for none) says where each of
    its keys stands in `key_clusters`.
    """

    sides: Array
    clusters: Array
    links: Array
    places: Array
    key_clusters: Array


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
    terms: SplitTerms, known: KnownKeys, prompts: Array, sessions: Array, train_only: Array, near: Array | None = None
) -> tuple[Assignment, KnownKeys]:
    """The side of each row, in ingestion order, and the keys known afterwards.

    `prompts` and `sessions` are 64-bit hashes, one a row (session 0: none); `near` are keys of near-duplicates, rows x
    keys (0: none). A cluster first seen in a `train_only` row goes to the training side. What was known keeps its side:
    giving rows again changes nothing. A near key that marks a template (`TEMPLATE_ROWS`) says nothing from then on.
    """
    given: Array = np.column_stack([sessions, prompts] if near is None else [sessions, prompts, near])
    present = given != 0
    keys, inverse = np.unique(np.concatenate([known.keys, given[present]]), return_inverse=True)
    place = inverse[: len(known.keys)]
    sides = np.zeros(len(keys), np.uint8)
    sides[place] = known.sides
    firsts = np.zeros(len(keys), np.int32)
    firsts[place] = place[known.firsts]
    places: Array = np.full(given.shape, -1, np.int32, order="F")
    places[present] = inverse[len(known.keys) :]
    del given, inverse
    _mark_templates(places, sides, firsts)
    places[(sides[places] == Side.TEMPLATE) & present] = -1
    del present
    lead = np.where(sessions != 0, sessions, prompts)
    fresh = np.where(uniform_hash("side", terms.random_seed, lead) < terms.eval_share, Side.EVAL, Side.TRAIN).astype(
        np.uint8
    )
    fresh[train_only] = Side.TRAIN
    sides, firsts = _see(sides, firsts, places, fresh)
    clusters = keys[firsts]
    lead_at = np.where(places[:, 0] >= 0, places[:, 0], places[:, 1])
    links = np.zeros(len(lead_at), bool)
    for column in places.T:
        links |= (column >= 0) & (sides[column] != sides[lead_at])
    assignment = Assignment(
        sides=sides[lead_at], clusters=clusters[lead_at], links=links, places=places, key_clusters=clusters
    )
    return assignment, KnownKeys(keys, sides, firsts)


def _mark_templates(places: Array, sides: Array, firsts: Array) -> None:
    """Give the near keys that too many rows share the side that says nothing, in place."""
    near = places[:, 2:]
    counts = np.bincount(near[near >= 0], minlength=len(sides))
    templates = np.flatnonzero(counts >= max(TEMPLATE_ROWS, TEMPLATE_SHARE * len(places)))
    sides[templates] = Side.TEMPLATE
    firsts[templates] = templates


def _see(sides: Array, first: Array, places: Array, fresh: Array) -> tuple[Array, Array]:
    """Give every key of these rows a side and a cluster, row by row: the order decides, as it does from day to day."""
    shared = (sides != 0) | (np.bincount(places[places >= 0], minlength=len(sides)) > 1)
    unseen = np.zeros(len(places), bool)
    linked = np.zeros(len(places), bool)
    for column in places.T:
        unseen |= (column >= 0) & (sides[column] == 0)
        linked |= (column >= 0) & shared[column]
    # Most rows share no key with any other: they need no order, and no loop.
    alone = np.flatnonzero(unseen & ~linked)
    lead = np.where(places[alone, 0] >= 0, places[alone, 0], places[alone, 1])
    for column in places[alone].T:
        held = column >= 0
        sides[column[held]] = fresh[alone][held]
        first[column[held]] = lead[held]
    rows = np.flatnonzero(unseen & linked)
    side = bytearray(sides.tobytes())
    first_of = array("i", first.tobytes())
    for start in range(0, len(rows), _LOOP_ROWS):
        part = rows[start : start + _LOOP_ROWS]
        for row, new in zip(places[part].tolist(), fresh[part].tolist(), strict=True):
            held_by = -1
            for key in row:
                if key >= 0 and side[key]:
                    held_by = key
                    break
            if held_by >= 0:
                new, lead_key = side[held_by], first_of[held_by]
            else:
                lead_key = row[0] if row[0] >= 0 else row[1]
            for key in row:
                if key >= 0 and not side[key]:
                    side[key], first_of[key] = new, lead_key
    return np.frombuffer(side, np.uint8), np.frombuffer(first_of, np.int32)


def write_split(folder: Path, terms: SplitTerms, known: KnownKeys) -> None:
    """Write `split.json` and `split_keys.parquet`."""
    content = {"format": FORMAT, **asdict(terms)}
    (folder / SPLIT_FILE).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    table = pa.table({"key": known.keys, "side": known.sides, "first": known.firsts})
    pq.write_table(table, folder / KEYS_FILE, use_dictionary=["side"], compression="none")


def read_split(folder: Path) -> tuple[SplitTerms, KnownKeys]:
    """What `write_split` wrote; ValueError on a format of another release (sides must not be guessed)."""
    content = orjson.loads((folder / SPLIT_FILE).read_bytes())
    if content.pop("format") != FORMAT:
        raise ValueError(
            f"{folder / SPLIT_FILE} has another format than {FORMAT}: the sides it remembers cannot be read, and new ones "
            "would mix training and eval rows. Use the release that wrote it, or start the workload under a new id."
        )
    table = read_columns(folder / KEYS_FILE, ["key", "side", "first"])
    known = KnownKeys(table["key"].to_numpy(), table["side"].to_numpy(), table["first"].to_numpy())
    return SplitTerms(**{**content, "looks": tuple(content.get("looks", ()))}), known
