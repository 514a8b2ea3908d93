"""The version of the installed distribution; its one source is pyproject.toml."""

from importlib.metadata import version

__version__ = version("shardahead")
