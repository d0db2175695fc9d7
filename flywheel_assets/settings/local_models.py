"""The weights of a candidate that this machine serves: which GGUF file its `model` means.

What belongs here: what can be told by looking at the disk, so that a `model` nobody can serve is refused at the door. What
does not: reading the file.
"""

from __future__ import annotations

from pathlib import Path


class NoGguf(ValueError):
    """A `model` means no GGUF file; the message says what is there instead and what to give."""


def gguf_at(path: Path) -> Path:
    """The GGUF file at a path: the file itself, or the only one in a folder. A file that is to come need not be there yet.

    Raises NoGguf for a folder without one, or with several, and for what is neither file nor folder (a hub id, say).
    """
    if path.suffix.lower() == ".gguf" or path.is_file():
        return path
    if not path.is_dir():
        raise NoGguf(
            f"{path} is neither a file nor a folder, and nothing is fetched from a hub. Give the path of a GGUF file, or "
            "`engine: openai` and the URL of a server that has the model."
        )
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if not files:
        raise NoGguf(
            f"the folder {path} holds no GGUF file, which engine 'xllamacpp' needs. Convert the model (llama.cpp's "
            "convert_hf_to_gguf.py), or serve it elsewhere and give `engine: openai` and the URL."
        )
    raise NoGguf(f"the folder {path} holds {len(files)} GGUF files: name one of {', '.join(file.name for file in files)}.")
