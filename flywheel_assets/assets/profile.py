"""Profile: what kind of LLM call a workload is, and whether its traffic is still what the current decision was made on.

The counting is in `core.datasets.profile` and `core.drift`; here it is wired to the stores and to its page.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import dagster as dg
import orjson

from flywheel_assets.assets import columns
from flywheel_assets.assets.metadata import IN_SHORT, bullet_table, counts, picture
from flywheel_assets.assets.publishing import CheckOutcome, Events, Outcome, Work, publish
from flywheel_assets.assets.specs import check_spec, spec
from flywheel_assets.core import datasets as core
from flywheel_assets.core import graph
from flywheel_assets.core.costs import teacher_cost_per_1k
from flywheel_assets.core.drift import Drift, drift_between
from flywheel_assets.core.plots import drift_png
from flywheel_assets.core.rows import Json
from flywheel_assets.resources.artifacts import Artifact, Made
from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.resources.inputs import train_only_sources, workload_type
from flywheel_assets.resources.provenance import ancestor
from flywheel_assets.settings import Settings

PROFILE_FILE = "profile.json"
DRIFT_FILE = "drift.json"
SINCE_DECISION = "since decision"
_SHOWN_TOOLS = 50
_ANSWERS = {"call": "a call", "no_call": "no call", "text": "text", "structured": "structured", "multi_turn": "multi-turn"}


def profile_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """`workload_profile`."""

    @dg.multi_asset(
        specs=[
            spec(
                settings,
                graph.PROFILE,
                description="What kind of LLM call this is: tool calling, structured or free text; its tools, lengths, "
                "languages, teachers and what they cost.\n\nThe type selects the metrics. Once there is a decision, the "
                "picture of the drift shows whether today's traffic is still what that decision was made on.",
                kinds=["json"],
            )
        ],
        check_specs=[
            check_spec(
                "supported_type",
                graph.PROFILE,
                "Every candidate is a text model: tool calls, structured answers and text are examined; images, audio and "
                "what is no chat are not. If it fails: split such calls off into a workload of their own.",
                settings,
            ),
            check_spec(
                "drift",
                graph.PROFILE,
                "What is sent now is what the current decision was made on: tools, answers, lengths. Where it is not, the "
                "next turn decides anew; do not rely on the old decision meanwhile.",
                settings,
                blocking=False,
            ),
        ],
    )
    def workload_profile(context: dg.AssetExecutionContext, flywheel: dg.ResourceParam[Flywheel]) -> Events:
        yield from publish(context, flywheel, [graph.PROFILE], _profile, {graph.PROFILE: _describe_profile})

    return [workload_profile]


def _profile(work: Work) -> Mapping[str, Outcome]:
    """What the records are. Lines the trace store refused count too: a workload of pure non-chat traffic has no others."""
    workload = work.partition.workload
    refused = {count.reason: count.count for count in work.flywheel.traces.rejects(workload)}
    profile = core.profile_workload(
        work.upstream(graph.RECORDS).path,
        refused=refused,
        workload_type=workload_type(work.flywheel.settings, workload),
        train_only=train_only_sources(work.flywheel.settings, workload),
    )
    content = profile.to_json()
    encoded = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    (work.draft(graph.PROFILE).path / PROFILE_FILE).write_bytes(encoded)
    check = CheckOutcome("supported_type", profile.supported, profile.reason or f"a {profile.type} workload")
    summary = {
        key: content[key]
        for key in ("type", "records", "sources", "teachers", "call_records", "no_call_records", "latency_ms")
    }
    data_version = _data_version(content)
    drift = _drift(work, content)
    if isinstance(drift, Drift):
        (work.draft(graph.PROFILE).path / DRIFT_FILE).write_bytes(orjson.dumps(drift.to_json(), option=orjson.OPT_INDENT_2))
    return {graph.PROFILE: Outcome(Made(data_version, summary), [check, _drift_check(work, drift)])}


def _data_version(profile: Json) -> str:
    """Hash of what a profile means (32 hex digits): how long the teacher took is shown, and nothing is made from it."""
    meaning = {name: value for name, value in profile.items() if name != "latency_ms"}
    encoded = orjson.dumps(meaning, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    return hashlib.sha256(encoded).hexdigest()[:32]


def _drift(work: Work, profile: Json) -> Drift | str:
    """Today's profile against the one behind the current decision; or why there is nothing to compare."""
    artifacts = work.flywheel.artifacts
    decision = artifacts.current(graph.DECISION, work.partition)
    if decision is None:
        return "Nothing is decided yet that could be compared with."
    behind = ancestor(artifacts, decision, graph.PROFILE)
    if behind is None or behind.manifest["code_version"] != graph.BY_NAME[graph.PROFILE].code_version:
        return (
            "The decision was made on a profile of another release, which counts other things; the next one can be compared."
        )
    return drift_between(orjson.loads((behind.path / PROFILE_FILE).read_bytes()), profile)


