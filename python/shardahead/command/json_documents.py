"""The JSON that commands print for programs: one object, which says by `schema` what it is. What is
in it: docs/json.md, and docs/schemas/ for machines. Pure; any thread.

Paths are as Python has them: a byte 0xNN that is not UTF-8 is "\\udcNN", and os.fsencode() gives it
back. So all of it is ASCII, which every stream takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Raised where a field goes, or means something else; one that is new leaves it.
VERSION = 1


def json_text(command: str, fields: Mapping[str, Any]) -> str:
    """What `command` prints."""
    return json.dumps({"schema": f"shardahead/{command}/{VERSION}", **fields})
