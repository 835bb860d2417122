"""`make sanitize`: the native kernel under the address and undefined-behaviour sanitizers, without torch.

Each instruction set is compiled with `driver.cpp` and run over many odd shapes; those that the processor does
not have are compiled and skipped. Exit code 1 if anything is reported.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lookaround.ops.backends import cpu_build

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g")
QUIET = "-Wno-maybe-uninitialized"  # gcc warns of its own header of intrinsics
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=1:strict_init_order=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


def main() -> int:
    """Compile and run the driver for every instruction set of this kind of machine."""
    compiler = cpu_build.find_compiler()
    if compiler is None:
        print("sanitize: there is no C++ compiler", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        failed = [name for name in cpu_build.instruction_sets() if not passes(name, compiler, Path(folder))]
    if failed:
        print(f"sanitize: failed for {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def passes(name: str, compiler: tuple[str, ...], folder: Path) -> bool:
    """Compile kernel and driver for one instruction set, and run them."""
    kernel, program = str(folder / f"{name}.o"), str(folder / name)
    common = [*compiler, "-std=c++17", "-O1", *SANITIZERS, f"-I{SOURCES}", "-Wall", "-Wextra", QUIET]
    flags = (*cpu_build.KERNEL_FLAGS, *cpu_build.instruction_sets()[name], f"-DLOOKAROUND_ISA={name}")
    commands = [
        [*common, *flags, "-c", str(SOURCES / "kernel.cpp"), "-o", kernel],
        [*common, f"-DLOOKAROUND_KERNEL=kernel_{name}", str(HERE / "driver.cpp"), kernel, "-o", program],
        [program],
    ]
    return all(subprocess.run(c, env=os.environ | ENVIRONMENT, check=False).returncode == 0 for c in commands)


if __name__ == "__main__":
    sys.exit(main())
