"""Shardahead inside serving engines: plugins that their own plugin systems find, and subclasses.

Nothing here imports an engine before the engine itself calls it.

Imports: `checkpoint`, `node`, `prefetch`, `replica`, `weights`.
"""
