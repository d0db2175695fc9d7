"""Alerts on their way to people: what waits (`outbox`) and the ways out (`channels`). The words are `core.alerts`."""

from flywheel_assets.resources.alerts.channels import Channel, Undelivered, channels_of
from flywheel_assets.resources.alerts.outbox import Delivery, Outbox

__all__ = ["Channel", "Delivery", "Outbox", "Undelivered", "channels_of"]
