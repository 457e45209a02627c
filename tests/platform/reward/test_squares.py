"""What only decodes images, or passes them on, needs no torch, and starts in a second."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["visionprefer.reward.steps", "visionprefer_serve.app"])
def test_torch_is_not_imported(module: str) -> None:
    told = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert not subprocess.run([sys.executable, "-c", told], check=False).returncode
