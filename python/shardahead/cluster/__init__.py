"""Several nodes that read a checkpoint from storage once, and send each other what each has read.
Needs torch.

Imports: `checkpoint`, `node`, `prefetch`, `replica`.
"""
