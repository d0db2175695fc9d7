"""flywheel_assets: production LLM traffic in, evidence and a smaller model out.

Importing the package costs nothing: Dagster, torch and the rest are imported by the modules that need them.
"""

__version__ = "0.1.0"