def _drift_check(work: Work, drift: Drift | str) -> CheckOutcome:
    if isinstance(drift, str):
        return CheckOutcome("drift", True, drift, blocking=False)
    decision = work.flywheel.artifacts.current(graph.DECISION, work.partition)
    # Which decision it is the drift since: turns that see the same drift again are told apart from a new one by it.
    since = {SINCE_DECISION: decision.version} if decision is not None else {}
    details = {name: round(shift.psi, 4) for name, shift in drift.shifts.items()} | since
    return CheckOutcome("drift", not drift.drifted, drift.summary(), blocking=False, details=details)


def _describe_profile(artifact: Artifact) -> Mapping[str, Any]:
    profile = orjson.loads((artifact.path / PROFILE_FILE).read_bytes())
    tools = [
        [tool["name"], tool["offered"], tool["calls"], len(tool["schemas"])] for tool in profile["tools"][:_SHOWN_TOOLS]
    ]
    return {
        IN_SHORT: f"a {profile['type']} workload: {profile['records']:,} records, {len(profile['tools'])} tools",
        "type": profile["type"],
        **_drift_picture(artifact),
        columns.ROWS: profile["records"],
        "answers": counts({told: profile[f"{kind}_records"] for kind, told in _ANSWERS.items()}),
        "tools": bullet_table(["tool", "offered", "calls", "definitions"], tools),
        "sources": counts(profile["sources"]),
        "languages (of a sample)": counts(profile["languages"]),
        "teachers": counts(profile["teachers"]),
        "characters": bullet_table(
            ["", "p50", "p95"], [[what, *profile[what].values()] for what in ("requests", "answers")]
        ),
        **_teacher_cost(profile),
        **_teacher_speed(profile),
    }


def _teacher_cost(profile: Json) -> Mapping[str, Any]:
    """What the teacher cost, where records say so: numbers, which Dagster plots over time."""
    left_out = profile.get("costs_left_out", 0)
    shown = {"costs left out (no request costs that much)": left_out} if left_out else {}
    if (per_1k := teacher_cost_per_1k(profile, {})) is None:
        return {"teacher cost": "not logged (`cost_usd` of the log schema)", **shown, **_cached_share(profile)}
    total = {"teacher cost per 1,000 requests (USD)": per_1k, "teacher cost of all records (USD)": profile["cost_usd"]}
    return {**total, **shown, **_cached_share(profile)}


def _cached_share(profile: Json) -> Mapping[str, Any]:
    """How much of the teacher's prompts came from its provider's cache, which has a price of its own."""
    usage = profile["usage"].values()
    cached, prompt = (sum(use.get(name, 0) for use in usage) for name in ("cached_tokens", "prompt_tokens"))
    if not cached:
        return {}
    return {"teacher's prompt tokens from the cache": f"{cached / prompt:.0%} (`prices.NAME.cached_prompt`)"}


def _teacher_speed(profile: Json) -> Mapping[str, Any]:
    """How long the teacher took, where records say so: in production, so on another network and under another load."""
    logged = profile.get("latency_ms", {})
    if logged.get("p50") is None:
        return {}
    return {"teacher latency p50 ms (as logged)": logged["p50"], "teacher latency p95 ms (as logged)": logged["p95"]}


def _drift_picture(artifact: Artifact) -> Mapping[str, Any]:
    path = artifact.path / DRIFT_FILE
    if not path.is_file():
        return {}
    shifts = orjson.loads(path.read_bytes())["shifts"]
    return {"drift since the decision": picture(drift_png(shifts), "shares then and now")} if shifts else {}
