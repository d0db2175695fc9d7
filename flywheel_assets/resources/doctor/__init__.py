"""Doctor: what is configured, what of it is there, and of which version. Never a secret, only whether one is set."""

from flywheel_assets.resources.doctor.examination import examine
from flywheel_assets.resources.doctor.finding import Finding

__all__ = ["Finding", "examine"]
