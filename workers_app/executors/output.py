"""From the bytes of a command to chunks of a run's log: bounded, decoded, and honest about what is missing. Pure.

Bytes past the limit are counted and dropped before they are decoded, so a command that writes without end
costs hardly more than the reading. The last bytes of each stream are kept all the same: what a failure says
stands at the end.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Final

CHUNK_BYTES_MAX: Final = 16 * 1024
FLUSH_SECONDS: Final = 0.2
TAIL_BYTES: Final = 4 * 1024


class _Stream:
    def __init__(self) -> None:
        self.buffer = bytearray()
        self.tail = b""
        self.seen = 0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")


class Output:
    """Both streams of one attempt."""

    def __init__(self, log: Callable[[str, str], None], *, bytes_max: int) -> None:
        """Log gets (stream, text); text never holds NUL, which PostgreSQL cannot store, but U+FFFD in its place."""
        self._log, self._bytes_max = log, bytes_max
        self._streams = {"stdout": _Stream(), "stderr": _Stream()}
        self._kept = 0
        self._sent_at = float("-inf")
        self._cut = False

    @property
    def seen_bytes(self) -> int:
        """How much the command wrote, both streams together."""
        return sum(stream.seen for stream in self._streams.values())

    @property
    def kept_bytes(self) -> int:
        """How much of it is in the log."""
        return self._kept

    def stream_bytes(self, name: str) -> int:
        """How much was written to one stream."""
        return self._streams[name].seen

    def tail(self, name: str) -> str:
        """The last TAIL_BYTES of a stream as text; a character cut in two at its beginning is left out."""
        stream = self._streams[name]
        data = stream.tail
        if stream.seen > len(data):
            skip = 0
            while skip < 3 and skip < len(data) and data[skip] & 0xC0 == 0x80:
                skip += 1
            data = data[skip:]
        return _storable(data.decode("utf-8", "replace"))

    def feed(self, name: str, data: bytes, now: float) -> None:
        """Take what was read from a stream; now is seconds of any monotonic clock."""
        stream = self._streams[name]
        stream.seen += len(data)
        stream.tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (stream.tail + data)[-TAIL_BYTES:]
        room = self._bytes_max - self._kept
        if room > 0:
            part = data if len(data) <= room else data[:room]
            stream.buffer += part
            self._kept += len(part)
        self.flush(now)
        if len(data) > room and not self._cut:
            self._cut = True
            self._send_all(now)
            self._log("system", f"[output truncated from here on: the limit is {self._bytes_max} bytes]\n")

    def flush(self, now: float) -> None:
        """Send what is due: full chunks at once, the rest every FLUSH_SECONDS."""
        if now - self._sent_at >= FLUSH_SECONDS:
            self._send_all(now)
            return
        for name, stream in self._streams.items():
            while len(stream.buffer) >= CHUNK_BYTES_MAX:
                self._send(name, stream)

    def close(self) -> None:
        """Send the rest, and say so if output is missing."""
        for name, stream in self._streams.items():
            while stream.buffer:
                self._send(name, stream)
            # Half a character at the end is broken text, unless it was us who cut it.
            rest = "" if self._cut else stream.decoder.decode(b"", final=True)
            if rest:
                self._log(name, rest)
        if self._cut:
            self._log("system", f"[output truncated: kept {self._kept} of {self.seen_bytes} bytes]\n")

    def _send_all(self, now: float) -> None:
        for name, stream in self._streams.items():
            while stream.buffer:
                self._send(name, stream)
                self._sent_at = now

    def _send(self, name: str, stream: _Stream) -> None:
        text = stream.decoder.decode(bytes(stream.buffer[:CHUNK_BYTES_MAX]))
        del stream.buffer[:CHUNK_BYTES_MAX]
        if text:
            self._log(name, _storable(text))


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd")
