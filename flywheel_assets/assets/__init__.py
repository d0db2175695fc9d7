"""The assets: thin. Each reads what is upstream, calls core and resources, publishes, and says what a person looks for."""

import warnings

import dagster as dg

# Partitioned checks and partitioned observable sources are in preview; pyproject.toml pins Dagster's minor version for
# them. One line for each of thirty specs at every start would bury what a person should read.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)
