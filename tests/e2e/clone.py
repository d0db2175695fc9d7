"""A place of its own for one end-to-end test: flywheel.yaml, dagster.yaml and homes in a temporary folder, driven by the
installed command line the way a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster._core.instance import InstanceRef

REPOSITORY = Path(__file__).resolve().parents[2]


def _hears_ctrl_c() -> None:
    """Tests that a shell started in the background ignore Ctrl-C, and what they start would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Clone:
    """`flywheel` in a folder that has never seen it, with this repository's code and settings."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    through: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, root: Path, edit: Callable[[dict[str, Any]], None] | None = None) -> Clone:
        root.mkdir(parents=True, exist_ok=True)
        clone = cls(root)
        for name in ("dagster.yaml", "workspace.yaml"):
            (root / name).write_text((REPOSITORY / name).read_text())
        (root / "flywheel.yaml").write_text((REPOSITORY / "flywheel.yaml").read_text())
        if edit is not None:
            clone.edit(edit)
        return clone

    @property
    def home(self) -> Path:
        return self.root / ".flywheel"

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change flywheel.yaml, as a user would."""
        path = self.root / "flywheel.yaml"
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def on_postgres(self) -> Clone:
        """From now on with the instance of deploy/postgres, and through the command that `make ... PROFILE=postgres` puts in
        front; the server is one of its own."""
        home = self.root / "deploy" / "postgres"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text((REPOSITORY / "deploy" / "postgres" / "dagster.yaml").read_text())
        self.environment["DAGSTER_HOME"] = str(home)
        self.through = [sys.executable, "-m", "flywheel_assets.postgres", "--"]
        return self

    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("DAGSTER_HOME", "FLYWHEEL_HOME", "FLYWHEEL_CONFIG")}
        return {**kept, "PYTHONPATH": str(REPOSITORY), "DAGSTER_HOME": str(self.root), **self.environment}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """`flywheel ARGUMENTS`, in a process group of its own."""
        command = [*self.through, sys.executable, "-m", "flywheel_assets.cli", *arguments]
        return subprocess.Popen(
            command, cwd=self.root, env=self.env(), text=True, start_new_session=True, preexec_fn=_hears_ctrl_c, **options
        )

    def flywheel(self, *arguments: str, timeout: float = 1500, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `flywheel ARGUMENTS` to its end; `ok` expects exit code 0."""
        with self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        result = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        assert not ok or result.returncode == 0, f"{result.args}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        return result

    def status(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.flywheel("status", "--json").stdout)["workloads"]
        return content

    def artifact(self, asset: str, partition: str) -> Path:
        """The folder of the current version of an asset partition."""
        base = self.home / "artifacts"
        ref = json.loads((base / "refs" / asset / f"{partition}.json").read_text())
        return base / "objects" / asset / partition / str(ref["version"])

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Its Dagster instance, opened here: the paths of its dagster.yaml are relative to the clone."""
        with chdir(self.root), dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(self.root))) as instance:
            yield instance

    def processes(self) -> list[psutil.Process]:
        """Every living process that works for this clone, by the environment it was started with."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DAGSTER_HOME") == str(self.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def assert_no_process_is_left(self) -> None:
        """Children notice that their parent is gone within seconds."""
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not left, [process.cmdline() for process in left]
