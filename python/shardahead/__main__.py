"""`python -m shardahead`, and so `torchrun -m shardahead`: the same as the command `shardahead`."""

import sys

from shardahead.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
