"""Where the native library comes from: the cache, its lock, a compiler, and a reason for each way to fail."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lookaround.ops.backends import cpu_build

FIRST_CALL = """
import torch
from lookaround.ops import explain_backends, local_attention
q = torch.ones(1, 3, 3, 1, 2)
print(explain_backends(q, q, q, kernel_size=3)["cpu"])
print(local_attention(q, q, q, kernel_size=3).sum().item())
"""
HEADER = """#pragma once
#include <cstdint>
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep libraries in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lookaround"


@pytest.fixture
def small_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the kernel with sources that compile in no time."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / "kernel.h").write_text(HEADER)
    (folder / "kernel.cpp").write_text('#include "kernel.h"\n')
    (folder / "registration.cpp").write_text('#include "kernel.h"\nint lookaround_answer = 42;\n')
    monkeypatch.setattr(cpu_build, "_find_sources", lambda: folder)
    return folder


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty the PATH."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))


needs_compiler = pytest.mark.skipif(cpu_build.find_compiler() is None, reason="there is no C++ compiler")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_importing_the_library_loads_and_compiles_nothing(tmp_path: Path) -> None:
    code = (
        "import lookaround, sys, torch; "
        "print('lookaround.ops.backends.cpu_build' in sys.modules, "
        "any(n.startswith('lookaround::') for n in torch._C._dispatch_get_all_op_names()))"
    )
    result = run(code, XDG_CACHE_HOME=str(tmp_path))
    assert result.stdout.split() == ["False", "False"], result.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_blocked_takes_over_and_the_reason_is_told(tmp_path: Path) -> None:
    result = run(FIRST_CALL, XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path / "nowhere"), CXX="")
    assert "there is no C++ compiler (looked for c++, g++, clang++)" in result.stdout, result.stderr
    assert result.stdout.split()[-1] == "18.0"


@pytest.mark.usefixtures("no_compiler", "cache", "small_sources")
def test_the_compilers_that_were_looked_for_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "mycc -m64")
    found = cpu_build.find_or_build()
    assert found.path is None
    assert found.reason.endswith("(looked for mycc -m64, c++, g++, clang++)")
    assert cpu_build.main() == 0


@needs_compiler
@pytest.mark.usefixtures("small_sources")
def test_a_library_is_built_once_and_found_again(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    built = cpu_build.find_or_build()
    assert built.path is not None, built.reason
    assert built.path.is_relative_to(cache)
    assert sorted(path.suffix for path in built.path.parent.iterdir()) == [".lock", ".so"]
    assert len(caplog.messages) == 1
    assert "compiling the native CPU kernel" in caplog.messages[0]
    assert cpu_build.find_or_build() == built
    assert len(caplog.messages) == 1


@needs_compiler
@pytest.mark.usefixtures("cache")
def test_other_sources_are_another_library(small_sources: Path) -> None:
    before = cpu_build.find_or_build().path
    (small_sources / "simd.h").write_text("// lanes\n")
    after = cpu_build.find_or_build().path
    assert before is not None
    assert after not in (None, before)
    assert before.is_file()


@needs_compiler
@pytest.mark.usefixtures("cache", "small_sources")
def test_a_built_library_serves_where_the_compiler_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    built = cpu_build.find_or_build()
    monkeypatch.setattr(cpu_build, "find_compiler", lambda: None)
    assert cpu_build.find_or_build() == built


@needs_compiler
def test_a_failing_compiler_gives_its_first_errors_and_a_log(
    cache: Path, small_sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_sources / "kernel.cpp").write_text("int lanes = sixteen;\n")
    found = cpu_build.find_or_build()
    assert found.path is None
    assert "failed: " in found.reason
    assert "sixteen" in found.reason
    log = Path(found.reason.split("all of it: ")[1].rstrip(")"))
    assert log.is_relative_to(cache)
    assert "sixteen" in log.read_text()
    assert not list(cache.rglob("*.so"))
    assert not list(cache.rglob("build-*"))
    assert cpu_build.main() == 1
    assert "no native CPU kernel" in capsys.readouterr().out


@pytest.mark.usefixtures("small_sources")
def test_a_cache_that_cannot_be_written_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cpu_build, "find_compiler", lambda: (sys.executable,))
    assert "XDG_CACHE_HOME" in cpu_build.find_or_build().reason


@pytest.mark.usefixtures("cache", "small_sources")
def test_a_lock_that_is_held_for_too_long_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_build, "find_compiler", lambda: (sys.executable,))
    monkeypatch.setattr(cpu_build, "LOCK_SECONDS", 0.2)
    recipe = cpu_build.find_recipe()
    assert isinstance(recipe, cpu_build.Recipe)
    folder = cpu_build.cache_folder() / recipe.key()
    folder.mkdir(parents=True)
    lock = folder / f"{cpu_build._compiler_key((sys.executable,))}.lock"
    with cpu_build._locked(lock):
        assert "another process has been building it" in cpu_build.find_or_build().reason


@needs_compiler
@pytest.mark.usefixtures("cache", "small_sources")
def test_threads_that_start_at_once_build_once(caplog: pytest.LogCaptureFixture) -> None:
    found: list[cpu_build.Found] = []
    threads = [threading.Thread(target=lambda: found.append(cpu_build.find_or_build())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].path is not None, found[0].reason
    assert found == found[:1] * 3
    assert len(caplog.messages) == 1


@needs_compiler
@pytest.mark.slow
def test_two_processes_that_start_at_once_compile_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST_CALL]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [out.split() for out, _ in outputs] == [["[]", "18.0"]] * 2, outputs
    assert sum("compiling the native CPU kernel" in err for _, err in outputs) == 1
    assert len(list(tmp_path.rglob("*.so"))) == 1


def test_a_library_that_is_there_and_broken_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    code = (
        "from pathlib import Path\n"
        "from lookaround.ops.backends import cpu_build\n"
        f"cpu_build.find_or_build = lambda: cpu_build.Found(Path({str(broken)!r}))\n"
    )
    result = run(code + FIRST_CALL)
    assert result.returncode != 0
    assert "BackendError: local_attention: the native library must load; got" in result.stderr
    assert "backend='blocked'" in result.stderr


@needs_compiler
def test_the_environment_chooses_the_instruction_set() -> None:
    code = "from lookaround.ops.backends import cpu; print(cpu.instruction_set())"
    assert run(code, LOOKAROUND_CPU_ISA="baseline").stdout.strip() == "baseline"
    wrong = run(code, LOOKAROUND_CPU_ISA="avx3")
    assert "LOOKAROUND_CPU_ISA: the instruction set must be compiled; got 'avx3'" in wrong.stderr
