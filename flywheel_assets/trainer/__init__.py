"""The training child process: `python -m flywheel_assets.trainer`.

What belongs here: everything that runs in the process that trains, from reading the job to the files of the adapter. What
does not: Dagster (the parent talks to us through Dagster Pipes), settings, and anything else of this package: the folder
imports nothing outside itself, so that the heavy stack (torch, Unsloth, TRL) is loaded in a child and nowhere else.

`job` and `failure` cost nothing to import; the parent uses them to write the job and to read what went wrong.
"""
