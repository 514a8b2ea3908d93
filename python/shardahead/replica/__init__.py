"""A copy of a checkpoint on this node's own disk or in its memory: what it is, where it lies, how
it is made while the checkpoint is loaded, and how it is found again.

Imports: `checkpoint`, `node`, `prefetch`.
"""
