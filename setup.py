"""What pyproject.toml cannot say: the native kernel's sources, and the library where one is asked for.

Every wheel carries the sources, which are compiled at first use. With LOOKAROUND_WHEEL_WITH_KERNEL=1, as in
`make wheel`, it carries the compiled library too and names its platform; that build needs torch and a C++
compiler, and therefore no build isolation.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
WITH_KERNEL = os.environ.get("LOOKAROUND_WHEEL_WITH_KERNEL", "") not in ("", "0")


def load_cpu_build() -> ModuleType:
    """Load the module that compiles the kernel, without its package, which needs torch."""
    path = ROOT / "src/lookaround/ops/backends/cpu_build.py"
    spec = importlib.util.spec_from_file_location("lookaround_cpu_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_into(folder: Path) -> None:
    """Compile the kernel, or stop the build."""
    cpu_build = load_cpu_build()
    recipe, compiler = cpu_build.find_recipe(), cpu_build.find_compiler()
    if isinstance(recipe, str):
        raise SystemExit(f"setup.py: the native kernel cannot be built: {recipe}")
    if compiler is None:
        raise SystemExit("setup.py: the native kernel cannot be built: there is no C++ compiler")
    problem = cpu_build.compile_library(recipe, compiler, folder / cpu_build.library_name())
    if problem:
        raise SystemExit(f"setup.py: {problem}")


class BuildWithKernel(build_py):
    """Copies the package, then the kernel's sources, then compiles them if asked to."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return  # the checkout has the sources
        folder = Path(self.build_lib) / "lookaround/_native"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier build of another kind
        folder.mkdir(parents=True)
        for source in sorted((ROOT / "csrc").iterdir()):
            if source.suffix in (".h", ".cpp"):
                shutil.copy2(source, folder)
        if WITH_KERNEL:
            compile_into(folder)


class PackageWithKernel(Distribution):
    """Goes to the folder of what belongs to one platform where it holds a library."""

    def has_ext_modules(self) -> bool:
        """Say whether there is a library."""
        return WITH_KERNEL


class WheelWithKernel(bdist_wheel):
    """Names the platform where the wheel holds a library; no Python version, for the library knows none."""

    def get_tag(self) -> tuple[str, str, str]:
        """Give the tag: any Python 3, this platform."""
        tag = super().get_tag()
        return ("py3", "none", tag[2]) if WITH_KERNEL else tag


setup(distclass=PackageWithKernel, cmdclass={"build_py": BuildWithKernel, "bdist_wheel": WheelWithKernel})
