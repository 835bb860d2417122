"""Where the compiled native CPU kernel comes from: the wheel, the user's cache, or a compiler, in that order.

`python -m lookaround.ops.backends.cpu_build` builds it ahead of its first use. The module knows the standard
library alone (torch is only looked up), for the build of the wheel uses it too.

The cache is `$XDG_CACHE_HOME` (or `~/.cache`) `/lookaround/<key>/<compiler>.so`. The key covers sources,
flags, the torch ABI that is aimed at, and the machine, so that nothing in it is ever out of date; it may be
deleted at any time.
"""

import hashlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
TORCH_ABI = "0x020a000000000000"  # the stable ABI of torch 2.10: the library runs on every later one

# Never -ffast-math: infinities mark absent pixels. Hidden symbols: two copies of the library never mix.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
KERNEL_FLAGS = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512", *AVX2)

LOCK_SECONDS = 300.0
LOG_LINES = 6

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The compiled library, or why there is none."""

    path: Path | None
    reason: str = ""


@dataclass(frozen=True)
class Recipe:
    """How to compile: everything that the library's bytes depend on."""

    sources: Path
    torch_folder: Path
    instruction_sets: dict[str, tuple[str, ...]]

    def key(self) -> str:
        """Name this recipe on this machine."""
        digest = hashlib.sha256()
        for name in _source_names(self.sources):
            digest.update(name.encode() + b"\0" + (self.sources / name).read_bytes())
        target = (platform.system(), platform.machine(), TORCH_ABI)
        digest.update(repr((FLAGS, KERNEL_FLAGS, self.instruction_sets, target)).encode())
        return digest.hexdigest()[:16]


def find_or_build() -> Found:
    """Give the library from the wheel or the cache, or compile it into the cache."""
    prebuilt = package_folder() / library_name()
    if prebuilt.is_file():
        return Found(prebuilt)
    recipe = find_recipe()
    if isinstance(recipe, str):
        return Found(None, recipe)
    folder = cache_folder() / recipe.key()
    compiler = find_compiler()
    if compiler is None:
        built = sorted(folder.glob("*.so"))  # by a compiler that has gone since: as good as any
        return Found(built[0]) if built else Found(None, _no_compiler())
    library = folder / f"{_compiler_key(compiler)}.so"
    return Found(library) if library.is_file() else _build_once(recipe, compiler, library)


def package_folder() -> Path:
    """Give the folder of an installed wheel that holds the library, or the sources."""
    return Path(__file__).parents[2] / "_native"


def library_name() -> str:
    """Name the library inside a wheel."""
    return "lookaround_cpu.so"


