"""PostgreSQL under Dagster: the storage class that `deploy/postgres` names, and a server of our own where there is none.

Nothing here is imported unless that instance is chosen: the packages are those of the extra `postgres`.
"""
