"""Features on disk, so that folds, methods and repeated fits pay for an extractor once.

An entry is one safetensors file of float16 arrays, named by the hash of the item's file and the
hash of the extractor. Values are rounded to float16 whether they come from the disk or not, so a
fit gives the same model with a cold, a warm or no cache. The cache never fails a run: a full or
read-only disk, a torn or foreign file all mean "compute it again".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lineside.core.run.files import replace_file

Arrays = Mapping[str, NDArray[np.float32]]
DEFAULT_LIMIT_MB = 4096.0
_SUFFIX = ".safetensors"


def default_folder() -> Path | None:
    """Return ``$LINESIDE_CACHE``, else the XDG cache folder; None if the variable is ``off``."""
    named = os.environ.get("LINESIDE_CACHE", "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "lineside"


def key_of(digest: str, extractor: str) -> str:
    """Return the key of one item's features: SHA-256 over file hash and extractor hash."""
    return hashlib.sha256(f"{digest}\0{extractor}".encode()).hexdigest()


@dataclass(kw_only=True)
class FeatureCache:
    """Feature arrays by key on a bounded part of the disk; the least recently used go first.

    Attributes:
        folder: Where entries lie (two-letter subfolders); None switches the cache off.
        limit_mb: Upper bound of all entries together, in 10^6 bytes.
        usable: False after the disk refused a write; reading goes on.
    """

    folder: Path | None = field(default_factory=default_folder)
    limit_mb: float = DEFAULT_LIMIT_MB
    usable: bool = True
    _held_bytes: int = field(default=-1, repr=False)

    def fetch(
        self, digest: str, extractor: str, compute: Callable[[], Arrays]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the stored arrays of an item, or compute and store them.

        Args:
            digest: SHA-256 of the item's file; an empty one is never cached.
            extractor: Hash of everything else that decides the values.
            compute: Makes the arrays, float32; called only on a miss.

        Returns:
            float32 arrays with float16 precision, by name.
        """
        key = key_of(digest, extractor)
        if digest and (found := self.get(key)) is not None:
            return found
        rounded = {name: _half(array) for name, array in compute().items()}
        if digest:
            self._put(key, rounded)
        return {name: array.astype(np.float32) for name, array in rounded.items()}

    def get(self, key: str) -> dict[str, NDArray[np.float32]] | None:
        """Return the arrays of a key as float32, or None; a damaged entry is removed."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            arrays = load_file(path)
        except SafetensorError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        except OSError:
            return None
        with contextlib.suppress(OSError):  # a read-only disk: the entry is still good
            os.utime(path)
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    def _put(self, key: str, arrays: Mapping[str, NDArray[np.float16]]) -> None:
        """Store an entry atomically; on any disk error stop writing for good."""
        if self.folder is None or not self.usable:
            return
        path = self._path(key)
        content = save(dict(arrays))
        if len(content) > self.limit_mb * 1e6:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(len(content))
            replace_file(path, content, flush=False)
            self._held_bytes += len(content)
        except OSError as error:
            self.usable = False
            warnings.warn(
                f"features are not cached, {self.folder} cannot be written ({error.strerror})",
                stacklevel=3,
            )

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / "features" / key[:2] / (key + _SUFFIX)

    def _make_room(self, coming_bytes: int) -> None:
        """Remove the least recently used entries until the new one fits, with a tenth to spare."""
        limit = self.limit_mb * 1e6
        if self._held_bytes >= 0 and self._held_bytes + coming_bytes <= limit:
            return
        entries = self._entries()  # other processes write too: look again
        self._held_bytes = sum(size for _, size, _ in entries)
        if self._held_bytes + coming_bytes <= limit:
            return
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if self._held_bytes + coming_bytes <= 0.9 * limit:
                break
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            self._held_bytes -= size

    def _entries(self) -> list[tuple[int, int, Path]]:
        """Return (last use in ns, bytes, path) of every entry."""
        assert self.folder is not None
        found = []
        for path in (self.folder / "features").glob(f"??/*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
        return found


def _half(array: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to float16, values beyond its range clipped (65504)."""
    top = np.finfo(np.float16).max
    return np.ascontiguousarray(np.clip(array, -top, top).astype(np.float16))
