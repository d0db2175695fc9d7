"""The outside world: trace stores, artifacts, training, serving, evaluation. Nothing here decides what to compute."""
