"""Where the oracles run: environments of their own under `.bench/`, made once, and the call into each.

What belongs here: fetching, installing, starting a program and reading its answer. What does not: what is compared.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from flywheel_assets.demo.fetch import PINNED, fetch_wheel

_HERE = Path(__file__).parent
# Beside .venv/, ignored by git, removed by `make clean`.
CACHE = _HERE.parents[1] / ".bench"

BFCL_VERSION = PINNED.questions.version
# Resolved once: pip alone takes a quarter of an hour to find versions that go together.
_NEMO_PACKAGES = _HERE / "nemo.txt"


def bfcl_wheel() -> Path:
    """The leaderboard's wheel, by its pinned hash; it is read as it is and never installed."""
    return fetch_wheel(PINNED.questions, CACHE, _say)


def run_bfcl(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts of the leaderboard's checker, one a case; `bfcl_checker` says what a case and a verdict are."""
    # -I -S: nothing of this environment can be imported, so what answers is the wheel and the standard library.
    command = [sys.executable, "-I", "-S", str(_HERE / "bfcl_checker.py"), str(bfcl_wheel())]
    return json.loads(_run(command, cases))


def nemo_python() -> Path:
    """The interpreter of NeMo's environment; installed on first use (185 packages, about 700 MB, a few minutes)."""
    folder, wanted = CACHE / "nemo", _NEMO_PACKAGES.read_text(encoding="utf-8")
    interpreter, marker = folder / "bin" / "python", folder / "installed.txt"
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return interpreter
    _say(f"Installing NeMo's evaluator into {folder} (once, about 700 MB, a few minutes) ...")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    install += ["--no-deps", "--requirement", str(_NEMO_PACKAGES)]
    subprocess.run(install, check=True, stdout=sys.stderr)
    marker.write_text(wanted, encoding="utf-8")
    return interpreter


def run_nemo(batches: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What NeMo's evaluator scores each batch of rows, and how long it takes; `nemo_evaluator` says in which form."""
    return json.loads(_run([str(nemo_python()), "-I", str(_HERE / "nemo_evaluator.py")], batches))


def _run(command: list[str], asked: Any) -> str:
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
