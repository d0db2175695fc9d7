"""A person's word: from the command's function and from the UI's job, into the catalog and what is served."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
import orjson
import pytest

from flywheel_assets.assets.distribution import CATALOG_FILE
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.cli_promote import act
from flywheel_assets.core.graph import ADAPTER, CATALOG, DECISION, EVERYTHING, PROFILE, RECORDS, Partition
from flywheel_assets.core.promotion import PromotionRefused
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.ingest import ingest
from flywheel_assets.resources.status import status_of
from flywheel_assets.runtime.selection import select
from tests.assets.conftest import Bench
from tests.fake_platform import right


@pytest.fixture
def promoted(bench: Bench) -> Bench:
    """A flywheel whose decision on `tickets` is `promote`."""
    bench.platform.answers = right
    bench.content["split"] = {"eval_size": 100, "min_total_records": 50}
    bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
    bench.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.2}]}
    bench.ingest(300)
    bench.turn()
    assert decision(bench)["verdict"] == "promote"
    return bench


def decision(bench: Bench) -> Json:
    found: Json = status_of(bench.flywheel)["workloads"]["tickets"]["decision"]
    return found


def entry(bench: Bench) -> Any:
    artifact = bench.flywheel.artifacts.require(CATALOG, EVERYTHING)
    return orjson.loads((artifact.path / CATALOG_FILE).read_bytes())["workloads"]["tickets"]


def does(bench: Bench, action: str, why: str = "looked at it") -> Json:
    return act(bench.instance, bench.flywheel.settings, action, "tickets", who="Ada", why=why)


def promotes_by_job(bench: Bench, **config: str) -> Any:
    job = bench.defs.resolve_job_def("promote")
    run_config = {"ops": {"model_catalog": {"config": config}}, "loggers": {"console": {}}}
    return job.execute_in_process(instance=bench.instance, run_config=run_config, raise_on_error=False)


def test_an_approval_shows_in_the_status_the_catalog_and_what_is_served(promoted: Bench) -> None:
    done = does(promoted, "approve", "the margin holds")
    assert done["ok"] and done["serving"]["candidate"] == "small"
    assert decision(promoted)["approved"] is True and decision(promoted)["serving"]["who"] == "Ada"
    found = entry(promoted)
    assert found["approved"] is True and found["serving"]["approved_by"] == "Ada"
    assert found["last_act"]["why"] == "the margin holds"
    assert select(promoted.flywheel.settings, promoted.flywheel.artifacts, "tickets").promoted
    assert promoted.turn().materialized == []


def test_the_catalog_lies_at_one_place_whatever_its_version_and_is_put_back(promoted: Bench) -> None:
    place = promoted.flywheel.settings.home / CATALOG_FILE
    assert orjson.loads(place.read_bytes())["workloads"]["tickets"] == entry(promoted)
    does(promoted, "approve")
    assert orjson.loads(place.read_bytes())["workloads"]["tickets"]["approved"] is True
    place.unlink()
    assert promotes_by_job(promoted, action="nothing").success
    assert orjson.loads(place.read_bytes())["workloads"]["tickets"] == entry(promoted)
    assert [path.name for path in place.parent.glob(".model_selection*")] == []


def test_a_rollback_gives_the_workload_back_to_the_teacher(promoted: Bench) -> None:
    does(promoted, "approve")
    assert "the teacher" in does(promoted, "rollback", "users complained")["says"]
    assert entry(promoted)["serving"] is None and entry(promoted)["approved"] is False
    assert not select(promoted.flywheel.settings, promoted.flywheel.artifacts, "tickets").promoted


def test_a_rejection_is_kept_with_its_reason(promoted: Bench) -> None:
    does(promoted, "reject", "too few refunds in the rows")
    assert entry(promoted)["last_act"]["action"] == "reject"
    assert decision(promoted)["approved"] is False


def test_the_ui_s_job_does_the_same_and_a_run_executed_again_does_it_once(promoted: Bench) -> None:
    assert promotes_by_job(promoted, action="approve", workload="tickets", who="Grace", why="seen").success
    assert entry(promoted)["serving"]["approved_by"] == "Grace"
    assert promotes_by_job(promoted, action="rollback", workload="tickets", who="Grace", why="oops").success
    assert entry(promoted)["serving"] is None


def test_what_the_job_refuses_fails_the_run_and_changes_nothing(promoted: Bench) -> None:
    before = entry(promoted)
    assert not promotes_by_job(promoted, action="rollback", workload="tickets", who="Grace", why="x").success
    assert entry(promoted) == before


def test_an_approval_outlives_a_new_decision_and_the_approved_adapter_stays_named(promoted: Bench) -> None:
    does(promoted, "approve")
    served = entry(promoted)["serving"]
    promoted.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.25}]}
    promoted.turn()
    assert entry(promoted)["serving"] == served and entry(promoted)["approved"] is False
    assert decision(promoted)["approved"] is False


def test_a_decision_that_would_be_made_again_is_not_approved(promoted: Bench) -> None:
    promoted.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.25}]}
    with pytest.raises(PromotionRefused, match="would be made again"):
        does(promoted, "approve")


def test_an_expired_decision_is_not_approved(promoted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 31 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(PromotionRefused, match="31 days old"):
        does(promoted, "approve")


def test_a_decision_says_when_it_expires_and_what_ended_it_before(promoted: Bench) -> None:
    assert decision(promoted)["expired"] is None
    assert entry(promoted)["expires"] == decision(promoted)["expires"] > decision(promoted)["expires"][:4]
    promoted.content["prices"] = {"small": {"prompt": 1.0, "completion": 2.0}}
    assert "would be made again" in decision(promoted)["expired"]
    promoted.content["prices"] = {}
    assert decision(promoted)["expired"] is None


def test_drift_of_the_traffic_ends_a_decision(promoted: Bench) -> None:
    path = promoted.folder / "new-tool.jsonl"
    lines = (promoted.folder / "tickets-300-7.jsonl").read_text().splitlines()
    renamed = [orjson.loads(line.replace("refund_order", "refund_parcel")) for line in lines]
    path.write_text("".join(orjson.dumps({**record, "id": f"new-{i}"}).decode() + "\n" for i, record in enumerate(renamed)))
    ingest([path], promoted.flywheel.traces)
    # As a person may do by hand; nothing is decided anew.
    made = dg.materialize(
        list(promoted.defs.resolve_asset_graph().assets_defs),
        selection=[asset_key(RECORDS), asset_key(PROFILE)],
        partition_key="tickets",
        instance=promoted.instance,
    )
    assert made.success
    assert "the traffic is not what it was" in decision(promoted)["expired"]
    with pytest.raises(PromotionRefused, match="refund_parcel"):
        does(promoted, "approve")


def test_the_model_that_serves_is_the_incumbent_of_the_next_decision(promoted: Bench) -> None:
    promoted.content["decision"] = {"gates": [{"metric": "function_name", "margin": 0.2, "against": "incumbent"}]}
    promoted.turn()
    assert any("The teacher serves" in reason for reason in decision(promoted)["reasons"])
    does(promoted, "approve")
    asked = promoted.platform.questions
    assert promoted.turn().ok
    assert promoted.platform.questions == asked
    evidence = orjson.loads(
        (promoted.flywheel.artifacts.require(DECISION, Partition("tickets")).path / "decision.json").read_bytes()
    )["evidence"]
    assert evidence["settings"]["incumbent"][0] == "small"
    assert not any("The teacher serves" in reason for reason in decision(promoted)["reasons"])


def test_a_decision_that_keeps_the_teacher_has_nothing_to_approve(bench: Bench) -> None:
    bench.ingest(120)
    bench.turn()
    with pytest.raises(PromotionRefused, match="there is nothing to approve"):
        does(bench, "approve")


def test_the_catalog_names_the_adapter_that_was_examined(promoted: Bench) -> None:
    done = does(promoted, "approve")["act"]
    adapter = promoted.flywheel.artifacts.current(ADAPTER, Partition("tickets", "small"))
    wanted = adapter.version if adapter and done["variant"] == "customized" else None
    assert entry(promoted)["serving"]["adapter_version"] == wanted
    assert promoted.flywheel.artifacts.require(DECISION, Partition("tickets")).version == done["decision"]
