"""System: refuses a machine this project does not support, before anything is downloaded for it.

Run by the Makefile with whatever `python3` there is (`python3 flywheel_assets/system.py [base]`), so it imports nothing
but the standard library and uses nothing newer than Python 3.8.
"""

import platform
import shutil
import sys

SUPPORTED = "Linux on x86-64 with glibc 2.28 or newer and Python 3.11 (3.12 installs, but was not tested)"
# The packages for training and serving, and what the demo writes.
ALL_GB = 6.0
# The packages without torch (120 MB to download), and room for an instance of Dagster.
BASE_GB = 1.0


def faults(needed_gb=ALL_GB):
    # type: (float) -> list[str]
    """Why this machine cannot be used, one sentence each; empty when it can. `needed_gb` is the disk for what comes."""
    found = []
    if platform.system() != "Linux":
        found.append(
            "The operating system is %s. On Windows use WSL 2; on macOS use a Linux VM or container." % platform.system()
        )
    if platform.machine() not in ("x86_64", "AMD64"):
        found.append(
            "The processor is %s; the pinned builds of the training stack exist for x86-64 only." % platform.machine()
        )
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        found.append(
            "This is Python %s. Name another one: make PYTHON=python3.11 ..." % ".".join(map(str, sys.version_info[:3]))
        )
    libc, version = platform.libc_ver()
    if platform.system() == "Linux" and libc != "glibc":
        found.append(
            "The C library is not glibc (musl, as in Alpine?), which the wheels are built for. Use a Debian-based image."
        )
    elif libc == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < (2, 28):
        found.append("glibc is %s; 2.28 or newer is needed by the wheels." % version)
    free_gb = shutil.disk_usage(".").free / 1e9
    if free_gb < needed_gb:
        found.append("%.1f GB of disk are free here; %.0f GB are needed for what is installed now." % (free_gb, needed_gb))
    return found


def main(arguments):
    # type: (list[str]) -> int
    """Print what is wrong and exit 1, or say nothing and exit 0. `base` asks for the packages without torch only."""
    found = faults(BASE_GB if "base" in arguments else ALL_GB)
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        print("Supported: %s." % SUPPORTED, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
