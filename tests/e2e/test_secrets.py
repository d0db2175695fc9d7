"""What leaves the trace store is clean: a whole run of the real command line over records full of secrets.

Only the trace store itself may hold them (docs/cleaning.md): artifacts, adapters, caches, Dagster's event log, run storage
and compute logs, what training leaves in the folders of its libraries, and everything the commands print are searched,
inside compressed files, too. One candidate is asked over the network, another one is really trained and served: a model
of a few thousand weights, so that nothing but its size is unlike a real one.
"""

from __future__ import annotations

import gzip
import json
import secrets
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from tests.core.cleaning.values import generated
from tests.e2e.clone import Clone
from tests.e2e.own_traffic import write_ticket_records
from tests.fakes import OpenAIDouble
from tests.trainer.tiny_model import write_gguf

Json = dict[str, Any]
WORKLOAD = "desk"
TRAINING = {"max_rows": 24, "batch_size": 2, "adapter_dim": 4, "save_steps": 3, "max_seq_length": 4096, "device": "cpu"}

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(1200)]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The folder for temporary files, which is not `tmp_path`: sockets stand in it, and their paths must be short."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_no_secret_of_any_kind_is_found_in_anything_that_a_run_leaves_behind(tmp_path: Path, scratch: Path) -> None:
    seed = secrets.randbelow(10**9)
    values = generated(seed)
    assert len(values) >= 30
    traffic = _traffic(tmp_path, [sentence for _, sentence in values.values()])
    with OpenAIDouble(answer=_parrot) as model:

        def _candidates(content: Json) -> None:
            asked = {"id": "parrot", "engine": "openai", "model": model.url, "trainable": False}
            trained = {"id": "tiny", "model": "tiny.gguf", "chat_template": "chatml-tools", "context_length": 4096}
            content.update(candidates=[asked, trained], workloads={WORKLOAD: {"split": {"eval_size": 60}}})
            content.update(training={**content["training"], **TRAINING}, evaluation={"max_tokens": 16})

        clone = Clone.make(tmp_path / "clone", _candidates)
        write_gguf(clone.root / "tiny.gguf")
        # Where libraries keep what they make of rows is searched, too.
        clone.environment |= {"HF_HOME": str(clone.root / "hf"), "TMPDIR": str(scratch)}
        said = []
        for command in (
            ("ingest", str(traffic), "--json"),
            ("ingest", str(_xlam(tmp_path, values)), "--format", "xlam", "--workload", WORKLOAD, "--source", "imported"),
            ("run",),
            ("run",),
            ("status",),
            ("status", "--json"),
            ("plan", WORKLOAD),
        ):
            # Lines are refused, and ingest says so by its exit code.
            done = clone.flywheel(*command, ok=command[0] != "ingest")
            said += [done.stdout, done.stderr]
        assert json.loads(said[0])["rejected"] >= 5 * len(values), seed
        cells = clone.status()[WORKLOAD]["cells"]
        assert cells["parrot"]["base"]["state"] == "ok" and cells["tiny"]["customized"]["state"] == "ok", (seed, said[4:8])
        assert json.loads((clone.artifact("adapter", f"{WORKLOAD}/tiny") / "training.json").read_text())["steps"] == 12
        assert model.count > 0
        # The model was asked clean questions, so that its answers could hold none.
        said.append(json.dumps(model.chats))
    left_behind = chain(_left_behind(clone.root), _left_behind(scratch))
    searched, found, seen, trained = set(), [], False, False
    for where, content in [("what the commands printed", "\n".join(said).encode()), *left_behind]:
        searched.add(where)
        seen |= b"<EMAIL_1>" in content and ".zst (opened)" in where
        trained |= b"step 12/12" in content and ".db (opened)" in where
        for kind, (value, _) in values.items():
            twice = json.dumps(json.dumps(value))[3:-3]
            if any(form.encode() in content for form in {value, json.dumps(value)[1:-1], twice}):
                found.append((kind, where))
    assert not found, (seed, sorted(set(found))[:20])
    # The search looks where the words are: what took an address's place is found in the segments, what training said in
    # the event log.
    assert len(searched) > 50 and seen
    assert trained and any(where.endswith("adapter_model.safetensors") for where in searched)


