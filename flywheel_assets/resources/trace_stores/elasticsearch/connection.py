"""The connection to Elasticsearch: where it is, who we are, what is tried again, and what an error says.

What belongs here: the client, its retries and its errors in our words. What does not: what is asked (`scan`, `own`,
`existing`).

Tried again, with exponential back-off and jitter and for a bounded time: 429, 502, 503, 504, time-outs and connections that
broke or were refused. Everything else is a fault that waiting does not mend. Secrets come from the environment and never
stand in an error: credentials in a URL are taken out of it at once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from flywheel_assets.core.rows import Json
from flywheel_assets.resources.credentials import unsendable
from flywheel_assets.resources.trace_stores.base import TraceStoreError
from flywheel_assets.resources.trace_stores.deadline import DEADLINE

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

TRY_AGAIN = frozenset({429, 502, 503, 504})
FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SHOWN_CHARACTERS = 300
_SHORTEST_TIMEOUT_S = 0.5
_NO = frozenset({"0", "false", "no", "off"})


class ElasticsearchUnavailable(TraceStoreError):
    """The server could not be reached, or stayed too busy, for as long as it was tried. Later it may well answer."""


class ElasticsearchRefused(TraceStoreError):
    """The server answered, and the answer is no. `status` is the HTTP status, `kind` its name for the fault."""

    def __init__(self, message: str, *, status: int, kind: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class IncompleteAnswer(TraceStoreError):
    """Only a part of the shards answered: what came back must not be taken for everything there is."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the server is, and the credentials. `url` holds none; `repr` shows none."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    verify_certs: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Access:
        """From ELASTICSEARCH_URL, _API_KEY, _USERNAME, _PASSWORD, _CA_CERTS, _VERIFY_CERTS; raises TraceStoreError."""
        given = os.environ if environment is None else environment
        url = given.get("ELASTICSEARCH_URL")
        if not url:
            raise TraceStoreError(
                "ELASTICSEARCH_URL is not set: write it into .env, such as https://search.example.com:9200"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if host is None or parts.scheme not in ("http", "https"):
            raise TraceStoreError("ELASTICSEARCH_URL is no URL with http:// or https:// and a host")
        if fault := unsendable("ELASTICSEARCH_API_KEY", given.get("ELASTICSEARCH_API_KEY")):
            raise TraceStoreError(f"Elasticsearch: {fault}")
        shown = f"[{host}]" if ":" in host else host
        port = port or (443 if parts.scheme == "https" else 9200)
        username = unquote(parts.username) if parts.username else given.get("ELASTICSEARCH_USERNAME")
        password = unquote(parts.password) if parts.password else given.get("ELASTICSEARCH_PASSWORD")
        return cls(
            url=urlunsplit((parts.scheme, f"{shown}:{port}", parts.path.rstrip("/"), "", "")),
            api_key=given.get("ELASTICSEARCH_API_KEY") or None,
            username=username or None,
            password=password or None,
            ca_certs=given.get("ELASTICSEARCH_CA_CERTS") or None,
            verify_certs=given.get("ELASTICSEARCH_VERIFY_CERTS", "true").strip().lower() not in _NO,
        )

    @property
    def credentials(self) -> str:
        """What kind of credentials is set, for people; never the credentials."""
        if self.api_key:
            return "API key"
        return f"user {self.username}" if self.username else "no credentials"

    @property
    def in_the_clear(self) -> bool:
        """Whether credentials would travel unencrypted to another machine."""
        local = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        return self.url.startswith("http://") and not local and bool(self.api_key or self.password)


class Connection:
    """Asks one server. Threads may share it, and a forked child may go on using it: it opens sockets of its own."""

    def __init__(self, access: Access | Callable[[], Access], *, timeout_s: float = 30.0, retry_s: float = 60.0) -> None:
        self._access = access
        self._timeout_s, self._retry_s = timeout_s, retry_s
        self._client: tuple[int, Elasticsearch] | None = None

    @property
    def access(self) -> Access:
        """Where the server is. A function given for it is called at the first use, and may raise TraceStoreError."""
        if not isinstance(self._access, Access):
            self._access = self._access()
        return self._access

    @property
    def url(self) -> str:
        """The server's URL, without credentials."""
        return self.access.url

    def ask(self, what: str, question: Callable[[Elasticsearch], Any], *, patiently: bool = True) -> Json:
        """The answer to `question`, tried again where that can help, unless `patiently` is false.

        `what` names the attempt in errors.
        """
        import elasticsearch

        client = self._open()
        deadline = DEADLINE.get()
        until = min(time.monotonic() + (self._retry_s if patiently else 0), deadline)
        pause = FIRST_PAUSE_S
        while True:
            if deadline < float("inf"):
                left = max(_SHORTEST_TIMEOUT_S, min(self._timeout_s, deadline - time.monotonic()))
                client = client.options(request_timeout=left)
            try:
                body = question(client).body
                if not isinstance(body, dict):
                    raise TraceStoreError(f"{self.url}: {what}: the answer is no JSON object; is this an Elasticsearch?")
                return body
            except elasticsearch.SSLError as error:
                raise TraceStoreError(
                    f"{self.url}: {what}: no trusted TLS connection ({error.message}). ELASTICSEARCH_CA_CERTS names the file"
                    " with the certificate authority."
                ) from error
            except (elasticsearch.ConnectionError, elasticsearch.ConnectionTimeout) as error:
                fault: Exception = error
                answer = f"no answer ({type(error).__name__}: {str(error.message)[:_SHOWN_CHARACTERS]})"
            except elasticsearch.UnsupportedProductError as error:
                raise TraceStoreError(f"{self.url}: this is no Elasticsearch ({error}). Mend ELASTICSEARCH_URL.") from error
            except elasticsearch.ApiError as error:
                if error.status_code not in TRY_AGAIN:
                    raise self._refusal(what, error.status_code, error.body) from error
                fault, answer = error, f"status {error.status_code}"
            pause = self.pause(what, answer, pause, until, fault)

    def search(self, what: str, **question: Any) -> Json:
        """One search, refused where not every shard answered in time."""
        body = self.ask(what, lambda client: client.search(allow_partial_search_results=False, **question))
        return self.whole(what, body)

    def whole(self, what: str, body: Json) -> Json:
        """`body`, if every shard took part; IncompleteAnswer otherwise."""
        shards = body.get("_shards") or {}
        if not body.get("timed_out") and not shards.get("failed"):
            return body
        failed, total = shards.get("failed", 0), shards.get("total", "?")
        reasons = {str((f.get("reason") or {}).get("reason") or f)[:_SHOWN_CHARACTERS] for f in shards.get("failures") or ()}
        why = "; ".join(sorted(reasons)) or ("it timed out" if body.get("timed_out") else "no reason given")
        raise IncompleteAnswer(
            f"{self.url}: {what}: {failed} of {total} shards failed ({why}). Nothing was taken from the rest. Look at"
            " `GET _cluster/health`; the next attempt starts where this one did."
        )

    @property
    def retry_s(self) -> float:
        """Seconds for which something is tried again."""
        return self._retry_s

    def close(self) -> None:
        """Give back the sockets; the next question opens them again."""
        if self._client is not None and self._client[0] == os.getpid():
            self._client[1].close()
        self._client = None

    def pause(self, what: str, answer: str, pause: float, until: float, fault: Exception | None = None) -> float:
        """Wait before another try; the next pause. ElasticsearchUnavailable once `until` (monotonic) is past."""
        if time.monotonic() >= until:
            raise ElasticsearchUnavailable(
                f"{self.url}: {what}: {answer}. Is the server up, and ELASTICSEARCH_URL right?"
                " Nothing is lost: try again later."
            ) from fault
        # Jitter, or everybody who was refused together comes back together.
        time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, until - time.monotonic())))
        return min(pause * 2, _LONGEST_PAUSE_S)

    def _refusal(self, what: str, status: int, body: Any) -> TraceStoreError:
        error = body.get("error") if isinstance(body, dict) else None
        kind = str(error.get("type")) if isinstance(error, dict) else ""
        reason = str(error.get("reason") if isinstance(error, dict) else error or "")[:_SHOWN_CHARACTERS]
        if kind == "media_type_header_exception":
            advice = f" {version_advice(None)}"
        elif status in (401, 403):
            advice = (
                f" Sent: {self.access.credentials}. Set ELASTICSEARCH_API_KEY (or ELASTICSEARCH_USERNAME and"
                " ELASTICSEARCH_PASSWORD) to an account with the privileges that docs/elasticsearch.md lists."
            )
        else:
            advice = ""
        return ElasticsearchRefused(
            f"{self.url}: {what}: refused with status {status} ({kind or 'no type'}: {reason}).{advice}",
            status=status,
            kind=kind,
        )

    def _open(self) -> Elasticsearch:
        if self._client is not None and self._client[0] == os.getpid():
            return self._client[1]
        try:
            from elasticsearch import Elasticsearch, OrjsonSerializer
        except ImportError:
            raise TraceStoreError(
                "trace_store: elasticsearch needs a package: pip install 'flywheel-assets[elasticsearch]'"
            ) from None
        access = self.access
        options: dict[str, Any] = {}
        if access.api_key:
            options["api_key"] = access.api_key
        elif access.username:
            options["basic_auth"] = (access.username, access.password or "")
        if access.url.startswith("https://"):
            options["verify_certs"] = access.verify_certs
            options["ssl_show_warn"] = access.verify_certs
            if access.ca_certs:
                options["ca_certs"] = access.ca_certs
        client = Elasticsearch(
            access.url,
            request_timeout=self._timeout_s,
            # Retries are ours: those of the client know neither a pause nor a time.
            max_retries=0,
            retry_on_timeout=False,
            http_compress=not _is_near(access.url),
            serializers={"application/json": OrjsonSerializer()},
            **options,
        )
        self._client = (os.getpid(), client)
        return client


def client_version() -> str:
    """The version of the installed client, such as 9.5.1."""
    import elasticsearch

    return ".".join(str(part) for part in elasticsearch.__version__)


def version_advice(server: str | None) -> str:
    """What to install where client and server do not belong together; empty where they do. `server`: None is unknown."""
    client = client_version()
    major = int(client.partition(".")[0])
    if server is None:
        return f"The client is {client}, the server older: pip install 'elasticsearch>={major - 1},<{major}'."
    served = int(server.partition(".")[0])
    if served == major:
        return ""
    return (
        f"The server is {server}, the client {client}; the majors must agree:"
        f" pip install 'elasticsearch>={served},<{served + 1}'."
    )


def _is_near(url: str) -> bool:
    # Packing costs more than it saves where nothing travels.
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
