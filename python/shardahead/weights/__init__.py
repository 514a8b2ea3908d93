"""The iterators over (name, tensor), by mapping or by reading. Imports torch when one is made.

Imports: `checkpoint`, `node`, `prefetch`, `replica`.
"""
