"""Sensors: they ship stopped. They ask the planner and start runs; they decide nothing themselves."""
