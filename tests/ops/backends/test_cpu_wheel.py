"""The wheel carries the compiled kernel: it runs where there is no compiler."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from lookaround.ops.backends import cpu_build

ROOT = Path(__file__).parents[3]
RUN = """
import lookaround, torch
from lookaround.ops import explain_backends, local_attention
from lookaround.ops.backends import cpu_build
print(lookaround.__file__)
print(cpu_build.find_or_build().path)
q = torch.randn(1, 9, 9, 2, 4)
print(explain_backends(q, q, q, kernel_size=3)["cpu"])
mine, theirs = (local_attention(q, q, q, kernel_size=3, backend=name) for name in ("cpu", "reference"))
print(torch.allclose(mine, theirs, atol=1e-5))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cpu_build.find_compiler() is None, reason="there is no C++ compiler"),
    pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="this is no checkout"),
]


def pip(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, to leave nothing in the checkout."""
    import shutil

    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    copy.mkdir()
    for name in ("src", "csrc"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, copy / name)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    pip("wheel", *options, str(copy), LOOKAROUND_WHEEL_WITH_KERNEL="1")
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_is_for_any_python_and_this_platform(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "lookaround/_native/lookaround_cpu.so" in names
    assert {"lookaround/_native/kernel.cpp", "lookaround/_native/registration.cpp"} <= set(names)


def test_the_kernel_runs_in_a_fresh_environment_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # The environment sees the torch that is here, but no package that is installed as a link to a checkout.
    (packages / "torch.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    python = str(environment / "bin/python")
    pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    bare = {
        "PATH": str(tmp_path / "nowhere"),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    result = subprocess.run(
        [python, "-c", RUN], env=bare, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    where, library, reasons, equal = result.stdout.splitlines() or [result.stderr] * 4
    assert where.startswith(str(packages)), result.stderr
    assert library == str(packages / "lookaround/_native/lookaround_cpu.so")
    assert (reasons, equal) == ("[]", "True")
    assert not (tmp_path / "cache").exists()
