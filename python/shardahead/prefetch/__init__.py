"""Options, a running prefetch, its report, and a prefetch beside another loader.

Imports: `checkpoint`, `node`.
"""
