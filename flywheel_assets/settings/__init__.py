"""Settings: flywheel.yaml, typed and validated.

What belongs here: every key a user may set, its default, its accepted values (`schema`), and the error that names the key
(`loading`). What does not: secrets (they come from the environment, by the *name* of a variable) and anything computed from
the traffic.

`load_settings` is called once, at the door (definitions, command line); everything else is handed a `Settings`.
"""

from flywheel_assets.settings.automation import AutomationSettings
from flywheel_assets.settings.cleaning import CleaningSettings
from flywheel_assets.settings.cluster import cluster_judges
from flywheel_assets.settings.decision import DecisionSettings, Gate, PromotionSettings
from flywheel_assets.settings.elasticsearch import ElasticsearchSettings
from flywheel_assets.settings.evaluation import EvaluationSettings
from flywheel_assets.settings.hub import HubSettings
from flywheel_assets.settings.judge import JudgeSettings
from flywheel_assets.settings.langfuse import LangfuseSettings
from flywheel_assets.settings.loading import find_root, load_settings, parse_settings
from flywheel_assets.settings.nemo import NemoSettings, Nim, NimImage
from flywheel_assets.settings.schema import (
    SETTINGS_FILE,
    Candidate,
    Engine,
    LocalSettings,
    PrefixSettings,
    Settings,
    SettingsError,
    WorkloadSettings,
)
from flywheel_assets.settings.split import SplitSettings, SplitStrategy
from flywheel_assets.settings.teacher import TeacherSettings
from flywheel_assets.settings.telemetry import TelemetrySettings
from flywheel_assets.settings.training import FinetuneMode, FinetuneSettings, TrainingSettings

__all__ = [
    "SETTINGS_FILE",
    "AutomationSettings",
    "Candidate",
    "CleaningSettings",
    "DecisionSettings",
    "ElasticsearchSettings",
    "Engine",
    "EvaluationSettings",
    "FinetuneMode",
    "FinetuneSettings",
    "Gate",
    "HubSettings",
    "JudgeSettings",
    "LangfuseSettings",
    "LocalSettings",
    "NemoSettings",
    "Nim",
    "NimImage",
    "PrefixSettings",
    "PromotionSettings",
    "Settings",
    "SettingsError",
    "SplitSettings",
    "SplitStrategy",
    "TeacherSettings",
    "TelemetrySettings",
    "TrainingSettings",
    "WorkloadSettings",
    "cluster_judges",
    "find_root",
    "load_settings",
    "parse_settings",
]
