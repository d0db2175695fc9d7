"""Reading flywheel.yaml: where it is found, and what is said when something in it is wrong.

Every fault is named at once, each with its key, what was found and what is accepted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from dotenv import load_dotenv
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flywheel_assets.settings.local_models import NoGguf, gguf_at
from flywheel_assets.settings.schema import OVERRIDABLE, SETTINGS_FILE, Engine, Settings, SettingsError
from flywheel_assets.settings.section import Section
from flywheel_assets.settings.yaml_text import YamlFault, read_yaml

Location = tuple[int | str, ...]

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
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}. FLYWHEEL_CONFIG, where it is set, names the file itself."
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 text ({error}). Save it as UTF-8.") from None
    try:
        content = read_yaml(text)
    except YamlFault as error:
        raise SettingsError(f"{file} is not valid YAML: {error}.") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{file} must be a mapping with at least `candidates:`; it holds {type(content).__name__}.")
    home = (file.parent / Path(os.environ.get("FLYWHEEL_HOME") or ".flywheel").expanduser()).resolve()
    if home.exists() and not home.is_dir():
        raise SettingsError(f"FLYWHEEL_HOME is {home}, which is a file. It must name a folder; one that is missing is made.")
    return parse_settings(content, home=home, root=file.parent, origin=str(file), file=file)


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
        # Not as keyword arguments: a key of a YAML file may be a number.
        settings = Settings.model_validate({**content, "home": home, "root": root, "file": file})
    except ValidationError as error:
        raise _refusal(origin, [_explain(fault) for fault in _faults(error)]) from None
    if lines := list(_unservable(settings)):
        raise _refusal(origin, lines)
    return settings


def _refusal(origin: str, lines: list[str]) -> SettingsError:
    return SettingsError(f"{origin}: {len(lines)} fault(s)\n" + "\n".join(f"  - {line}" for line in lines))


def _unservable(settings: Settings) -> Iterator[str]:
    """Candidates that llama.cpp is to serve and whose `model` can be told to mean no GGUF file."""
    for position, candidate in enumerate(settings.candidates):
        if candidate.engine is not Engine.XLLAMACPP:
            continue
        try:
            gguf_at(settings.resolve(candidate.model))
        except NoGguf as error:
            yield f"candidates[{position}].model: {error}"


def _faults(error: ValidationError) -> list[ErrorDetails]:
    """The faults of an error, without those that only say that a list is short of the entries with other faults."""
    faults = error.errors()
    return [
        fault
        for fault in faults
        if fault["type"] != "too_short"
        or not any(other["loc"][: len(fault["loc"])] == fault["loc"] for other in faults if other is not fault)
    ]


def _explain(fault: ErrorDetails) -> str:
    """One pydantic fault as `key: what is wrong, what was found, what is accepted`."""
    key = _key(fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key. Accepted here: {', '.join(_accepted_keys(fault['loc']))}."
    if fault["type"] == "missing":
        return f"{key}: is required and missing."
    found = fault.get("input")
    shown = repr(found) if isinstance(found, str | int | float | bool) or found is None else type(found).__name__
    return f"{key}: {fault['msg']} (found {shown})."


def _key(location: Location) -> str:
    """A place in the file as people write it: `candidates[1].training.epochs`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "(top level)"


def _accepted_keys(location: Location) -> list[str]:
    """The keys that the block around a place accepts, found by walking the models towards it."""
    block: Any = Settings
    for part in location[:-1]:
        block = _inside(block, part)
    return sorted(name for name in block.model_fields if name not in _NOT_IN_THE_FILE)


def _inside(block: Any, part: int | str) -> Any:
    """The type of what stands at `part` of a block: a field of a section, an item of a list, a value of a mapping."""
    if isinstance(block, type) and issubclass(block, Section):
        kind = block.model_fields[str(part)].annotation
        # A block of overrides is kept as it was written, and is checked against the section it overrides.
        return OVERRIDABLE[str(part)] if kind == dict[str, Any] and part in OVERRIDABLE else kind
    kinds = get_args(block)
    return kinds[0] if isinstance(part, int) else kinds[1]
