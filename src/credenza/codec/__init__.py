"""Values on the wire: an envelope of version 1 around MessagePack, JSON or a signed pickle.

Bytes from a shared tier are untrusted. What is not exactly right (magic, version, flags, checksum, lengths, type) is
`Unreadable`, whatever the bytes, and nothing is unpickled before its signature was verified.
"""

from .codec import Codec, TypedCodec
from .envelope import FOREVER, SEEN_BYTES, Envelope, Unencodable, Unreadable
from .formats import Pickle
from .plain import Plain, fresh_values, gets

__all__ = [
    "FOREVER",
    "SEEN_BYTES",
    "Codec",
    "Envelope",
    "Pickle",
    "Plain",
    "TypedCodec",
    "Unencodable",
    "Unreadable",
    "fresh_values",
    "gets",
]
