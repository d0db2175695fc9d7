"""The judge as a part of the world outside: waited for, asked, remembered, and paid for.

What belongs here: which judge a workload has (`choice`), until when it is waited for (`readiness`), what is asked of it and
kept (`judging`), and what that costs (`estimate`). What does not: rubrics, and what verdicts mean (`core.judge`).

Nothing is imported here: `choice` is read by every command, the client that asks only where something is judged.
"""
