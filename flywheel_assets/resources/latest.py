"""Latest: the flywheel of flywheel.yaml as it stands on disk now.

A code server lives for weeks and reads the file once, while every run it starts reads it anew. A sensor that planned with
the old settings would ask for what the runs make differently, for ever. So every tick asks here first, and works with what
it got to its end. Other processes (runs, `flywheel`) read the file when they start, and need none of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.resources.flywheel import Flywheel
from flywheel_assets.settings import load_settings


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What changes with a file, however it is written: in place, or by a rename over it."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> _Stamp | None:
        """None where there is no such file."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


_read: dict[Path, tuple[_Stamp | None, Flywheel]] = {}


def latest(flywheel: Flywheel) -> Flywheel:
    """The flywheel with the settings of today; the same object as long as they say the same.

    Settings that came from no file never change. Raises SettingsError where the file is not valid at the moment.
    """
    file = flywheel.settings.file
    if file is None:
        return flywheel
    # Before it is read: what changes meanwhile is read again by the next tick.
    stamp = _Stamp.of(file)
    known = _read.get(file)
    if known is not None and known[0] == stamp:
        return known[1]
    settings = load_settings(file)
    before = known[1] if known is not None else flywheel
    now = before if settings == before.settings else Flywheel.at_home(settings)
    _read[file] = (stamp, now)
    return now
