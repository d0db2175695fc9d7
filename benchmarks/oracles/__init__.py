"""Oracles: other people's evaluators, run beside ours in environments of their own.

What belongs here: the environments, and the programs that run inside them. Those programs import nothing of this project,
and nothing of it imports them: the packages are yardsticks, not dependencies.
"""
