"""Jobs of API v1, of whichever service: found again by their inputs, waited for, and ended with the run that wanted them.

Customizer and Evaluator differ in their paths and in what a look shows; the rest is said here once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from flywheel_assets.resources.nemo.errors import JobFailed, NemoConflict, NemoError, NemoMissing, NemoUnreachable
from flywheel_assets.resources.nemo.ledger import Ledger
from flywheel_assets.resources.nemo.v1.connection import SHORT_S, Connection
from flywheel_assets.resources.nemo.work import Say

ALIVE = frozenset({"created", "pending", "running", "unknown"})
DONE = frozenset({"completed", "ready"})
# Jobs carry these, so that they are found by another process and told from other people's.
INPUTS_FIELD = "flywheel_inputs"
RUN_FIELD = "flywheel_run"
HOME_FIELD = "flywheel_home"


class RemoteJob(Protocol):
    """What the SDK's job types have in common."""

    @property
    def id(self) -> str | None:
        """The name there."""
        ...

    @property
    def status(self) -> str | None:
        """One of the API's nine."""
        ...

    @property
    def custom_fields(self) -> dict[str, object] | None:
        """What we wrote on it."""
        ...


J = TypeVar("J", bound=RemoteJob)


class Jobs(Generic[J]):
    """One service's jobs: how to get, list and cancel them."""

    def __init__(
        self,
        kind: str,
        connection: Connection,
        ledger: Ledger,
        home: str,
        *,
        retrieve: Callable[[str], J],
        listed: Callable[[], Iterator[J]],
        cancel: Callable[[str], object],
    ) -> None:
        self.kind = kind
        self._connection, self._ledger, self._home = connection, ledger, home
        self._retrieve, self._listed, self._cancel = retrieve, listed, cancel

    def retrieve(self, job: str) -> J:
        """A job by its name there."""
        return self._connection.do(f"{self.kind} job {job}", lambda: self._retrieve(job))

    @contextmanager
    def owned(self, inputs: str, owner: str, create: Callable[[], J], say: Say) -> Iterator[J]:
        """The job of these inputs: one that is alive or done, else a new one.

        It is cancelled when the block ends badly, except where NeMo cannot be reached: then it may well go on, and the
        next run takes it up.
        """
        with self._ledger.using(self.kind, inputs, owner=owner):
            job = self._adopted(inputs, say)
            if job is None:
                self._ledger.note(self.kind, inputs)
                job = self._connection.do(f"new {self.kind} job", create, find=lambda: self._found(inputs))
                say(f"{self.kind} job {job.id} started")
            assert job.id is not None
            self._ledger.note(self.kind, inputs, job.id)
            try:
                yield job
            except NemoUnreachable:
                raise
            except BaseException:
                self.end(inputs, job.id, say)
                raise
            self._ledger.forget(self.kind, inputs)

    def end(self, inputs: str, job: str, say: Say) -> bool:
        """Cancel a job that may still run; whether nothing of it is left."""
        try:
            self._connection.do(f"cancelling {self.kind} job {job}", lambda: self._cancel(job), for_s=SHORT_S)
            say(f"{self.kind} job {job} cancelled")
        except (NemoConflict, NemoMissing):
            pass  # It had ended by itself.
        except NemoError as error:
            say(f"{self.kind} job {job} could not be cancelled and is left to the janitor: {error}")
            return False
        self._ledger.forget(self.kind, inputs)
        return True

    def sweep(self, inputs: str, remote: str, say: Say) -> bool:
        """End a job that no run uses; one whose name was never learnt is looked for first."""
        if not remote:
            found = self._found(inputs)
            if found is None or found.id is None:
                self._ledger.forget(self.kind, inputs)
                return True
            remote = found.id
        return self.end(inputs, remote, say)

    def marks(self, inputs: str, owner: str) -> dict[str, str]:
        """What is written on a job, so that it is known again."""
        return {INPUTS_FIELD: inputs, RUN_FIELD: owner, HOME_FIELD: self._home}

    def rediscover(self) -> None:
        """Write down living jobs of this flywheel that its ledger does not know: it may have been lost."""
        for job in self._connection.do(f"list of {self.kind} jobs", lambda: list(self._listed())):
            fields = job.custom_fields or {}
            inputs = str(fields.get(INPUTS_FIELD) or "")
            ours = fields.get(HOME_FIELD) == self._home and job.status in ALIVE
            if ours and inputs and job.id is not None and self._ledger.thing(self.kind, inputs) is None:
                self._ledger.note(self.kind, inputs, job.id)

    def failed(self, job: str, why: str) -> JobFailed:
        """The error for a job that ended badly."""
        return JobFailed(f"{self.kind} job {job} {why}")

    def _adopted(self, inputs: str, say: Say) -> J | None:
        job = self._found(inputs)
        if job is not None:
            say(f"{self.kind} job {job.id} of the same inputs is {job.status}: taken up")
        return job

    def _found(self, inputs: str) -> J | None:
        """A job of ours that is alive or done, by what the ledger knows, else by what is written on the jobs."""
        known = self._ledger.thing(self.kind, inputs)
        if known is not None and known.remote:
            try:
                job = self.retrieve(known.remote)
            except NemoMissing:
                pass
            else:
                if job.status in ALIVE | DONE:
                    return job
        jobs = self._connection.do(f"list of {self.kind} jobs", lambda: list(self._listed()))
        ours = [job for job in jobs if (job.custom_fields or {}).get(INPUTS_FIELD) == inputs]
        return next((job for job in ours if job.status in DONE), None) or next(
            (job for job in ours if job.status in ALIVE), None
        )
