"""Run in an environment that has the built wheel and nothing else of ours, and no torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import shardahead
from shardahead import _core


def main() -> None:
    assert "site-packages" in str(Path(str(_core.__file__))), _core.__file__
    assert (Path(shardahead.__file__).parent / "py.typed").exists()
    assert (Path(shardahead.__file__).parent / "_core.pyi").exists()
    for group in ("sglang.srt.plugins", "vllm.general_plugins"):
        (plugin,) = [entry for entry in entry_points(group=group) if entry.name == "shardahead"]
        plugin.load()  # also where the engine is not
    assert "torch" not in sys.modules
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "model.safetensors"
        shard.write_bytes(b"x" * 3_000_000)
        shardahead.evict(shard)
        with shardahead.prefetch_files(shard, 0, 1) as handle:
            handle.wait(60)
        assert handle.report().complete, handle.report()
        try:
            shardahead.safetensors_weights_iterator(shard)
        except ImportError as error:
            assert "pip install torch safetensors numpy" in str(error), error
        else:
            raise AssertionError("torch is here: this environment proves nothing")
        command = Path(sys.executable).parent / "shardahead"
        subprocess.run([command, "status", folder], check=True)
        subprocess.run([sys.executable, "-m", "shardahead", "--version"], check=True)
        bench = Path(sys.executable).parent / "shardahead-bench"
        for start in ([bench], [command, "bench"]):
            done = subprocess.run([*start, "--version"], capture_output=True, text=True, check=True)
            assert done.stdout == f"shardahead-bench {shardahead.__version__}\n", done.stdout
    print("wheel check: 1 passed, 0 failed")


if __name__ == "__main__":
    main()
