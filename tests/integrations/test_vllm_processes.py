"""Processes of the released vLLM that load no weights: the plugin costs them nothing."""

from __future__ import annotations

import subprocess

import pytest
from harness import python_of, without_ours

pytest_plugins = ["harness"]

# As the server's own process, which makes configurations and starts the others.
WITHOUT_LOADERS = """
import sys
import vllm.entrypoints.cli.main
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.plugins import load_general_plugins

LOADERS = "vllm.model_executor.model_loader"
load_general_plugins()
assert not [name for name in sys.modules if name.startswith(LOADERS)]
from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER, default_loader
assert "shardahead" in _LOAD_FORMAT_TO_MODEL_LOADER
assert default_loader.safetensors_weights_iterator.__wrapped__
"""


@pytest.mark.parametrize("environment", ["vllm", "vllm-previous"])
def test_a_process_that_loads_nothing_imports_no_loaders(environment: str) -> None:
    command = [str(python_of(environment)), "-c", WITHOUT_LOADERS]
    found = subprocess.run(command, env=without_ours(), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
