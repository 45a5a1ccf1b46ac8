"""Compression of payloads by zstd, within bounds."""

from __future__ import annotations

import importlib
import threading
from typing import Any  # Any: the module zstandard, which need not be installed

from ..errors import ConfigurationError
from .envelope import Buffer, Unreadable

_LEVEL = 3


class Compression(threading.local):
    """Compresses and decompresses. Thread-safe: every thread has tools of its own, as the library asks for.

    Args:
        most_bytes: what decompresses to more is unreadable, and found out before it is done.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._zstd: Any = None
        self._compressor: Any = None
        self._decompressor: Any = None

    def require(self) -> None:
        """Raise `ConfigurationError` if there is no library to compress with."""
        if self._zstd is not None:
            return
        try:
            self._zstd = importlib.import_module("zstandard")
        except ImportError as error:
            raise ConfigurationError(
                "compress_above needs zstandard, which is not installed; pip install 'credenza[zstd]'"
            ) from error
        window = 1 << max(self._most_bytes.bit_length(), 10)
        self._compressor = self._zstd.ZstdCompressor(level=_LEVEL)
        self._decompressor = self._zstd.ZstdDecompressor(max_window_size=window)

    def compress(self, payload: bytes) -> bytes:
        self.require()
        packed: bytes = self._compressor.compress(payload)
        return packed

    def decompress(self, packed: Buffer) -> bytes:
        """Return what was compressed; raises `Unreadable`, or the library's own error, for anything else."""
        try:
            self.require()
        except ConfigurationError:
            raise Unreadable("compressed, and zstandard is not installed; pip install 'credenza[zstd]'") from None
        # The library trusts the size that a frame claims, and takes that much memory at once. One of -1 says nothing; 0 is
        # that of frames to be skipped, for which it takes as much as their own length claims.
        size = self._zstd.frame_content_size(packed)
        if not 0 < size <= self._most_bytes:
            raise Unreadable(f"decompresses to {size} bytes, not to 1 to {self._most_bytes}")
        payload: bytes = self._decompressor.decompress(packed, max_output_size=size, allow_extra_data=False)
        return payload
