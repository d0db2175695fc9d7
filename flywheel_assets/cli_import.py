"""`flywheel import-config`: a config.yaml of the reference workflow, read, converted and written as flywheel.yaml."""

from __future__ import annotations

from pathlib import Path

import yaml

from flywheel_assets.settings import SETTINGS_FILE, SettingsError, parse_settings
from flywheel_assets.settings.blueprint import Conversion, convert
from flywheel_assets.settings.yaml_text import YamlFault, read_yaml

_WIDTH = 120
_HEADER = "# Made by `flywheel import-config` from {source}. Every key: docs/settings.md. What stands there and not here:\n"


def import_config(source: Path, target: Path, *, overwrite: bool) -> Conversion:
    """Write `target` from `source`; what could not be carried over is in the notes and in the file's head.

    Raises SettingsError when the source cannot be used, the result would not be valid, or the target exists.
    """
    if target.exists() and not overwrite:
        raise SettingsError(f"{target} exists. Name another file with --out, or overwrite it with --force.")
    try:
        config = read_yaml(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YamlFault) as error:
        raise SettingsError(f"{source} cannot be read as YAML: {error}") from None
    if not isinstance(config, dict):
        raise SettingsError(f"{source} holds no mapping, so it is no config.yaml.")
    try:
        done = convert(config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{source} cannot be converted: {error}") from None
    parse_settings(done.content, home=target.parent / ".flywheel", root=target.parent, origin=f"what {source} becomes")
    notes = "".join(f"#   {key}: {why}\n" for key, why in done.notes) or "#   nothing\n"
    body = yaml.safe_dump(done.content, sort_keys=False, width=_WIDTH, allow_unicode=True)
    target.write_text(_HEADER.format(source=source.name) + notes + body, encoding="utf-8")
    return done


def default_target() -> Path:
    """flywheel.yaml in the working folder."""
    return Path.cwd() / SETTINGS_FILE
