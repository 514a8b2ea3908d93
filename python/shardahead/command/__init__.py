"""What is typed, and what it shows.

Imports: `checkpoint`, `cluster`, `node`, `prefetch`, `replica`.
"""
