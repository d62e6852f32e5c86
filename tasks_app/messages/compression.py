"""Large bodies are compressed on their way through the broker, in the form that Kombu unpacks by itself.

zstd: at its usual level it packs JSON to a fifth at hundreds of megabytes a second, so that it costs less than the
broker's handling of the bytes that it saves. Signatures are over the plain body: what is unpacked is then verified.
"""

from __future__ import annotations

import sys
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Below this, headers are the larger part of a message.
ABOVE_BYTES: Final = 16 * 1024
CONTENT_TYPE: Final = "application/zstd"


def packed(body: bytes, above_bytes: int) -> tuple[bytes, dict[str, str]]:
    """The body as it travels, and the headers that say how. Nothing is packed up to `above_bytes`; 0: nothing at all.

    A body that does not get smaller (it may hold compressed data as text) stays as it is.
    """
    if not 0 < above_bytes < len(body):
        return body, {}
    small = zstd.compress(body)
    return (small, {"compression": CONTENT_TYPE}) if len(small) < len(body) else (body, {})
