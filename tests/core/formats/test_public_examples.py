"""Rows that others publish, as they stand in their packages: nothing of them is kept in this repository.

From the package index, by pinned hash: the formats' examples in the manual of MLX LM (MIT), and the ShareGPT data sets with
calls that LLaMA-Factory ships (Apache-2.0). No package was found that ships rows of Hermes or xLAM: theirs are read in
their published shape (`rows`), and all formats as the Berkeley leaderboard's questions rendered into them (`test_bfcl`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.core.formats import detect, format_named, formats, read_line
from flywheel_assets.core.records import Record
from flywheel_assets.demo.fetch import Package, fetch_wheel
from tests.core.formats.rows import Row, answer_of, calls

MLX_LM = Package(
    name="mlx-lm",
    version="0.32.2",
    filename="mlx_lm-0.32.2-py3-none-any.whl",
    sha256="5c0991248cfff5872503d74f466d2532dd8cb7fb3670cb9be7a06d7305dadc04",
    megabytes=0.5,
    holds="a manual that shows a row of each format",
    licence="MIT",
)
# In the source distribution alone.
LLAMA_FACTORY = "llamafactory==0.9.5 --hash=sha256:1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f"
_BLOCK = re.compile(r"^`(\w+)`:\n\n```jsonl\n(.+?)\n```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.network


def body_of(name: str, row: Row) -> Any:
    """The body of the one record that a row of a format becomes."""
    line = json.dumps(row, ensure_ascii=False).encode()
    limits = {"max_bytes": 1_000_000, "default_workload": "w", "source": None, "received_at": time.time()}
    (record,) = read_line(line, format_named(name), **limits)  # type: ignore[arg-type]
    assert isinstance(record, Record), record
    return json.loads(record.body)


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """The examples of MLX LM's manual, by the name they have there."""
    wheel = fetch_wheel(MLX_LM, tmp_path_factory.mktemp("wheels"), lambda message: None)
    text = zipfile.ZipFile(wheel).read("mlx_lm/LORA.md").decode()
    return {name: json.loads(row) for name, row in _BLOCK.findall(text)}


def test_a_published_fine_tuning_row_becomes_a_record(manual: dict[str, Row]) -> None:
    row = manual["chat"]
    assert detect([row], formats()).name == "openai"
    body = body_of("openai", row)
    assert [*body["request"]["messages"], answer_of(body)] == row["messages"]


def test_a_published_fine_tuning_row_with_tools_becomes_a_record_with_its_call(manual: dict[str, Row]) -> None:
    row = manual["tools"]
    assert detect([row], formats()).name == "openai"
    body = body_of("openai", row)
    assert body["request"]["tools"] == row["tools"] and body["request"]["messages"] == row["messages"][:1]
    assert calls(answer_of(body)) == calls(row["messages"][-1]) != []


def test_a_published_completion_becomes_a_record(manual: dict[str, Row]) -> None:
    row = manual["completions"]
    assert detect([row], formats()).name == "prompt-completion"
    body = body_of("prompt-completion", row)
    assert body["request"]["messages"] == [{"role": "user", "content": row["prompt"]}]
    assert answer_of(body)["content"] == row["completion"]


@pytest.fixture(scope="module")
def published_sharegpt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tarfile.TarFile]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "requirements.txt").write_text(LLAMA_FACTORY + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llamafactory"]
    command += ["--require-hashes", "--requirement", str(folder / "requirements.txt"), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
        yield archive


# pip builds the metadata of a source distribution, though it is only downloaded.
@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_row_of_a_published_sharegpt_data_set_becomes_a_record(
    published_sharegpt: tarfile.TarFile, language: str
) -> None:
    file = published_sharegpt.extractfile(f"llamafactory-0.9.5/data/glaive_toolcall_{language}_demo.json")
    assert file is not None
    rows: list[Row] = json.load(file)
    assert len(rows) == 300 and detect(rows[:100], formats()).name == "sharegpt"
    called = 0
    for row in rows:
        body = body_of("sharegpt", row)
        messages = [*body["request"]["messages"], answer_of(body)]
        wanted = [json.loads(turn["value"]) for turn in row["conversations"] if turn["from"] == "function_call"]
        found = [call for message in messages for call in calls(message)]
        assert found == wanted
        assert [tool["function"] for tool in body["request"].get("tools", [])] == json.loads(row["tools"] or "[]")
        results = [turn["value"] for turn in row["conversations"] if turn["from"] == "observation"]
        assert [message["content"] for message in messages if message["role"] == "tool"] == results
        called += len(found)
    assert called > 100
