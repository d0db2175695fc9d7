"""Stores: MLflow's own clients of runs and models, made so that none of their requests can hang.

MLflow takes time limits and retries from environment variables only (120 s and 7 tries), which would be a change to the
user's code in the same process. So the one method through which its REST clients send is given limits here; whatever else
is a tracking URI (a database, Databricks, a plugin) is opened as MLflow opens it.
"""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from typing import Any

# Before the import, which reads it: MLflow reports its own usage to its makers by default. Whoever sets it himself wins.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2
from mlflow.store.model_registry.rest_store import RestStore as ModelRestStore
from mlflow.store.tracking.rest_store import RestStore as RunRestStore
from mlflow.tracking._model_registry.utils import _get_store as model_store
from mlflow.tracking._tracking_service.utils import _get_store as run_store
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import http_request, verify_rest_response

from flywheel_assets.resources.credentials import unsendable, without_credentials
from flywheel_assets.resources.telemetry.mlflow.address import Address

# A server that answers at all answers in a tenth of it; two of them fit into what a run waits at its end.
REQUEST_S = 2.5
_TOKEN_VARIABLE = "MLFLOW_TRACKING_TOKEN"

Store = Any
"""One of MLflow's stores, which are not typed: see `mlflow.store.tracking.abstract_store` and its like for models."""


class _BoundedRuns(RunRestStore):  # type: ignore[misc]  # MLflow is not typed.
    """Runs over HTTP, with time limits."""

    def _call_endpoint(
        self,
        api: Any,
        json_body: Any = None,
        endpoint: Any = None,
        retry_timeout_seconds: Any = None,
        response_proto: Any = None,
    ) -> Any:
        routes = self._V3_METHOD_TO_INFO if api in self._V3_APIS else self._METHOD_TO_INFO
        path, method = routes[api]
        return _asked(self.get_host_creds(), endpoint or path, method, json_body, response_proto or api.Response())


class _BoundedModels(ModelRestStore):  # type: ignore[misc]  # As above.
    """Registered models over HTTP, with time limits."""

    def _call_endpoint(self, api: Any, json_body: Any, call_all_endpoints: bool = False, extra_headers: Any = None) -> Any:
        routes = self._get_all_endpoints_from_method(api) if call_all_endpoints else [self._get_endpoint_from_method(api)]
        # Several are the spellings of older servers; the first is that of every server since MLflow 2.
        path, method = routes[0]
        return _asked(self.get_host_creds(), path, method, json_body, self._get_response_from_method(api))


def open_runs(address: Address) -> Store:
    """The store of experiments and runs. Raises OSError or MlflowException where it cannot be opened."""
    if address.is_server:
        return _BoundedRuns(partial(_credentials, address.uri))
    if address.local is not None:
        address.local.mkdir(parents=True, exist_ok=True)
        # Its hundred lines about migrations of an empty database tell nobody anything.
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return run_store(address.uri, (address.local / "artifacts").as_uri())
    return run_store(address.uri)


def open_models(address: Address) -> Store:
    """The store of registered models. Raises MlflowException where this kind of tracking store has none."""
    if address.is_server:
        return _BoundedModels(partial(_credentials, address.uri))
    return model_store(address.uri, address.uri)


def is_missing(error: MlflowException) -> bool:
    """Whether an error says that something does not exist."""
    return bool(error.error_code == databricks_pb2.ErrorCode.Name(databricks_pb2.RESOURCE_DOES_NOT_EXIST))


def already_exists(error: MlflowException) -> bool:
    """Whether an error says that somebody else was faster."""
    return bool(error.error_code == databricks_pb2.ErrorCode.Name(databricks_pb2.RESOURCE_ALREADY_EXISTS))


def _credentials(uri: str) -> Any:
    wrong = unsendable(_TOKEN_VARIABLE, os.environ.get(_TOKEN_VARIABLE))
    if wrong is not None:
        raise OSError(wrong)
    return get_default_host_creds(uri)


def _asked(credentials: Any, path: str, method: str, json_body: str | None, response: Any) -> Any:
    """One request, sent once: a lost answer must not make a second run.

    Raises RestException where the server refuses, TimeoutError or ConnectionError where nobody answers.
    """
    content = None if json_body is None else json.loads(json_body)
    try:
        sent = http_request(
            credentials,
            path,
            method,
            timeout=REQUEST_S,
            max_retries=0,
            raise_on_status=False,
            **{"params" if method == "GET" else "json": content},
        )
    except MlflowException as error:
        where = without_credentials(credentials.host)
        if "timed out" in str(error):
            raise TimeoutError(f"{where} did not answer within {REQUEST_S:g} s") from error
        raise ConnectionError(
            f"{where} cannot be reached; is it running, and is telemetry.mlflow.tracking_uri right?"
        ) from error
    answer = verify_rest_response(sent, path)
    if answer.status_code != 204:
        parse_dict(json.loads(answer.text), response)
    return response
