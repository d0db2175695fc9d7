"""Langfuse as an observer: traces of phases, their scores, eval rows as a dataset, evaluations as experiments on it.

What belongs here: what is told of a phase (`story`, `exam`), in which form (`observations`, `scores`), how it is sent within
bounds (`service`, `parallel`), what must be known in the next process (`memory`), and the observer that brings it together.
What does not: reading traffic out of Langfuse (`resources.sources`).

Nothing of the SDK's own tracing is used: its client keeps queues, threads and an exit handler, which wait for a dead server,
and a global tracer provider, which would carry other people's spans to Langfuse. Spans are sent by us, in the SDK's form.
"""
