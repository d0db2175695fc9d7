"""Registry: one registered model a workload, a version for each model that may serve it, and the aliases that people trust.

`champion` is what a person approved and nobody rolled back; `challenger` is what the current decision promotes and nobody
has judged yet. Both say what `model_selection.json` says, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException

from flywheel_assets.core.graph import ADAPTER, DECISION, PREFIX, Partition
from flywheel_assets.core.promotion import Action
from flywheel_assets.core.rows import Json, Variant
from flywheel_assets.resources.artifacts import Artifact, ArtifactMissing, ArtifactStore
from flywheel_assets.resources.credentials import without_credentials
from flywheel_assets.resources.provenance import prefix_of
from flywheel_assets.resources.telemetry.mlflow.address import Address
from flywheel_assets.resources.telemetry.mlflow.facts import sha256_of
from flywheel_assets.resources.telemetry.mlflow.stores import Store, already_exists, is_missing
from flywheel_assets.settings import Settings

CHAMPION, CHALLENGER = "champion", "challenger"
# Tells one model from any other; the tag by which a version is found again.
_MODEL = "flywheel/model"
_LOCK_S = 4.0
_VERSIONS = 500


@dataclass(frozen=True, slots=True)
class Model:
    """A model that may serve a workload, as the catalog names it; without adapter it is the candidate as it is.

    `decision` is the version of the decision that chose it, None for one that was only trained.
    """

    candidate: str
    variant: str
    adapter_version: str | None
    decision: str | None = None

    @classmethod
    def of(cls, value: Mapping[str, Any], decision: str) -> Model:
        """From an entry of the catalog, or from its `serving`."""
        return cls(value["candidate"], value["variant"], value["adapter_version"], decision)


class Registry:
    """The registered models of a flywheel. Methods raise MlflowException or OSError where MLflow refuses or is gone."""

    def __init__(self, store: Store, settings: Settings, address: Address, pattern: str, locks: Path) -> None:
        self._store, self._settings, self._address = store, settings, address
        self._pattern, self._locks = pattern, locks

    def register_adapter(self, adapter: Artifact, run: str | None) -> str:
        """The version of an adapter, made where it is missing; `run` is the MLflow run that trained it."""
        workload, candidate = adapter.partition.workload, adapter.partition.candidate
        return self._version(workload, Model(candidate, "customized", adapter.version), adapter, run)

    def follow(self, catalog: Json) -> None:
        """Let the aliases say what the catalog says."""
        for workload, entry in catalog["workloads"].items():
            wanted = {CHAMPION: _champion(entry), CHALLENGER: _challenger(entry)}
            present = self._aliases(workload)
            for alias, model in wanted.items():
                if model is not None:
                    version = self._version(workload, model, self._made_for(workload, model), None)
                    if present.get(alias) != version:
                        self._store.set_registered_model_alias(self.name_of(workload), alias, version)
                elif alias in present:
                    self._store.delete_registered_model_alias(self.name_of(workload), alias)

    def name_of(self, workload: str) -> str:
        """The registered model of a workload."""
        return self._pattern.format(workload=workload)

    def _version(self, workload: str, model: Model, made: Artifact | None, run: str | None) -> str:
        name = self.name_of(workload)
        source = self._source(workload, model, made)
        identity = f"{model.variant}:{model.candidate}:{model.adapter_version or (made.version if made else source)}"
        self._locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self._locks / "registry.lock", timeout=_LOCK_S):
            self._make_model(name, workload)
            known = self._store.search_model_versions(f"name = '{name}'", max_results=_VERSIONS)
            found = next((one for one in known if one.tags.get(_MODEL) == identity), None)
            if found is None:
                tags = {_MODEL: identity, **_facts(model, made)}
                labels = [ModelVersionTag(key, value) for key, value in tags.items() if value]
                about = f"{model.candidate} ({model.variant}) for workload {workload}; see its tags for where it lies."
                found = self._store.create_model_version(name, source, run, labels, description=about)
        return str(found.version)

    def _make_model(self, name: str, workload: str) -> None:
        try:
            self._store.get_registered_model(name)
        except MlflowException as error:
            if not is_missing(error):
                raise
            try:
                about = f"Small models for workload {workload}: @{CHAMPION} is approved, @{CHALLENGER} awaits a person."
                self._store.create_registered_model(name, [RegisteredModelTag("flywheel/workload", workload)], about)
            except MlflowException as race:
                if not already_exists(race):
                    raise

    def _aliases(self, workload: str) -> dict[str, str]:
        try:
            found = self._store.get_registered_model(self.name_of(workload)).aliases
        except MlflowException as error:
            if is_missing(error):
                return {}
            raise
        # A dictionary, or a list of pairs where it came over the wire.
        pairs = found.items() if isinstance(found, Mapping) else ((one.alias, one.version) for one in found)
        return {alias: str(version) for alias, version in pairs}

    def _made_for(self, workload: str, model: Model) -> Artifact | None:
        """What was made so that the candidate becomes this model: its adapter or its prefix; None for a base model."""
        artifacts = ArtifactStore(self._settings.home / "artifacts")
        try:
            if model.adapter_version is not None:
                return artifacts.version(ADAPTER, Partition(workload, model.candidate), model.adapter_version)
            if model.variant == Variant.PREFIXED and model.decision is not None:
                return prefix_of(artifacts, artifacts.version(DECISION, Partition(workload), model.decision))
        except ArtifactMissing:
            # Approved long ago, and gone from this machine since: what is registered still names it.
            return None
        return None

    def _source(self, workload: str, model: Model, made: Artifact | None) -> str:
        """A reference to the model, never a copy. A server takes no local path: there it is a name that only we resolve."""
        if made is not None and not self._address.is_server:
            return made.path.resolve().as_uri()
        if made is not None:
            return f"flywheel:/{made.asset}/{workload}/{model.candidate}/{made.version}"
        if model.adapter_version is not None:
            return f"flywheel:/{ADAPTER}/{workload}/{model.candidate}/{model.adapter_version}"
        known = {candidate.id: candidate.model for candidate in self._settings.candidates}
        named = without_credentials(known.get(model.candidate) or model.candidate)
        return f"flywheel:/candidate/{model.candidate}/{quote(named, safe='')}"


def _facts(model: Model, made: Artifact | None) -> dict[str, str]:
    facts = {"flywheel/candidate": model.candidate, "flywheel/variant": model.variant}
    if model.adapter_version is not None:
        facts["flywheel/adapter_version"] = model.adapter_version
    if made is None:
        return facts
    facts |= {"flywheel/artifact": str(made.path), "flywheel/sha256": sha256_of(made)}
    if made.asset == PREFIX:
        return {**facts, "flywheel/prefix_version": made.version}
    return {**facts, "flywheel/weights_sha256": str(made.summary.get("weights_sha256") or "")}


def _champion(entry: Json) -> Model | None:
    served = entry.get("serving")
    return None if served is None else Model.of(served, served["decision"])


def _challenger(entry: Json) -> Model | None:
    """The winner of the current decision while no person has approved or rejected it."""
    if entry["verdict"] != "promote" or entry["candidate"] is None or entry["approved"]:
        return None
    last, decision = entry.get("last_act"), entry["evidence"].rpartition("/")[2]
    refused = last is not None and last["action"] in (Action.REJECT, Action.ROLLBACK)
    if last is not None and refused and last["decision"] == decision:
        return None
    return Model.of(entry, decision)
