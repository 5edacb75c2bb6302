"""Declares the C++ extensions with their sources and headers, so that a change rebuilds them."""

from pathlib import Path

from setuptools import Extension, setup

SHARED = Path("gpq/native/src")
# -g0 undoes Python's -g, which makes the libraries ten times as large.
ARGUMENTS = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden"]


def kernel(package: str, *arguments: str) -> Extension:
    """Returns the extension ``_kernel`` of a package; ``arguments``: additional compiler options.

    It is optional: if it cannot be built, a slower engine replaces it.
    """
    folder = Path(package.replace(".", "/"), "src")
    headers = [*folder.glob("*.h"), *SHARED.glob("*.h")]
    return Extension(
        f"{package}._kernel",
        sources=sorted(map(str, folder.glob("*.cc"))),
        depends=sorted(map(str, headers)),
        include_dirs=[str(SHARED)],
        extra_compile_args=[*ARGUMENTS, *arguments],
        language="c++",
        optional=True,
    )


setup(
    ext_modules=[kernel("gpq.scan.native", "-ffp-contract=off")],
)
