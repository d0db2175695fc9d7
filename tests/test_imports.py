"""What may be imported where: the package is light, the UI needs no torch, core needs nothing of ours."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel_assets.core.graph import NODES

PACKAGE = Path(__file__).resolve().parents[1] / "flywheel_assets"
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "unsloth", "gguf", "xllamacpp", "sentencepiece")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_importing_the_package_imports_nothing_else() -> None:
    found = run("import sys; before = set(sys.modules); import flywheel_assets; print(sorted(set(sys.modules) - before))")
    assert found.strip() == "['flywheel_assets']"


def test_the_ui_and_the_command_line_load_without_the_training_packages() -> None:
    block = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Missing())
import flywheel_assets.cli, flywheel_assets.cli_run
from flywheel_assets.definitions import defs
print(len(list(defs().get_repository_def().asset_graph.get_all_asset_keys())))
"""
    assert int(run(block)) == len(NODES)


def test_reading_the_status_does_not_wait_for_dagster() -> None:
    found = run("import sys; import flywheel_assets.cli, flywheel_assets.resources.status; print('dagster' in sys.modules)")
    assert found.strip() == "False"


@pytest.mark.parametrize(
    ("layer", "may_import"),
    [
        ("core", {"core"}),
        ("trainer", {"trainer"}),
        ("resources", {"core", "resources", "settings", "trainer", "system", "__version__"}),
        ("runtime", {"core", "resources", "settings", "runtime"}),
    ],
)
def test_arrows_go_one_way(layer: str, may_import: set[str]) -> None:
    wrong = []
    for path in (PACKAGE / layer).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "flywheel_assets" and len(parts) > 1 and parts[1] not in may_import:
                    wrong.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert wrong == []
