"""Lists the C++ extensions, so that an edit of any source or header rebuilds them."""

from pathlib import Path

from setuptools import Extension, setup

SHARED = Path("gpq/native/src")
ARGUMENTS = ["-std=c++17", "-O3", "-fvisibility=hidden"]


def kernel(package: str, *arguments: str) -> Extension:
    """Describes the kernel of a package. Where it cannot be built, another engine does its work."""
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
    ext_modules=[
        kernel("gpq.scan.native", "-ffp-contract=off"),
        kernel("gpq.winograd", "-ffp-contract=fast"),
    ]
)
