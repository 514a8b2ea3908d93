"""Holds all types of the package to be known to a type checker that infers nothing.

type_completeness.py BASEDPYRIGHT: asks its --verifytypes about python/shardahead. Left out are
loggers, and what is derived from the classes of others, which it does not look for: of engines and
of torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
OF_OTHERS = ("shardahead.integrations.", "shardahead.checkpointing.")


def main(basedpyright: str) -> int:
    command = [basedpyright, "--verifytypes", "shardahead", "--ignoreexternal", "--outputjson"]
    done = subprocess.run(
        [*command, "--pythonpath", sys.executable],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "python")},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    assert len(symbols) > 500, "the package was not found"
    unknown = [
        symbol
        for symbol in symbols
        if not symbol["isTypeKnown"]
        and not symbol["name"].endswith(".logger")
        and not symbol["name"].startswith(OF_OTHERS)
    ]
    for symbol in unknown:
        for found in symbol["diagnostics"]:
            line = found["range"]["start"]["line"] + 1
            print(f"{found['file']}:{line}: {symbol['name']}: {found['message']}")
        if not symbol["diagnostics"]:
            print(f"{symbol['name']}: its type is not known")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
