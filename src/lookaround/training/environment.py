"""What a result depends on besides the code: versions, hardware, threads, commit."""

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "lookaround",
    "torch",
    "torchvision",
    "lightning",
    "triton",
    "timm",
    "numpy",
    "einops",
    "safetensors",
)
INSTRUCTION_SETS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "amx_bf16",
    "neon",
    "asimd",
    "sve",
)


def describe_environment() -> dict[str, Any]:
    """Versions, hardware, threads and commit, as plain values that JSON can hold."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(),
        "commit": commit(),
        "cpu": describe_cpu(),
        "gpus": describe_gpus(),
    }


def package_versions() -> dict[str, str | None]:
    """Installed version of every package that matters to a result; None for those that are absent."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def describe_cpu() -> dict[str, Any]:
    """Model, logical cores this process may use, torch's threads, memory and instruction sets."""
    facts = _processor_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": facts.get("model name", platform.processor()) or platform.machine(),
        "architecture": platform.machine(),
        "cores": usable,
        "threads": torch.get_num_threads(),
        "memory_bytes": _memory_bytes(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
    }


def describe_gpus() -> list[dict[str, Any]]:
    """Name, memory and compute capability of every CUDA device."""
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {
            "name": device.name,
            "memory_bytes": device.total_memory,
            "capability": f"{device.major}.{device.minor}",
        }
        for device in devices
    ]


@cache
def commit() -> str | None:
    """Commit of this code, with `+changes` if files differ from it; None for an installed wheel."""
    here = Path(__file__).resolve().parent
    # An environment may lie in somebody else's repository: only a tracked file says the commit is ours.
    if _git(here, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    head = _git(here, "rev-parse", "HEAD")
    if head is None:
        return None
    return f"{head}+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else head


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def _processor_facts() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_bytes() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
