import contextlib
import os
import signal
import threading
import time

import pytest

from workers_app.execution.channel import FINISH, TELEMETRY, ChildEnd, Frame, MainEnd


@pytest.fixture
def channel():
    frames: list[Frame] = []
    gone: list[int] = []
    end = MainEnd(frames.append, gone.append)
    end.start()
    yield end, frames, gone
    end.close()


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_frames_arrive_whole_and_in_order_from_several_threads(channel):
    end, frames, _ = channel
    with contextlib.closing(ChildEnd(end.path)) as child:
        _exchange(child, frames)


def _exchange(child, frames):
    big = b"x" * 3_000_000

    def write(kind: int) -> None:
        for n in range(50):
            child.send(kind, bytes([n]) * 16, b"%d" % n)
        child.send(kind, bytes(16), big)

    threads = [threading.Thread(target=write, args=(kind,)) for kind in (FINISH, TELEMETRY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: len(frames) == 102)
    for kind in (FINISH, TELEMETRY):
        payloads = [frame.payload for frame in frames if frame.kind == kind]
        assert payloads == [b"%d" % n for n in range(50)] + [big]


def test_what_a_child_wrote_before_it_was_killed_arrives_before_the_news_of_its_death(channel):
    end, frames, gone = channel
    pid = os.fork()
    if pid == 0:
        ChildEnd(end.path).send(FINISH, b"n" * 16, b"last")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_for(lambda: gone)
    assert gone == [pid]
    assert [frame.payload for frame in frames] == [b"last"]


def test_half_a_frame_of_a_dead_child_is_not_taken_for_one(channel):
    end, frames, gone = channel
    child = ChildEnd(end.path)
    child._socket.sendall(b"\x00\x00\x10\x00" + bytes([FINISH]) + b"n" * 16 + b"only a part")
    child._socket.close()
    wait_for(lambda: gone)
    assert frames == []


def test_the_socket_is_private_and_removed(channel):
    end, _, _ = channel
    folder = os.path.dirname(end.path)
    assert os.stat(folder).st_mode & 0o077 == 0
    end.close()
    assert not os.path.exists(folder)
