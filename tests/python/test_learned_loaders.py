"""learn= beside loaders that are not the weight iterators of safetensors."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MIB, MakeMount, run_python

pytest.importorskip("torch")


def test_files_of_torch_save_are_narrowed_as_well(tmp_path: Path, profiles: Path) -> None:
    script = """
import hashlib, json, sys, time, torch, shardahead
if sys.argv[3] == "make":
    torch.save({str(i): torch.arange(4 << 20) + i for i in range(2)}, sys.argv[1] + "/model.bin")
found = hashlib.sha256()
weights = shardahead.pt_weights_iterator(sys.argv[1], learn=sys.argv[2])
for name, tensor in weights:
    found.update(memoryview(tensor[: len(tensor) // 8].clone().numpy()))
    time.sleep(0.3)  # longer than between two looks
report = weights.prefetch.report()
print(json.dumps([found.hexdigest(), report.learned, report.planned_bytes]))
"""
    folder = tmp_path / "pt"
    folder.mkdir()
    first = run_python(script, folder, profiles, "make")
    second = run_python(script, folder, profiles, "")
    assert (first[1], second[1]) == ("recorded", "used")
    assert first[0] == second[0]
    # On this filesystem a fault may map a huge page around what it is for.
    assert second[2] <= 2 * (8 + 2 * 2) * MIB < first[2]


def test_transformers_with_half_of_the_layers_elsewhere(
    tmp_path: Path, profiles: Path, make_mount: MakeMount
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    script = """
import json, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
import shardahead
if sys.argv[3] == "make":
    LlamaForCausalLM(LlamaConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=8, num_attention_heads=8,
        vocab_size=512)).save_pretrained(sys.argv[1])
    sys.exit(print("{}"))
places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu",
          "model.rotary_emb": "cpu"}
places |= {f"model.layers.{i}": "cpu" if i < 4 else "disk" for i in range(8)}
with shardahead.prefetching(sys.argv[1], learn=sys.argv[2]) as handle:
    model = LlamaForCausalLM.from_pretrained(
        sys.argv[1], device_map=places, offload_folder=sys.argv[4])
    kept = [p for p in model.parameters() if p.device.type == "cpu"]
    total = sum(float(p.double().abs().sum()) for p in kept)
report = handle.report()
print(json.dumps({
    "total": total, "kept_bytes": sum(p.nbytes for p in kept),
    "learned": report.learned, "planned": report.planned_bytes}))
"""
    source = tmp_path / "llama"
    run_python(script, source, profiles, "make", "")
    first = run_python(script, make_mount(source).mountpoint, profiles, "", tmp_path / "disk")
    mount = make_mount(source)
    second = run_python(script, mount.mountpoint, profiles, "", tmp_path / "disk")
    assert first["total"] == second["total"] > 0
    assert first["kept_bytes"] == second["kept_bytes"] > 0
    assert (first["learned"], second["learned"]) == ("recorded", "used")
    assert second["planned"] < 0.7 * first["planned"]
    assert second["kept_bytes"] <= mount.counters().bytes_served < 1.1 * second["kept_bytes"]
