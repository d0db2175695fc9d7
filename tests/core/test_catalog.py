"""The catalog changes only where a decision did, and never forgets."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest

from flywheel_assets.core.catalog import CatalogEntry, CatalogError, read_entry, update_catalog

KEPT = CatalogEntry(
    workload="router",
    workload_id="Router",
    verdict="keep",
    approved=False,
    candidate=None,
    variant=None,
    adapter_version=None,
    metrics={},
    dataset_version="d1",
    evidence="decision/router/v1",
)
PROMOTED = replace(
    KEPT,
    verdict="promote",
    candidate="small",
    variant="customized",
    adapter_version="a1",
    metrics={"f1": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100}},
    evidence="decision/router/v2",
)
MONDAY, TUESDAY, WEDNESDAY = "2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z", "2026-01-07T00:00:00Z"


def test_the_first_decision_makes_the_catalog() -> None:
    catalog = update_catalog(None, [KEPT], MONDAY)
    assert catalog["updated"] == catalog["workloads"]["router"]["time"] == MONDAY
    assert [(h["workload"], h["change"], h["from"]) for h in catalog["history"]] == [
        ("router", "first decision: keep", None)
    ]
    assert json.loads(json.dumps(catalog)) == catalog


def test_an_unchanged_decision_changes_nothing_at_all() -> None:
    catalog = update_catalog(None, [KEPT], MONDAY)
    assert update_catalog(catalog, [KEPT], TUESDAY) == catalog


def test_history_is_only_appended_to() -> None:
    first = update_catalog(None, [KEPT], MONDAY)
    kept = copy.deepcopy(first)
    second = update_catalog(first, [PROMOTED], TUESDAY)
    third = update_catalog(second, [replace(PROMOTED, approved=True)], WEDNESDAY)
    assert first == kept
    assert third["history"][:2] == second["history"] and second["history"][:1] == first["history"]
    assert [h["change"] for h in third["history"][1:]] == [
        "keep -> promote small (customized), not approved yet",
        "promote small (customized), not approved yet -> promote small (customized), approved",
    ]
    assert third["workloads"]["router"]["time"] == WEDNESDAY and third["history"][2]["from"]["approved"] is False


def test_new_evidence_for_the_same_verdict_is_a_change_of_its_own_kind() -> None:
    catalog = update_catalog(update_catalog(None, [KEPT], MONDAY), [replace(KEPT, dataset_version="d2")], TUESDAY)
    assert catalog["history"][-1]["change"] == "still keep; new dataset_version"


def test_workloads_without_a_new_decision_stay() -> None:
    catalog = update_catalog(update_catalog(None, [KEPT], MONDAY), [replace(KEPT, workload="agent")], TUESDAY)
    assert list(catalog["workloads"]) == ["agent", "router"]
    assert catalog["workloads"]["router"]["time"] == MONDAY


def test_an_entry_is_read_back() -> None:
    catalog = update_catalog(None, [PROMOTED], MONDAY)
    entry = read_entry(catalog, "router")
    assert entry == replace(PROMOTED, time=MONDAY)
    assert read_entry(catalog, "unknown") is None


def test_a_catalog_of_another_version_is_refused() -> None:
    with pytest.raises(CatalogError, match="version 9"):
        update_catalog({"version": 9, "workloads": {}}, [KEPT], MONDAY)
    with pytest.raises(CatalogError, match="incomplete"):
        read_entry(
            {"version": 1, "updated": MONDAY, "history": [], "workloads": {"router": {"workload": "router"}}}, "router"
        )


def test_what_serves_is_told_where_it_is_not_the_decision_s_winner() -> None:
    serving = {"candidate": "small", "variant": "customized", "decision": "v2"}
    approved = replace(PROMOTED, approved=True, serving=serving)
    catalog = update_catalog(update_catalog(None, [approved], MONDAY), [replace(KEPT, serving=serving)], TUESDAY)
    assert [change["change"] for change in catalog["history"]] == [
        "first decision: promote small (customized), approved",
        "promote small (customized), approved -> keep; small (customized) serves",
    ]
