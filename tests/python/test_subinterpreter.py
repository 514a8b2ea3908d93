"""An interpreter beside the main one cannot have the core: it is told so, and does not hang."""

from __future__ import annotations

import pytest
from conftest import run_python

SCRIPT = """
import json, os, sys
try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        print(json.dumps(None))
        sys.exit()
if sys.argv[1] == "after":
    import shardahead
reading, writing = os.pipe()
told = f'''
import os
try:
    import {sys.argv[2]}
    said = "imported"
except ImportError as error:
    said = f"{{type(error).__name__}}: {{error}}"
os.write({writing}, said.encode())
'''
interpreter = interpreters.create()
interpreters.run_string(interpreter, told)
os.close(writing)
said = os.fdopen(reading).read()
import shardahead
with shardahead.prefetch_files(sys.executable) as handle:
    handle.wait()
print(json.dumps([said, handle.report().complete]))
"""


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("module", ["shardahead", "shardahead._core", "shardahead.command.cli"])
def test_a_subinterpreter_is_told(order: str, module: str) -> None:
    found = run_python(SCRIPT, order, module)
    if found is None:
        pytest.skip("this Python has no module for subinterpreters")
    said, complete = found
    assert said.startswith("ImportError: shardahead cannot be imported in a subinterpreter")
    assert complete