def cache_folder() -> Path:
    """Give the folder in which libraries are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lookaround"


def find_recipe() -> Recipe | str:
    """Give the recipe for this machine, or say what is missing."""
    if os.name != "posix":
        return f"it is not built on {platform.system()}"
    sources = _find_sources()
    if sources is None:
        return "its sources are missing: they are part of the checkout, of the wheel and of the sdist"
    torch_folder = _find_torch()
    if not (torch_folder / "include/torch/csrc/stable/ops.h").is_file():
        return "this torch has no stable ABI to build for: torch 2.10 or newer is needed"
    return Recipe(sources, torch_folder, instruction_sets())


def instruction_sets() -> dict[str, tuple[str, ...]]:
    """Give the compiler's flags for each instruction set of this kind of machine, the fastest last.

    The baseline is linked first: where several objects bring the same inline function, the linker keeps the
    first, which every processor can run.
    """
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        bfloat16 = (*AVX512, "-mavx512bf16")
        return {"baseline": (), "avx2": AVX2, "avx512": AVX512, "avx512_bf16": bfloat16}
    return {"baseline": (), "neon": ()} if machine in ("aarch64", "arm64") else {"baseline": ()}


def find_compiler() -> tuple[str, ...] | None:
    """Give the command of `$CXX`, or of the first C++ compiler on the PATH."""
    for name in _compiler_names():
        program, *arguments = shlex.split(name)
        path = shutil.which(program)
        if path is not None:
            return path, *arguments
    return None


def compile_library(recipe: Recipe, compiler: tuple[str, ...], library: Path) -> str:
    """Compile into `library`, which appears whole or not at all; return what went wrong, or nothing."""
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as name:
        folder = Path(name)
        log = library.with_suffix(".log")
        commands = list(_compilations(recipe, compiler, folder))
        objects = [command[-1] for command in commands]
        linked = folder / "linked.so"
        output = _run_all(commands) or _run_all([_link(recipe, compiler, objects, linked)])
        if output:
            (folder / "log").write_text(output, encoding="utf-8")
            os.replace(folder / "log", log)
            lines = [line.strip() for line in output.splitlines() if "error" in line.lower()]
            return f"{compiler[0]} failed: {' | '.join(lines[:LOG_LINES])} (all of it: {log})"
        os.replace(linked, library)
    return ""


def _build_once(recipe: Recipe, compiler: tuple[str, ...], library: Path) -> Found:
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with _locked(library.with_suffix(".lock")):
            if library.is_file():  # another process was faster
                return Found(library)
            logger.warning("lookaround: compiling the native CPU kernel with %s (once) ...", compiler[0])
            problem = compile_library(recipe, compiler, library)
    except TimeoutError as error:
        return Found(None, str(error))
    except OSError as error:
        hint = "let XDG_CACHE_HOME name a folder that can be written"
        return Found(None, f"it cannot be built in {library.parent}: {error.strerror or error} ({hint})")
    return Found(None, problem) if problem else Found(library)


def _compilations(recipe: Recipe, compiler: tuple[str, ...], folder: Path) -> Iterator[list[str]]:
    """Give one command per object, whose name comes last."""
    names = " ".join(f"X({name})" for name in recipe.instruction_sets)
    torch_flags = [
        f"-DTORCH_TARGET_VERSION={TORCH_ABI}",
        f"-DLOOKAROUND_INSTRUCTION_SETS={names}",
        "-isystem",
        str(recipe.torch_folder / "include"),
    ]
    source = str(recipe.sources / "registration.cpp")
    yield [*compiler, *FLAGS, *torch_flags, "-c", source, "-o", str(folder / "registration.o")]
    source = str(recipe.sources / "kernel.cpp")
    for name, flags in recipe.instruction_sets.items():
        define = f"-DLOOKAROUND_ISA={name}"
        target = str(folder / f"{name}.o")
        yield [*compiler, *FLAGS, *KERNEL_FLAGS, *flags, define, "-c", source, "-o", target]


def _link(recipe: Recipe, compiler: tuple[str, ...], objects: list[str], library: Path) -> list[str]:
    # libtorch_cpu is in the process already when the library is loaded: no path to it is written down.
    libraries = [f"-L{recipe.torch_folder / 'lib'}", "-ltorch_cpu"]
    kind = ["-dynamiclib"] if platform.system() == "Darwin" else ["-shared", "-Wl,--no-undefined"]
    return [*compiler, *kind, *objects, *libraries, "-o", str(library)]


def _run_all(commands: list[list[str]]) -> str:
    """Run commands side by side; return the output of those that failed."""
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for command in commands
    ]
    outputs = [process.communicate()[0].decode(errors="replace") for process in running]
    failed = [
        f"$ {' '.join(command)}\n{output}\nerror: exit status {process.returncode}"
        for command, process, output in zip(commands, running, outputs, strict=True)
        if process.returncode != 0
    ]
    return "\n".join(failed)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    import fcntl

    deadline = time.monotonic() + LOCK_SECONDS
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    must = f"another process has been building it for {LOCK_SECONDS:.0f} s"
                    raise TimeoutError(f"{must}; if none is, delete {path}") from None
                time.sleep(0.05)
        yield


def _find_sources() -> Path | None:
    checkout = Path(__file__).parents[4] / "csrc"
    for folder in (package_folder(), checkout):
        if all((folder / name).is_file() for name in ("kernel.h", "kernel.cpp", "registration.cpp")):
            return folder
    return None


def _source_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".h", ".cpp"))


def _find_torch() -> Path:
    spec = importlib.util.find_spec("torch")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    return Path(places[0]) if places else Path("torch")


def _compiler_names() -> list[str]:
    chosen = os.environ.get("CXX")
    return [*([chosen] if chosen is not None and chosen.strip() else []), *COMPILERS]


def _no_compiler() -> str:
    return f"it is not compiled and there is no C++ compiler (looked for {', '.join(_compiler_names())})"


def _compiler_key(compiler: tuple[str, ...]) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    return hashlib.sha256(" ".join(compiler).encode() + b"\0" + version).hexdigest()[:16]


def main() -> int:
    """Build, and say where the library is or why there is none; only a failing compiler is a failure."""
    found = find_or_build()
    print(found.path or f"lookaround: no native CPU kernel: {found.reason}")
    return 1 if found.path is None and "failed" in found.reason else 0


if __name__ == "__main__":
    sys.exit(main())
