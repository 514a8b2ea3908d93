"""Which files a checkpoint is, what their headers say, and in which order they are read.

Opens files for their headers and indexes alone; no torch.

Imports: nothing but the modules beside the rooms.
"""
