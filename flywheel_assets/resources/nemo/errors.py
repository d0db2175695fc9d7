"""What can go wrong with NeMo, told apart by what a person does about it."""

from __future__ import annotations


class NemoError(Exception):
    """NeMo cannot do what was asked; the message says what, where and what next."""


class NemoRefused(NemoError):
    """An answer that no repetition changes. `status` is HTTP's."""

    status = 400


class NemoUnauthorized(NemoRefused):
    """401: no key, or a wrong one."""

    status = 401


class NemoForbidden(NemoRefused):
    """403: the key may not do this."""

    status = 403


class NemoMissing(NemoRefused):
    """404: what a request names does not exist."""

    status = 404


class NemoConflict(NemoRefused):
    """409: it exists already, or is in a state that does not allow this."""

    status = 409


class NemoInvalid(NemoRefused):
    """422: the request breaks a rule of the API."""

    status = 422


class NemoUnreachable(NemoError):
    """429, 5xx or no connection for as long as was waited. What was running there may still run."""


class JobFailed(NemoError):
    """A job or deployment ended badly, or will never end well."""


class JobStalled(JobFailed):
    """A job made no progress for as long as was waited."""


class NotEnoughResources(JobFailed):
    """The cluster has no room for a job."""


_ADVICE: dict[type[NemoRefused], str] = {
    NemoUnauthorized: "Set the variable that `nemo.api_key_env` (or `nemo.datastore_token_env`) names to a valid key.",
    NemoForbidden: "Ask for access to the namespace, or name another one in `nemo.namespace`.",
    NemoMissing: "Look at the names in `nemo` and `nims` of flywheel.yaml; `flywheel doctor` checks the addresses.",
    NemoConflict: "Somebody else made it: delete it there, or name another `nemo.namespace`.",
    NemoInvalid: "The value it names comes from `training`, `nims` or `nemo` in flywheel.yaml.",
}
_SHOWN_CHARS = 500


def refusal(status: int, what: str, said: str) -> NemoRefused:
    """The error for a 4xx answer: `what` was being done (a clause with a place), and what the server said."""
    kinds = {kind.status: kind for kind in _ADVICE}
    kind = kinds.get(status, NemoRefused)
    shown = " ".join(said.split())[:_SHOWN_CHARS]
    error = kind(f"{what}: NeMo answered {status} ({shown}). {_ADVICE.get(kind, 'See the log of the service.')}")
    error.status = status
    return error
