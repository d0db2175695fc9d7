"""How README says a team connects what it has: its lines are run as they stand, against servers of ours."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clone import REPOSITORY, Clone
from tests.elasticsearch_server import ElasticsearchServer
from tests.langfuse_rows import row
from tests.langfuse_server import LangfuseServer

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def lines_under(heading: str) -> list[str]:
    """The commands of the first block under a heading; five lines at most are promised."""
    (block,) = re.findall(rf"^### {heading}\n+```bash\n(.*?)```", README, flags=re.DOTALL | re.MULTILINE)
    lines: list[str] = block.strip().splitlines()
    assert len(lines) <= 5
    return lines


def run(clone: Clone, line: str, *, here: dict[str, str]) -> str:
    """A line of README in the clone; `here` says what stands for the examples in it."""
    for example, ours in {".venv/bin/flywheel": f"{sys.executable} -m flywheel_assets.cli", **here}.items():
        line = line.replace(example, ours)
    ran = subprocess.run(line, shell=True, cwd=clone.root, env=clone.env(), capture_output=True, text=True)
    return ran.stdout + ran.stderr


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone.make(tmp_path / "clone")


@pytest.fixture
def elasticsearch(tmp_path: Path) -> Iterator[ElasticsearchServer]:
    server = ElasticsearchServer(tmp_path / "elasticsearch")
    server.start()
    yield server
    server.kill()


@pytest.mark.timeout(300)
def test_a_team_with_an_existing_index_is_connected(clone: Clone, elasticsearch: ElasticsearchServer) -> None:
    install, *settings, doctor, turn = lines_under("Calls that are logged in Elasticsearch already")
    keyword = {"type": "keyword"}
    mappings = {"properties": {"@timestamp": {"type": "date"}, "labels": {"properties": {"route": keyword}}}}
    operations: list[object] = []
    for n in range(60):
        request = {"messages": [{"role": "user", "content": f"question {n}"}]}
        response = {"choices": [{"message": {"role": "assistant", "content": "answer"}}]}
        at = int((time.time() - 60 + n / 2) * 1000)
        document = {"@timestamp": at, "timestamp": at, "request": request, "response": response}
        operations += [{"index": {"_id": str(n)}}, {**document, "labels": {"route": "router"}}]
    connection = elasticsearch.connection()
    connection.ask("test", lambda client: client.indices.create(index="app-llm-calls", mappings=mappings))
    connection.ask("test", lambda client: client.bulk(index="app-llm-calls", operations=operations, refresh=True))

    assert ".venv/bin/pip install" in install
    here = {"https://user:password@logs.example.com:9200": f"http://user:hunter2@127.0.0.1:{elasticsearch.port}"}
    for line in settings:
        assert not run(clone, line, here=here)
    looked = run(clone, doctor, here=here)
    # That the majors of client and server differ here, it says too.
    assert f"127.0.0.1:{elasticsearch.port}, server 8." in looked and "hunter2" not in looked
    planned = run(clone, turn.replace("flywheel run", "flywheel run --dry-run"), here=here)
    assert "router" in planned, planned


@pytest.mark.timeout(300)
def test_the_page_about_langfuse_connects_a_project_too(clone: Clone) -> None:
    page = (REPOSITORY / "docs" / "langfuse.md").read_text(encoding="utf-8")
    install, keys, settings, doctor, pull = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)[0].strip().splitlines()
    assert "pip install" in install
    with LangfuseServer() as server:
        server.add(*(row(str(n), time.time() - 600 + n) for n in range(5)))
        here = _our_project(server)
        assert not run(clone, keys, here=here) + run(clone, settings, here=here)
        here["flywheel doctor"] = f"{sys.executable} -m flywheel_assets.cli doctor"
        here["flywheel pull"] = f"{sys.executable} -m flywheel_assets.cli pull"
        assert server.environment["LANGFUSE_BASE_URL"] in run(clone, doctor, here=here)
        assert "5 new" in run(clone, pull, here=here)


def _our_project(server: LangfuseServer) -> dict[str, str]:
    """What stands for the examples of the pages."""
    given = server.environment
    return {
        "https://cloud.langfuse.com": given["LANGFUSE_BASE_URL"],
        "pk-lf-...": given["LANGFUSE_PUBLIC_KEY"],
        "sk-lf-...": given["LANGFUSE_SECRET_KEY"],
    }


@pytest.mark.timeout(300)
def test_a_team_with_a_langfuse_project_is_connected(clone: Clone) -> None:
    install, *settings, pull, turn = lines_under("Calls that are traced with Langfuse")
    assert ".venv/bin/pip install" in install
    with LangfuseServer() as server:
        server.add(*(row(str(n), time.time() - 600 + n) for n in range(60)))
        here = _our_project(server)
        for line in settings:
            assert not run(clone, line, here=here)
        pulled = run(clone, pull, here=here)
        assert "60 new" in pulled and here["sk-lf-..."] not in pulled
    planned = run(clone, turn.replace("flywheel run", "flywheel run --dry-run"), here=here)
    assert "router" in planned, planned
