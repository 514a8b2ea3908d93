"""This node: mounts, memory, ranks, limits, what is resident.

Facts as the kernel and the launcher tell them, without decisions.

Imports: `checkpoint`.
"""
