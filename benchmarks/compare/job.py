"""The methods by name, and what the ranks of one load are told, as a file of JSON.

Imports nothing but the standard library: the ranks of every method use it, in any environment.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cut import Wanted

#: Name of a method: where it is, and whose versions belong to its result.
METHODS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "plain": ("methods", "plain", ("safetensors",)),
    "plain-narrow": ("methods", "plain_narrow", ("safetensors",)),
    "vmtouch": ("methods", "vmtouch", ("safetensors",)),
    "cat": ("methods", "cat", ("safetensors",)),
    "whole-file": ("methods", "whole_file", ("safetensors",)),
    "sglang": ("engines", "sglang", ("sglang", "safetensors")),
    "sglang-plugin": ("engines", "sglang_plugin", ("sglang", "shardahead", "safetensors")),
    "vllm": ("engines", "vllm", ("vllm", "safetensors")),
    "vllm-plugin": ("engines", "vllm_plugin", ("vllm", "safetensors", "shardahead")),
    "fastsafetensors": ("streamers", "fastsafetensors", ("fastsafetensors",)),
    "runai": ("streamers", "runai", ("runai-model-streamer",)),
    "runai-buffered": ("streamers", "runai_buffered", ("runai-model-streamer",)),
    "runai-distributed": ("streamers", "runai_distributed", ("runai-model-streamer",)),
    "shardahead": ("methods", "shardahead", ("shardahead", "safetensors")),
    "prefetching": ("methods", "prefetching", ("shardahead", "safetensors")),
    "shardahead-parts": ("methods", "shardahead_parts", ("shardahead", "safetensors")),
    "shardahead-parts-pread": ("methods", "shardahead_parts", ("shardahead", "safetensors")),
    "shardahead-learned": ("methods", "shardahead", ("shardahead", "safetensors")),
    "prefetching-learned": ("methods", "prefetching", ("shardahead", "safetensors")),
    "shardahead-wrong": ("methods", "shardahead", ("shardahead", "safetensors")),
    "prefetching-wrong": ("methods", "prefetching", ("shardahead", "safetensors")),
    "shardahead-before": ("methods", "shardahead", ("shardahead", "safetensors")),
}

#: These are measured with what a load of other ranks of the job has left under their keys.
WRONG = ("shardahead-wrong", "prefetching-wrong")

#: These are measured once they have learned what is touched, by a load that is not timed.
LEARNED = ("shardahead-learned", "prefetching-learned", *WRONG)

#: Where tensors are wanted whole, it does what another does.
OF_PARTS = ("plain-narrow",)

#: How else these are told apart.
VARIABLES_OF = {"shardahead-parts-pread": {"SHARDAHEAD_MODE": "pread"}}

#: Of these the interpreter has to be named: they are no method of their own.
OF_ANOTHER_INTERPRETER = ("shardahead-before",)


@dataclass(frozen=True)
class Job:
    """One load. `folder` is for what the ranks tell each other, never for the checkpoint.

    `tensors`: those that the ranks want, by name. `job_ranks`: how many ranks share them, of which
    the first `size` are here, or as many from `first_share` on; 0 where all are.

    `memory_group` is the folder of the cgroup in which the ranks run, "" for the caller's;
    `hog_mib` what another process in it takes and gives back meanwhile, `window_mib` how far
    Shardahead may be ahead.
    """

    method: str
    files: list[str]
    tensors: dict[str, Wanted]
    size: int
    folder: str
    work_s_per_gib: float = 0.0
    kill_rank: int | None = None
    kill_after: float = 0.0
    verify: bool = False
    memory_group: str = ""
    hog_mib: int | None = None
    window_mib: int | None = None
    job_ranks: int = 0
    first_share: int = 0

    @property
    def sharing(self) -> int:
        """Among how many ranks the tensors are cut."""
        return self.job_ranks or self.size

    def share(self, rank: int) -> int:
        """Whose part of the tensors a rank here takes."""
        return (self.first_share + rank) % max(self.sharing, 1)

    @property
    def kind(self) -> str:
        """The method without its options."""
        return self.method.split()[0]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def read_job(path: Path) -> Job:
    fields = json.loads(path.read_text())
    fields["tensors"] = {
        name: Wanted(tuple(tensor["shape"]), tensor["item_bytes"], tensor["dim"], tensor["offset"])
        for name, tensor in fields["tensors"].items()
    }
    return Job(**fields)
