"""Cleaning: what is taken out of records before anything is made of them, and what is found out about them.

What belongs here: pure functions on one record or one chunk of records: scrubbing (`scrub`), the keys near-duplicates
share (`near`), and what an answer says about its own quality (`quality`). What does not: files, splits, settings.
"""

from flywheel_assets.core.cleaning.policy import CleaningPolicy, Entity, QualityPolicy, allow_pattern
from flywheel_assets.core.cleaning.scrub import scrub_detail, scrub_record

__all__ = ["CleaningPolicy", "Entity", "QualityPolicy", "allow_pattern", "scrub_detail", "scrub_record"]
