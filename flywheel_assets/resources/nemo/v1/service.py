"""NeMo v1 as one object: its services on one connection, one ledger and one namespace."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flywheel_assets.resources.nemo.errors import NemoError
from flywheel_assets.resources.nemo.ledger import Ledger, Thing
from flywheel_assets.resources.nemo.v1.connection import Connection
from flywheel_assets.resources.nemo.v1.customizer import Customizer
from flywheel_assets.resources.nemo.v1.datastore import Datastore
from flywheel_assets.resources.nemo.v1.deployments import KIND, Deployments
from flywheel_assets.resources.nemo.v1.evaluator import Evaluator
from flywheel_assets.resources.nemo.v1.rows import training_rows
from flywheel_assets.resources.nemo.work import CustomizationOrder, CustomizedModel, Files, Leftover, Say, TrainingRows
from flywheel_assets.settings import NemoSettings, Nim, TrainingSettings


class NemoV1:
    """One cluster as one flywheel sees it. Nothing is connected to before it is used."""

    def __init__(self, settings: NemoSettings, home: Path, *, strict: bool = False) -> None:
        self.settings = settings
        self.ledger = Ledger(home / "nemo.sqlite")
        self.connection = Connection(settings, strict=strict)
        self.datastore = Datastore(self.connection)
        name = home_name(home)
        self.customizer = Customizer(self.connection, self.ledger, name)
        self.deployments = Deployments(self.connection, self.datastore, self.ledger, name, home / "locks")
        self.evaluator = Evaluator(self.connection, self.datastore, self.ledger, name)

    def customize(
        self, nim: Nim, files: Files, settings: TrainingSettings, *, inputs: str, owner: str, say: Say
    ) -> tuple[CustomizedModel, TrainingRows]:
        """Publish the rows and train on them."""
        rows = training_rows(files, max_rows=settings.max_rows, seed=settings.seed)
        dataset = self.datastore.publish("train", rows.files)
        say(f"training rows published as {self.settings.namespace}/{dataset}")
        order = CustomizationOrder(nim, dataset, settings, inputs, owner)
        return self.customizer.customize(order, say), rows

    def sweep(self, min_idle_s: float, say: Say, *, rediscover: bool = False) -> list[Leftover]:
        """End what no living run has used for so long; what was ended. What cannot be reached stays for the next sweep.

        `rediscover` also looks in the cluster for what is marked as this flywheel's and unknown to its ledger; it counts as
        idle from now on.
        """
        ended = []
        if rediscover:
            try:
                for service in (self.deployments, self.customizer.jobs, self.evaluator.jobs):
                    service.rediscover()
            except NemoError as error:
                say(f"the cluster was not searched for what the ledger does not know: {error}")
        for thing, idle_s in self.ledger.idle():
            if idle_s < min_idle_s:
                continue
            try:
                gone = self._end(thing, say)
            except NemoError as error:
                say(f"{thing.kind} {thing.remote or thing.name} is left for the next sweep: {error}")
                continue
            if gone:
                ended.append(Leftover(thing.kind, thing.remote or thing.name, idle_s))
        return ended

    def _end(self, thing: Thing, say: Say) -> bool:
        if thing.kind == KIND:
            return self.deployments.sweep(thing.name, say)
        jobs = self.customizer.jobs if thing.kind == self.customizer.jobs.kind else self.evaluator.jobs
        return jobs.sweep(thing.name, thing.remote, say)


def home_name(home: Path) -> str:
    """What this flywheel calls itself on what it makes: no path of this machine leaves it."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
