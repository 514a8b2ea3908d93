"""Where nothing brings bytes in ahead of a consumer, its faults are as few as those of the
safetensors library by itself: the kernel reads as far ahead of them. Judged by the requests that
the storage got, of which each takes a round trip.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MIB, MakeMount, run_python
from learned_support import rewrite

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

PLAIN = """
from safetensors import safe_open
with safe_open(path, framework="pt") as shard:
    for name in shard.keys():
        shard.get_tensor(name).sum()
"""
WITHOUT_PREFETCH = """
for name, tensor in shardahead.safetensors_weights_iterator(path, prefetch=False, mode="mmap"):
    tensor.sum()
"""
DISABLED = """
os.environ["SHARDAHEAD_DISABLE"] = "1"
for name, tensor in shardahead.buffered_multi_thread_safetensors_weights_iterator(path):
    tensor.sum()
"""
# What the next tensors are fetched for is found to be wrong with the first.
GIVEN_UP = """
learned = {"learn": profiles, "learn_key": "one"}
weights = shardahead.safetensors_weights_iterator(path, mode="mmap", **learned)
name, tensor = next(weights)
tensor[: len(tensor) // 8].sum()
deadline = time.monotonic() + 20
while not weights._load.learning.given_up and time.monotonic() < deadline:
    time.sleep(0.01)
assert weights._load.learning.given_up
time.sleep(0.1)  # the faults are told right after it
tensor.sum()
for name, tensor in weights:
    tensor.sum()
"""
IN_A_CHILD = """
weights = shardahead.safetensors_weights_iterator(path, mode="mmap", window_bytes=1 << 20)
if os.fork() == 0:
    for name, tensor in weights:
        tensor.sum()
    os._exit(0)
weights.close()
assert os.wait()[1] == 0
"""


BEGIN = """
import os, sys, time, torch, shardahead
torch.set_num_threads(1)
path, profiles = sys.argv[1:]
"""


@pytest.mark.parametrize(
    "script",
    [WITHOUT_PREFETCH, DISABLED, IN_A_CHILD, GIVEN_UP],
    ids=["without", "disabled", "in a child", "given up"],
)
def test_no_more_requests_than_without_us(
    script: str, tmp_path: Path, make_mount: MakeMount
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    tensors = {f"{i}": torch.full((16, MIB), i, dtype=torch.uint8) for i in range(4)}
    save_file(tensors, source / "model.safetensors")
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    rewrite(source, profiles, lambda _, size: ((size - 2 * MIB, MIB),))
    found = []
    for way in (PLAIN, script):
        mount = make_mount(source)
        mount.evict_all()
        mount.reset()
        path = mount.mountpoint / "model.safetensors"
        run_python(BEGIN + way + "print('null')", path, profiles)
        mount.wait_until_idle()
        found.append(mount.counters())
    plain, ours = found
    assert ours.bytes_served >= 64 * MIB
    assert ours.requests <= 1.2 * plain.requests, "twice as many where the readahead is half"
