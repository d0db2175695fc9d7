"""Core: what a flywheel is, as plain functions on plain data. Nothing here knows Dagster, a network or torch."""
