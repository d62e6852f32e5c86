"""Who this worker is at the moment: its name, and the incarnation under which it may ask.

The incarnation changes when a lease was judged over, so pool children read it from shared memory at each ask.
"""

from __future__ import annotations

import mmap
from uuid import UUID


class SharedIdentity:
    """A worker's name and present incarnation, shared with children that are forked after it was made."""

    def __init__(self, worker_id: str) -> None:
        """No incarnation yet."""
        self.worker_id = worker_id
        self._memory = mmap.mmap(-1, 32)

    @property
    def incarnation_id(self) -> UUID:
        """The present incarnation; all zeros before the first."""
        while True:
            # Written twice: a reader that sees two different halves reads again.
            data = self._memory[:32]
            if data[:16] == data[16:]:
                return UUID(bytes=data[:16])

    @incarnation_id.setter
    def incarnation_id(self, value: UUID) -> None:
        self._memory[:16] = value.bytes
        self._memory[16:32] = value.bytes
