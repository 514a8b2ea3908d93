"""`slices=` of files that torch.save wrote: parts of what torch.load gives, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from slices_support import WAYS, bits_of_parts, checkpoints
from weights_support import bits

from shardahead import pt_weights_iterator

torch = pytest.importorskip("torch")

NEW = [torch.float8_e4m3fn]


@given(checkpoint=checkpoints())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("old", [False, True], ids=["archive", "old format"])
def test_parts_of_torch_files(
    tmp_path: Path, way: str, old: bool, checkpoint: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    whole, parts = checkpoint
    if old:  # torch itself cannot load these
        whole = {n: t.view(torch.uint8) if t.dtype in NEW else t for n, t in whole.items()}
    path = tmp_path / "m.pt"
    torch.save(whole, path, _use_new_zipfile_serialization=not old)
    found = list(pt_weights_iterator(path, slices=parts, **WAYS[way]))
    assert [bits(*weight) for weight in found] == bits_of_parts(whole, parts)


def test_torch_files_with_tensors_of_other_kinds(tmp_path: Path) -> None:
    shared = torch.arange(24.0).reshape(4, 6)
    whole = {
        "turned": shared.t(),
        "parameter": torch.nn.Parameter(shared.clone()),
        "tied": shared[1:3],
        "wide": torch.ones(3, 1).expand(3, 5),
        "complex": torch.ones(4, dtype=torch.complex128),
    }
    path = tmp_path / "m.pt"
    torch.save(whole, path)
    asked: list[Any] = []

    def part(name: str, _shape: tuple[int, ...], dtype: str) -> Any:
        asked.append((name, dtype))
        return (0, 1, 2)

    found = dict(pt_weights_iterator(path, slices=part, mode="mmap"))
    for name, tensor in whole.items():
        assert torch.equal(found[name], tensor.detach()[1:2])
        assert found[name].stride() == tensor[1:2].stride()
        assert not found[name].requires_grad
    assert dict(asked)["turned"] == "F32"
    assert dict(asked)["complex"] == "complex128"
    read = dict(pt_weights_iterator(path, slices=part, mode="pread"))
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in read.values())
    assert all(torch.equal(read[name], found[name]) for name in whole)
    torch.save({"sparse": torch.eye(3).to_sparse()}, path)
    with pytest.raises(ValueError, match="'sparse' has no parts, for it is sparse_coo"):
        list(pt_weights_iterator(path, slices={"sparse": (0, 0, 1)}))
    ((_, tensor),) = pt_weights_iterator(path, slices={"sparse": None})
    assert tensor.is_sparse
