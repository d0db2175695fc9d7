"""The planner, on plain data: a little world in which 'making' an asset publishes a version for its inputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.core import graph
from flywheel_assets.core.batches import Lane, batches, meanwhile, parse_identity
from flywheel_assets.core.graph import Partition
from flywheel_assets.core.planner import (
    MOST_KILLS,
    Failure,
    FlywheelState,
    Published,
    Target,
    every_failure,
    inputs_of,
    plan,
)
from flywheel_assets.core.rows import Variant

CUSTOMIZED = graph.EVALS[Variant.CUSTOMIZED]


@dataclass
class World:
    """Refs, failures and settings of an imaginary flywheel; `make` does what a body does."""

    workloads: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"router": ("small", "tiny")})
    watermarks: dict[str, str] = field(default_factory=lambda: {"router": "w1"})
    published: dict[Target, Published] = field(default_factory=dict)
    failures: dict[Target, Failure] = field(default_factory=dict)
    slices: dict[str, Any] = field(default_factory=dict)
    broken: set[Target] = field(default_factory=set)
    validation_wanted: bool = False
    hub_wanted: bool = False

    @property
    def state(self) -> FlywheelState:
        return FlywheelState(
            workloads=self.workloads,
            watermarks=self.watermarks,
            settings_slice=lambda asset, partition: {"slice": self.slices.get(asset, 0)},
            wanted=self._wanted,
            published=self.published,
            failures=self.failures,
        )

    def _wanted(self, asset: str, partition: Partition) -> bool:
        optional = {graph.VALIDATION_EVAL: self.validation_wanted, graph.PUBLISHED_ADAPTER: self.hub_wanted}
        return optional.get(asset, True)

    def make(self, target: Target, content: str | None = None) -> None:
        inputs = inputs_of(target, self.state)
        assert not inputs.missing, inputs.missing
        if target in self.broken:
            self.failures[target] = Failure(inputs.key, "it broke")
            return
        meaning = content or hashlib.sha256(repr(sorted(inputs.versions.items())).encode()).hexdigest()
        self.published[target] = Published(inputs.key, meaning)
        self.failures.pop(target, None)

    def settle(self, limit: int = 200) -> list[Target]:
        """Execute plans until nothing is left, the way `flywheel run` does; what was made, in order."""
        made: list[Target] = []
        given_up: set[tuple[str, Partition, str]] = set()
        for _ in range(limit):
            ready = [item for item in plan(self.state, given_up=frozenset(given_up)).items if item.ready]
            if not ready:
                return made
            for item in ready:
                self.make(item.target)
                made.append(item.target)
                if item.target in self.failures:
                    given_up.add((*item.target, self.failures[item.target].inputs_key))
        raise AssertionError("the plan never settles")


def settled(**changes: Any) -> World:
    world = World(**changes)
    world.settle()
    return world


def assets_planned(world: World) -> set[str]:
    return {item.asset for item in plan(world.state).items}


def test_from_nothing_everything_is_made_once_and_upstream_first() -> None:
    world = World()
    made = world.settle()
    assert len(made) == len(set(made))
    assert ("model_catalog", Partition()) == made[-1]
    positions = {target: index for index, target in enumerate(made)}
    cell = Partition("router", "small")
    assert positions[(graph.RECORDS, Partition("router"))] < positions[(graph.BASE, Partition("router"))]
    assert positions[(graph.ADAPTER, cell)] < positions[(CUSTOMIZED, cell)]
    assert plan(world.state).items == ()


def test_nothing_new_plans_nothing() -> None:
    assert plan(settled().state).items == ()


def test_new_records_make_everything_below_them_stale_with_the_cause_named() -> None:
    world = settled()
    world.watermarks["router"] = "w2"
    planned = plan(world.state)
    assert planned.items[0].asset == graph.RECORDS
    assert planned.items[0].reason == "its inputs or settings changed"
    assert planned.item((graph.BASE, Partition("router"))).reason.startswith("after records")  # type: ignore[union-attr]


def test_new_records_that_mean_nothing_new_stop_at_the_asset_that_noticed() -> None:
    world = settled()
    world.watermarks["router"] = "w2"
    meaning = world.published[(graph.RECORDS, Partition("router"))].data_version
    world.make((graph.RECORDS, Partition("router")), content=meaning)
    assert plan(world.state).items == ()


def test_an_edited_gate_re_decides_and_calls_no_model() -> None:
    world = settled()
    world.slices[graph.DECISION] = "margin 0.02"
    assert assets_planned(world) == {graph.DECISION, graph.CATALOG}


def test_a_new_candidate_runs_its_own_cell_and_the_comparison_only() -> None:
    world = settled()
    world.workloads["router"] = ("small", "tiny", "third")
    planned = plan(world.state).items
    assert {item.partition.candidate for item in planned if item.partition.candidate} == {"third"}
    assert graph.COMPARISON in {item.asset for item in planned}


def test_a_failing_cell_leaves_the_other_alone_and_the_comparison_shows_the_hole() -> None:
    broken = (graph.ADAPTER, Partition("router", "tiny"))
    world = World(broken={broken})
    made = world.settle()
    assert (CUSTOMIZED, Partition("router", "small")) in made
    assert (CUSTOMIZED, Partition("router", "tiny")) not in made
    assert (graph.DECISION, Partition("router")) in made
    holes = {hole.asset: hole.reason for hole in plan(world.state, given_up=every_failure(world.state)).holes}
    assert holes == {graph.ADAPTER: "it broke", CUSTOMIZED: "upstream adapter: it broke"}


def test_a_failure_is_planned_again_until_somebody_gives_it_up() -> None:
    broken = (graph.ADAPTER, Partition("router", "tiny"))
    world = World(broken={broken})
    world.settle()
    again = plan(world.state).item(broken)
    assert again is not None
    assert again.retries_failure
    assert broken not in {item.target for item in plan(world.state, given_up=every_failure(world.state)).items}


def test_filling_a_hole_makes_the_comparison_again() -> None:
    broken = (graph.ADAPTER, Partition("router", "tiny"))
    world = World(broken={broken})
    world.settle()
    world.broken.clear()
    made = world.settle()
    assert broken in made
    assert (graph.COMPARISON, Partition("router")) in made
    assert plan(world.state).items == ()


def test_a_comparison_waits_until_every_cell_has_ended() -> None:
    world = World()
    for name in (graph.RECORDS, graph.PROFILE, graph.BASE, graph.TRAIN):
        world.make((name, Partition("router")))
    comparison = plan(world.state).item((graph.COMPARISON, Partition("router")))
    assert comparison is not None
    assert not comparison.ready


def test_a_failed_blocking_check_blocks_what_is_below_and_is_not_planned_again() -> None:
    world = World()
    world.make((graph.RECORDS, Partition("router")))
    world.make((graph.PROFILE, Partition("router")))
    target = (graph.PROFILE, Partition("router"))
    world.published[target] = replace(world.published[target], blocked="images are not supported")
    planned = plan(world.state)
    assert not any(item.partition.candidate for item in planned.items)
    assert graph.PROFILE not in {item.asset for item in planned.items}
    reasons = {hole.reason for hole in planned.holes if hole.asset == graph.BASE}
    assert reasons == {"upstream workload_profile: images are not supported"}


def test_a_ref_without_its_event_counts_as_stale() -> None:
    world = settled()
    target = (graph.DECISION, Partition("router"))
    world.published[target] = replace(world.published[target], announced=False)
    assert [item.target for item in plan(world.state).items if item.ready] == [target]


def test_a_workload_without_records_is_a_hole_that_says_so() -> None:
    world = World(watermarks={})
    planned = plan(world.state)
    assert "no records of workload 'router'" in planned.holes[0].reason
    # Only the catalog of everything, which lists what there is, can still be made.
    assert all(item.asset in (graph.COMPARISON, graph.DECISION, graph.CATALOG) for item in planned.items)


def test_validation_rows_are_looked_at_only_where_something_asks() -> None:
    assert graph.VALIDATION_EVAL not in {asset for asset, _ in World().settle()}
    assert graph.VALIDATION_EVAL in {asset for asset, _ in World(validation_wanted=True).settle()}


def test_a_body_reads_a_stale_upstream_as_it_stands() -> None:
    world = settled()
    world.slices[graph.TRAIN] = "other split"
    inputs = inputs_of((graph.ADAPTER, Partition("router", "small")), world.state)
    assert not inputs.missing
    assert inputs.versions["datasets/train@router"] == world.published[(graph.TRAIN, Partition("router"))].data_version


def test_a_body_is_told_what_is_missing() -> None:
    missing = inputs_of((graph.ADAPTER, Partition("router", "small")), World().state).missing
    assert [(hole.asset, hole.reason) for hole in missing] == [
        (graph.TRAIN, "not made yet"),
        (graph.FINETUNE_DECISION, "not made yet"),
    ]


@settings(max_examples=60, deadline=None)
@given(
    broken=st.sets(
        st.sampled_from(
            [
                (asset, Partition("router", candidate))
                for asset in (graph.ADAPTER, graph.PREFIX, CUSTOMIZED, graph.EVALS[Variant.BASE])
                for candidate in ("small", "tiny")
            ]
        )
    ),
    repaired=st.booleans(),
)
def test_whatever_breaks_the_plan_settles_and_ends_with_a_catalog(broken: set[Target], repaired: bool) -> None:
    world = World(broken=set(broken))
    world.settle()
    if repaired:
        world.broken.clear()
        world.settle()
    assert (graph.CATALOG, Partition()) in world.published
    assert plan(world.state, given_up=every_failure(world.state)).items == ()


def test_base_evaluation_and_customization_are_batches_of_their_own() -> None:
    world = World()
    for name in (graph.RECORDS, graph.PROFILE, graph.BASE, graph.TRAIN):
        world.make((name, Partition("router")))
    found = [batch for batch in batches(plan(world.state)) if batch.partition.candidate == "small"]
    by_lane = {batch.lane: batch.assets for batch in found}
    assert by_lane == {
        Lane.CUSTOMIZE: (graph.FINETUNE_DECISION, graph.ADAPTER, CUSTOMIZED),
        Lane.EXAMINE: (graph.PREFIX, graph.EVALS[Variant.BASE], graph.EVALS[Variant.PREFIXED]),
    }


def test_a_hub_that_is_down_holds_no_verdict_and_no_catalog_up() -> None:
    world = World(hub_wanted=True)
    world.broken.add((graph.PUBLISHED_ADAPTER, Partition("router")))
    assert (graph.CATALOG, Partition()) in world.settle()
    assert (graph.DECISION, Partition("router")) in world.published
    assert (graph.PUBLISHED_ADAPTER, Partition("router")) not in world.published


def test_what_is_published_late_brings_the_catalog_up_to_date() -> None:
    world = World(hub_wanted=True)
    target = (graph.PUBLISHED_ADAPTER, Partition("router"))
    world.broken.add(target)
    world.settle()
    world.broken.clear()
    assert world.settle() == [target, (graph.CATALOG, Partition())]


def test_what_was_approved_is_published_though_another_cell_broke() -> None:
    world = World(hub_wanted=True)
    world.broken.add((graph.ADAPTER, Partition("router", "tiny")))
    world.settle()
    assert (graph.PUBLISHED_ADAPTER, Partition("router")) in world.published


def test_switching_the_hub_on_makes_the_publication_and_the_catalog_only() -> None:
    world = settled()
    world.hub_wanted = True
    assert assets_planned(world) == {graph.PUBLISHED_ADAPTER, graph.CATALOG}


def test_publishing_is_a_batch_of_its_own() -> None:
    world = World(hub_wanted=True)
    world.settle()
    world.slices[graph.PUBLISHED_ADAPTER] = "approved"
    assert [(batch.lane, batch.assets) for batch in batches(plan(world.state))] == [
        (Lane.PUBLISH, (graph.PUBLISHED_ADAPTER,))
    ]


def test_a_busy_batch_is_not_started_twice() -> None:
    world = World()
    first = batches(plan(world.state))[0]
    assert first.assets == (graph.RECORDS, graph.PROFILE, graph.BASE, graph.TRAIN)
    assert batches(plan(world.state), busy=[first.identity]) == []


def test_a_batch_name_reads_back() -> None:
    for partition in (Partition(), Partition("router"), Partition("router", "small")):
        from flywheel_assets.core.batches import Batch

        assert parse_identity(Batch(partition, Lane.DATA, ()).name) == (partition, Lane.DATA)


def test_a_comparison_waits_for_a_cell_that_was_merely_killed_and_the_catalog_does_not() -> None:
    world = World(workloads={"router": ("small", "tiny"), "other": ("small",)}, watermarks={"router": "w1", "other": "w1"})
    world.settle()
    target = (graph.EVALS[Variant.BASE], Partition("router", "tiny"))
    world.slices[graph.EVALS[Variant.BASE]] = 1
    key = inputs_of(target, world.state).key

    def holes(kills: int) -> set[str]:
        """What cannot be made once everything else is, the attempt being given up in this turn."""
        world.failures[target] = Failure(key, "it broke", kills)
        for _ in range(50):
            current = plan(world.state, given_up=frozenset({(*target, key)}))
            ready = [item for item in current.items if item.ready]
            if not ready:
                return {hole.asset for hole in current.holes}
            for item in ready:
                world.make(item.target)
        raise AssertionError("the plan never settles")

    assert holes(MOST_KILLS - 1) == {target[0], graph.COMPARISON, graph.DECISION}
    assert [hole.asset for hole in inputs_of((graph.COMPARISON, Partition("router")), world.state).missing] == [target[0]]
    assert holes(MOST_KILLS) == {target[0]}


def test_the_catalog_does_not_wait_for_workloads_that_are_being_decided() -> None:
    world = settled(workloads={"router": ("small",), "triage": ("small",)}, watermarks={"router": "w1", "triage": "w1"})
    world.watermarks["triage"] = "w2"
    assert meanwhile(world.state, plan(world.state)) == []
    world.slices[graph.DECISION] = 1
    world.make((graph.DECISION, Partition("router")), "another verdict")
    (alone,) = meanwhile(world.state, plan(world.state))
    assert alone.assets == (graph.CATALOG,)
    world.make((graph.CATALOG, Partition()))
    assert meanwhile(world.state, plan(world.state)) == []
    world.settle()
    assert meanwhile(world.state, plan(world.state)) == [] and not plan(world.state).items


def test_what_one_body_makes_is_planned_together_though_a_check_of_it_failed() -> None:
    base, train = ((name, Partition("router")) for name in (graph.BASE, graph.TRAIN))
    for untold, blocked in ((base, train), (train, base)):
        world = settled()
        world.published[untold] = replace(world.published[untold], announced=False)
        world.published[blocked] = replace(world.published[blocked], blocked="a row is not complete")
        planned = plan(world.state)
        assert [item.target for item in planned.items if item.ready and item.partition == base[1]] == [base, train]
        # What failed its check is told again, and still nothing is built on it.
        cells = {hole.asset for hole in planned.holes if hole.partition.candidate == "small"}
        assert (graph.EVALS[Variant.BASE] in cells) is (blocked == base)
        assert (graph.ADAPTER in cells) is (blocked == train)
