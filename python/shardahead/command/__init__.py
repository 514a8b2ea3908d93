"""What is typed, and what it shows.

Imports: `checkpoint`, `node`, `prefetch`, `replica`.
"""