def _traffic(folder: Path, sentences: list[str]) -> Path:
    """Records with a secret in every field that is text, and for each secret five lines that are refused."""
    plain = write_ticket_records(folder / "plain.jsonl", max(140, 2 * len(sentences)), workload=WORKLOAD)
    lines = plain.read_text().splitlines()
    written: list[str] = []
    for n, line in enumerate(lines):
        record, sentence = json.loads(line), sentences[n % len(sentences)]
        arguments = json.dumps({"subject": sentence, "nested": [{"again": sentence}]})
        message = record["request"]["messages"][0]
        message["content"] = f"{message['content']} {sentence}"
        record["request"]["messages"].insert(0, {"role": "system", "content": f"Known: {sentence}"})
        for call in record["response"]["choices"][0]["message"].get("tool_calls", ()):
            call["function"]["arguments"] = arguments
        record.update(id=f"case-{n}", client_id=f"desk {sentence}"[:200], extra={"deep": sentence})
        record["feedback"] = {"score": 1, "comment": sentence}
        written.append(json.dumps(record))
    for n, sentence in enumerate(sentences):
        record = json.loads(lines[n])
        bad_role = [{"role": sentence, "content": sentence}]
        bad_call = [{"id": "c", "type": "function", "function": {"name": sentence, "arguments": f"{{{sentence}"}}]
        answer = {"role": "assistant", "content": None, "tool_calls": bad_call}
        written += [
            f'{{"timestamp": {sentence}',
            json.dumps({**record, "timestamp": sentence}),
            json.dumps({**record, "request": {"messages": bad_role}}),
            json.dumps({**record, "response": {"choices": [{"message": answer}]}}),
            json.dumps({**record, "workload_id": [sentence]}),
        ]
    path = folder / "traffic.jsonl"
    path.write_text("\n".join(written) + "\n", encoding="utf-8")
    return path


def _xlam(folder: Path, values: dict[str, tuple[str, str]]) -> Path:
    """An imported data set, with the same secrets in its queries and answers."""
    tool = {"name": "note", "description": "Take a note", "parameters": {"text": {"type": "str", "description": "what"}}}
    rows = [
        {
            "query": f"Note this: {sentence}",
            "tools": json.dumps([tool]),
            "answers": json.dumps([{"name": "note", "arguments": {"text": sentence}}]),
        }
        for _, sentence in values.values()
    ]
    path = folder / "xlam.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def _parrot(body: Json) -> Json:
    """A model that repeats what it was told."""
    return {"role": "assistant", "content": json.dumps(body["messages"][-1]["content"])}


def _left_behind(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file under `root` but the trace store, as it is and opened."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.name.startswith("traces.sqlite"):
            content = path.read_bytes()
            yield str(path.relative_to(root)), content
            for opened in _opened(path, content):
                yield f"{path.relative_to(root)} (opened)", opened


def _opened(path: Path, content: bytes) -> Iterator[bytes]:
    if content.startswith(b"SQLite format 3"):
        yield from _database(path)
    elif path.suffix == ".zst":
        yield zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    elif path.suffix == ".gz":
        yield gzip.decompress(content)
    elif path.suffix == ".parquet":
        yield json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False).encode()


def _database(path: Path) -> Iterator[bytes]:
    """All rows of all tables, blobs inflated where they are compressed."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in database.execute(f'SELECT * FROM "{table}"'):
                yield b"\n".join(_bytes(value) for value in row)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        return str(value).encode()
    for inflate in (zlib.decompress, zstandard.ZstdDecompressor().decompress):
        try:
            return value + inflate(value)
        except (zlib.error, zstandard.ZstdError):
            continue
    return value
