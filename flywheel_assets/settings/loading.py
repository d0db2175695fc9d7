"""Reading flywheel.yaml: where it is found, and what is said when something in it is wrong.

Every fault is named at once, each with its key, what was found and what is accepted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from dotenv import load_dotenv
from pydantic import BaseModel, ValidationError

from flywheel_assets.settings.nemo import CustomizerConfig, NemoSettings, Nim
from flywheel_assets.settings.schema import (
    OVERRIDABLE,
    SETTINGS_FILE,
    Candidate,
    DecisionSettings,
    Gate,
    LocalSettings,
    PromotionSettings,
    Settings,
    SettingsError,
    WorkloadSettings,
)

_NOT_IN_THE_FILE = ("home", "root", "file")


def find_root(start: Path | None = None) -> Path:
    """The folder that holds flywheel.yaml: `FLYWHEEL_CONFIG`'s, else the nearest one at or above `start` (default: here)."""
    if configured := os.environ.get("FLYWHEEL_CONFIG"):
        return Path(configured).expanduser().resolve().parent
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / SETTINGS_FILE).is_file():
            return folder
    return here


def load_settings(path: Path | None = None) -> Settings:
    """Read and validate flywheel.yaml, and `.env` beside it.

    `path` defaults to `FLYWHEEL_CONFIG`, else to the nearest flywheel.yaml at or above the working folder. `FLYWHEEL_HOME`
    (default `.flywheel` beside the file) says where data lives. Raises SettingsError with every faulty key in it.
    """
    file = (path or _configured_file()).resolve()
    load_dotenv(file.parent / ".env", override=False)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"{file} does not exist. Run from a folder that holds {SETTINGS_FILE}, or name one in FLYWHEEL_CONFIG."
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 text ({error}). Save it as UTF-8.") from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{file} must be a mapping with at least `candidates:`; it holds {type(content).__name__}.")
    home = Path(os.environ.get("FLYWHEEL_HOME") or ".flywheel").expanduser()
    return parse_settings(content, home=(file.parent / home).resolve(), root=file.parent, origin=str(file), file=file)


def _configured_file() -> Path:
    configured = os.environ.get("FLYWHEEL_CONFIG")
    return Path(configured).expanduser() if configured else find_root() / SETTINGS_FILE


def parse_settings(
    content: dict[str, Any], *, home: Path, root: Path, origin: str = SETTINGS_FILE, file: Path | None = None
) -> Settings:
    """Validate the content of a flywheel.yaml; SettingsError lists every fault, one a line."""
    for reserved in _NOT_IN_THE_FILE:
        if reserved in content:
            raise SettingsError(f"{origin}: `{reserved}` is not a setting; set FLYWHEEL_HOME in the environment instead.")
    try:
        return Settings(**content, home=home, root=root, file=file)
    except ValidationError as error:
        lines = [_explain(fault, content) for fault in error.errors()]
        raise SettingsError(f"{origin}: {len(lines)} fault(s)\n" + "\n".join(f"  - {line}" for line in lines)) from None


def _explain(fault: Any, content: dict[str, Any]) -> str:
    """One pydantic fault as `key: what is wrong, what was found, what is accepted`."""
    key = ".".join(str(part) for part in fault["loc"]) or "(top level)"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key. Accepted here: {', '.join(_accepted_keys(fault['loc']))}."
    if fault["type"] == "missing":
        return f"{key}: is required and missing."
    found = fault.get("input")
    shown = repr(found) if isinstance(found, str | int | float | bool) or found is None else type(found).__name__
    return f"{key}: {fault['msg']} (found {shown})."


def _accepted_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys a block accepts, found by walking the models along a fault's location."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        if model is Settings and part == "candidates":
            model = Candidate
        elif model is Settings and part == "workloads":
            model = WorkloadSettings
        elif part in OVERRIDABLE and model in (Settings, WorkloadSettings):
            model = OVERRIDABLE[str(part)]
        elif model is Settings and part == "local":
            model = LocalSettings
        elif model is Settings and part in ("nemo", "nims"):
            model = NemoSettings if part == "nemo" else Nim
        elif model is Nim and part == "customizer_configs":
            model = CustomizerConfig
        elif model is Settings and part == "promotion":
            model = PromotionSettings
        elif model is DecisionSettings and part == "gates":
            model = Gate
    return sorted(name for name in model.model_fields if name not in _NOT_IN_THE_FILE)
