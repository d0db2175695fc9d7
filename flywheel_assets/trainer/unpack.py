"""`python -m flywheel_assets.trainer.unpack FILE.gguf FOLDER PARENT_PID`: unpack a GGUF file and nothing else.

What belongs here: the command. What does not: the conversion, which a training runs in its own process (`model_folder`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import guard
from .failure import TrainerError
from .model_folder import unpack_gguf


def main(arguments: list[str]) -> int:
    """Unpack, and end with the parent; the exit code."""
    source, folder, parent = arguments
    guard.die_with_parent()
    guard.watch(int(parent), lambda number: None)
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        unpack_gguf(Path(source), Path(folder))
    except TrainerError as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
