"""The outbox: alerts that wait, one file each, and those that went out, so that none is lost and none is told twice.

Dagster's own failure sensor moves on whether or not the message got through, so what it noticed is written down here first.
An alert has gone out on a channel once that is written beside it; a process killed between the two tells it again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson
from filelock import FileLock, Timeout

from flywheel_assets.core.alerts import Alert
from flywheel_assets.resources.alerts.channels import Channel, Undelivered
from flywheel_assets.resources.json_files import write_json

# A channel that is down for longer is mended by a person, who does not want a week of old news then.
_GIVE_UP_S = 7 * 86_400.0
# Remembered for as long as something could notice the same thing again.
_REMEMBER_S = 90 * 86_400.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one attempt came to. `problems` holds one sentence a channel that failed."""

    sent: int
    waiting: int
    given_up: int
    problems: tuple[str, ...]

    def sentence(self) -> str:
        """For the tick."""
        parts = [f"{self.sent} alerts sent, {self.waiting} wait"]
        parts += [f"{self.given_up} given up after a week"] if self.given_up else []
        parts += [f"to be tried again: {'; '.join(self.problems)}"] if self.problems else []
        return "; ".join(parts) + "."


class Outbox:
    """The alerts of one FLYWHEEL_HOME."""

    def __init__(self, home: Path) -> None:
        self._waiting, self._gone = home / "alerts" / "waiting", home / "alerts" / "gone"
        self._lock = home / "alerts" / ".lock"

    def put(self, alert: Alert) -> bool:
        """Have an alert told; False where it waits or was told already."""
        name = _name(alert)
        if (self._gone / name).exists() or (self._waiting / name).exists():
            return False
        write_json(self._waiting / name, {**alert.to_json(), "noticed": time.time(), "told": []})
        return True

    def deliver(self, channels: Sequence[Channel], *, until: float) -> Delivery:
        """Send what waits, the oldest first, on every channel it has not gone out on.

        A channel that fails is left alone for the rest of this attempt: what it would do to one alert it does to all. No new
        sending begins after `until` (`time.monotonic()`). Somebody else who delivers at this moment is left to it.
        """
        self._waiting.mkdir(parents=True, exist_ok=True)
        self._gone.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._lock, timeout=0):
                return self._deliver(channels, until)
        except Timeout:
            return Delivery(0, len(list(self._waiting.glob("*.json"))), 0, ())

    def _deliver(self, channels: Sequence[Channel], until: float) -> Delivery:
        sent = given_up = 0
        problems: dict[str, str] = {}
        self._forget()
        waiting = {path: orjson.loads(path.read_bytes()) for path in self._waiting.glob("*.json")}
        for path, entry in sorted(waiting.items(), key=lambda one: float(one[1]["noticed"])):
            alert, told = Alert.from_json(entry), list(entry["told"])
            for channel in channels:
                if channel.name in told or channel.name in problems or time.monotonic() > until:
                    continue
                try:
                    channel.send(alert)
                except Undelivered as error:
                    problems[channel.name] = str(error)
                    continue
                told.append(channel.name)
                write_json(path, {**entry, "told": told})
            old = time.time() - entry["noticed"] > _GIVE_UP_S
            if old or {channel.name for channel in channels} <= set(told):
                path.replace(self._gone / path.name)
                given_up += old and not told
                sent += bool(told)
        left = len(list(self._waiting.glob("*.json")))
        return Delivery(sent, left, given_up, tuple(problems.values()))

    def _forget(self) -> None:
        for path in self._gone.glob("*.json"):
            if time.time() - path.stat().st_mtime > _REMEMBER_S:
                path.unlink()


def _name(alert: Alert) -> str:
    # By hash: an id holds what a file name may not.
    return f"{sha256(alert.id.encode()).hexdigest()[:32]}.json"
