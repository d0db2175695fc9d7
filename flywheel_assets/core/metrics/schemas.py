"""Schemas: whether parsed JSON fits a JSON Schema that came with the traffic.

What belongs here: compiling such a schema so that nothing it says can stop an evaluation, and remembering it. What does not:
where a request carries it (`structured`, `valid_calls`). The checking is done by the library `jsonschema-rs`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

# A workload asks with a handful of schemas.
_CACHED_SCHEMAS = 512
# A pattern that backtracks for ever must not stop an evaluation. pydantic's own patterns need look-ahead.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


def validator_of(schema: Any) -> jsonschema_rs.Validator | None:
    """The checker of a JSON Schema (an object; the draft is 2020-12 where it names none). `format` is not checked.

    None where there is none that can be used: no object, not a JSON Schema, or with references to elsewhere (nothing is
    fetched, no file is read).
    """
    if type(schema) is not dict:
        return None
    try:
        encoded = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return None
    return _compiled(encoded)


@lru_cache(_CACHED_SCHEMAS)
def _compiled(schema: bytes) -> jsonschema_rs.Validator | None:
    try:
        return jsonschema_rs.validator_for(
            orjson.loads(schema), validate_formats=False, offline=True, pattern_options=_PATTERNS
        )
    except (jsonschema_rs.ReferencingError, ValueError):
        return None
