"""The catalog: `model_selection.json`, which says for every workload what may serve it, and how that came to be.

What belongs here: its entries, and how a new set of decisions changes it. What does not: where it lies and how it is
replaced atomically (`resources.artifacts`), or serving by it (`runtime`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from flywheel_assets.core.rows import Json

CATALOG_VERSION = 1
CATALOG_FILE = "model_selection.json"


class CatalogError(ValueError):
    """A catalog cannot be read; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What was decided about one workload.

    `candidate`, `variant` and `adapter_version` name the model of a promotion and are None where the incumbent is kept or
    nothing is settled; `metrics` are its scores, `{metric: {"value", "low", "high", "n"}}`. `evidence` names the decision
    artifact. `serving` is the model that a person approved and nobody rolled back, whatever was decided since:
    `{"candidate", "variant", "adapter_version", "decision", "approved_by", "since"}` and, where its adapter was published,
    `"hub": {"repository", "revision", "tag"}`; None for the teacher. `last_act` is the latest thing a person did:
    `{"action", "who", "why", "time", "decision"}`. `expires` (ISO 8601) is when the decision grows too old. `time` (ISO
    8601) is when the entry last changed: None in entries handed to `update_catalog`, which sets it.
    """

    workload: str
    workload_id: str
    verdict: str
    approved: bool
    candidate: str | None
    variant: str | None
    adapter_version: str | None
    metrics: Json
    dataset_version: str
    evidence: str
    serving: Json | None = None
    last_act: Json | None = None
    expires: str | None = None
    time: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CatalogEntry:
        """An entry of `model_selection.json`; keys that this version does not know are ignored."""
        known = {item.name for item in fields(cls)}
        try:
            return cls(**{key: found for key, found in value.items() if key in known})
        except TypeError as error:
            raise CatalogError(
                f"catalog entry {dict(value)!r} is incomplete ({error}). Materialize model_catalog."
            ) from error


def update_catalog(previous: Mapping[str, Any] | None, entries: Sequence[CatalogEntry], now: str) -> Json:
    """The catalog after a set of decisions; `now` is ISO 8601 in UTC.

    Returns `{"version", "updated", "workloads": {slug: entry}, "history": [{"time", "workload", "change", "from", "to"}]}`.
    A workload without a new entry keeps its old one. Only a changed entry gets a new time and a line of history, which is
    only ever appended to; where nothing changed the catalog stays as it was, `updated` included. `previous` is not altered.
    """
    before = _checked(previous)
    workloads: dict[str, Json] = dict(before["workloads"])
    history: list[Json] = list(before["history"])
    for entry in entries:
        new = {**asdict(entry), "time": now}
        old = workloads.get(entry.workload)
        if old is not None and _without_time(old) == _without_time(new):
            continue
        workloads[entry.workload] = new
        history.append({"time": now, "workload": entry.workload, "change": _change(old, new), "from": old, "to": new})
    changed = len(history) > len(before["history"]) or previous is None
    return {
        "version": CATALOG_VERSION,
        "updated": now if changed else before["updated"],
        "workloads": dict(sorted(workloads.items())),
        "history": history,
    }


def read_entry(catalog: Mapping[str, Any], workload: str) -> CatalogEntry | None:
    """What the catalog says of a workload, or None when it has not been decided on."""
    found = _checked(catalog)["workloads"].get(workload)
    return None if found is None else CatalogEntry.from_json(found)


def act_in(change: Mapping[str, Any]) -> Json | None:
    """The act of a person (`last_act`) that a line of history is about; None where it followed from a decision."""
    act: Json | None = change["to"].get("last_act")
    before = (change["from"] or {}).get("last_act")
    return None if act == before else act


def _checked(catalog: Mapping[str, Any] | None) -> Json:
    if catalog is None:
        return {"workloads": {}, "history": [], "updated": None}
    if catalog.get("version") != CATALOG_VERSION or not {"workloads", "history", "updated"} <= catalog.keys():
        raise CatalogError(
            f"the catalog has version {catalog.get('version')!r} and the keys {', '.join(sorted(catalog))}; version "
            f"{CATALOG_VERSION} with workloads, history and updated was expected. Use the release that wrote it."
        )
    return dict(catalog)


def _without_time(entry: Mapping[str, Any]) -> Json:
    return {key: value for key, value in entry.items() if key != "time"}


def _change(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """One line for a person who reads the history."""
    if old is None:
        return f"first decision: {_standing(new)}"
    if _standing(old) != _standing(new):
        return f"{_standing(old)} -> {_standing(new)}"
    moved = sorted(key for key in new if key != "time" and new[key] != old.get(key))
    return f"still {_standing(new)}; new {', '.join(moved)}"


def _standing(entry: Mapping[str, Any]) -> str:
    served = entry.get("serving")
    # Said where it is not the decision's own winner: a person's word outlives the decision it was about.
    if served and not (entry["approved"] and served["candidate"] == entry["candidate"]):
        return f"{_decided(entry)}; {served['candidate']} ({served['variant']}) serves"
    return _decided(entry)


def _decided(entry: Mapping[str, Any]) -> str:
    if entry["verdict"] != "promote":
        return str(entry["verdict"])
    return f"promote {entry['candidate']} ({entry['variant']}), {'approved' if entry['approved'] else 'not approved yet'}"
