"""Decisions and the catalog through Dagster, whatever is edited or killed: alpha is spent once, and history grows."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import dagster as dg
import orjson
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flywheel_assets.assets.decision import COMPARISON_FILE, COST_PICTURE, DECISION_FILE, PICTURES
from flywheel_assets.assets.distribution import CATALOG_FILE
from flywheel_assets.assets.keys import asset_key
from flywheel_assets.core.graph import CATALOG, COMPARISON, DECISION, EVERYTHING, Partition
from flywheel_assets.core.looks import StartOverRefused, counted, spent
from flywheel_assets.core.rows import Variant
from flywheel_assets.partitions import WORKLOAD
from flywheel_assets.resources.artifacts import ArtifactStore, Made
from tests.assets.conftest import Bench
from tests.core.decision.conftest import Evidence
from tests.instances import local_instance

ROUTER = Partition("router")


class TurningForEver(RuleBasedStateMachine):
    """The assets `decision` and `model_catalog` over comparisons that are simply put there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.temp = local_instance(self.folder)
        self.bench = Bench(self.folder, self.temp)
        self.told: list[Any] = []
        self.entries: tuple[Any, ...] = ()

    def teardown(self) -> None:
        self.temp.dispose()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        self.bench.content["candidates"] = [{"id": "small", "model": "small.gguf"}]
        self.bench.ingest(60, workload="router")
        self.temp.add_dynamic_partitions(str(WORKLOAD.name), ["router"])
        self.registers((40, 80), 0.05, 0.1)
        self.compares(45, "m1")
        self.decides()

    @rule(
        looks=st.sampled_from([(40, 80), (40, 80, 120), (60,)]),
        alpha=st.sampled_from([0.05, 0.04]),
        margin=st.sampled_from([0.1, 0.2]),
    )
    def registers(self, looks: tuple[int, ...], alpha: float, margin: float) -> None:
        gates = [{"metric": "function_name_and_args", "margin": margin}]
        self.bench.content["decision"] = {"gates": gates, "looks": list(looks), "alpha": alpha}

    @rule(rows=st.sampled_from([45, 85, 120]), model=st.sampled_from(["m1", "m2"]))
    def compares(self, rows: int, model: str) -> None:
        made = Evidence()
        asked = made.rows(rows)
        losses = 0 if model == "m1" else 3
        arm = made.arm(asked, lambda index: index < losses, variant=Variant.BASE)
        arm = replace(arm, adapter_version=model, version=None)
        compared = replace(made.compare(asked, arm), workload="router")
        store = self.bench.flywheel.artifacts
        with store.draft() as draft:
            (draft.path / COMPARISON_FILE).write_bytes(orjson.dumps(compared.to_json()))
            for name in PICTURES:
                (draft.path / name).write_text("<svg/>" if name == COST_PICTURE else "")
            summary = {"dataset": "d1", "arms": 1, "evaluated": 1, "rows": rows}
            made_of = Made(compared.data_version(), summary)
            store.publish(
                draft,
                COMPARISON,
                ROUTER,
                made_of,
                inputs_key=compared.data_version(),
                inputs={},
                settings={},
                code_version="1",
                origin={},
            )

    @rule()
    def decides(self) -> None:
        assert self._made(DECISION) and self._made(CATALOG)
        log = self._log()
        again = self._decision()
        assert self._made(DECISION) and self._log() == log
        assert self._decision() == again

    @rule()
    def is_killed_between_the_look_and_its_verdict(self) -> None:
        before = self.bench.flywheel.artifacts.published(DECISION, ROUTER)
        with patch.object(ArtifactStore, "publish", side_effect=KeyboardInterrupt), suppress(BaseException):
            self._made(DECISION)
        assert self.bench.flywheel.artifacts.published(DECISION, ROUTER) == before

    @rule()
    def starts_over(self) -> None:
        with suppress(StartOverRefused):
            self.bench.flywheel.looks.start_over("router", who="Ada", why="another question")

    @invariant()
    def history_only_grows_and_alpha_is_spent_once(self) -> None:
        entries = self._log()
        assert entries[: len(self.entries)] == self.entries
        self.entries = entries
        looks = counted(entries)
        assert spent(looks) <= max((look.total_alpha for look in looks), default=0.0) + 1e-12
        if (catalog := self.bench.flywheel.artifacts.current(CATALOG, EVERYTHING)) is not None:
            told = orjson.loads((catalog.path / CATALOG_FILE).read_bytes())["history"]
            assert told[: len(self.told)] == self.told
            self.told = told

    def _log(self) -> tuple[Any, ...]:
        return self.bench.flywheel.looks.entries("router")

    def _decision(self) -> Any:
        artifact = self.bench.flywheel.artifacts.require(DECISION, ROUTER)
        return orjson.loads((artifact.path / DECISION_FILE).read_bytes())

    def _made(self, asset: str) -> bool:
        return dg.materialize(
            list(self.bench.defs.resolve_asset_graph().assets_defs),
            selection=[asset_key(asset)],
            partition_key="router" if asset == DECISION else None,
            instance=self.temp,
        ).success


TestTurningForEver = TurningForEver.TestCase
TestTurningForEver.settings = settings(
    max_examples=1,
    stateful_step_count=6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A step takes a second: finding the shortest failure would take an hour.
    phases=[Phase.generate],
    derandomize=True,
)
