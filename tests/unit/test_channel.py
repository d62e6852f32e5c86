import contextlib
import os
import signal
import threading
import time

import pytest

from workers_app.execution.channel import FINISH, HELLO, TELEMETRY, ChildEnd, Frame, MainEnd
from workers_app.metrics import FRAMES_FAILED


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


def test_a_stream_that_ends_late_says_nothing_about_a_new_child_of_the_same_number(channel):
    end, frames, gone = channel
    old, new = ChildEnd(end.path), ChildEnd(end.path)
    with contextlib.closing(new):
        new.send(FINISH, bytes(16), b"here")
        wait_for(lambda: frames)
        old.close()
        wait_for(lambda: len(end._selector.get_map()) == 2)
        new.send(FINISH, bytes(16), b"still here")
        wait_for(lambda: len(frames) == 2)
        assert gone == []
    wait_for(lambda: gone == [os.getpid()])


def test_half_a_frame_of_a_dead_child_is_not_taken_for_one(channel):
    end, frames, gone = channel
    child = ChildEnd(end.path)
    child._socket.sendall(b"\x00\x00\x10\x00" + bytes([FINISH]) + b"n" * 16 + b"only a part")
    child._socket.close()
    wait_for(lambda: gone)
    assert frames == []


def test_a_frame_that_cannot_be_taken_stops_neither_the_next_one_nor_the_thread():
    taken: list[bytes] = []
    gone: list[int] = []

    def take(frame: Frame) -> None:
        if frame.payload == b"bad":
            raise KeyError("nonce")
        taken.append(frame.payload)

    def lose(pid: int) -> None:
        gone.append(pid)
        raise OSError("the table is gone")

    end = MainEnd(take, lose)
    end.start()
    failed = FRAMES_FAILED._value.get()
    with contextlib.closing(end):
        with contextlib.closing(ChildEnd(end.path)) as child:
            child.send(HELLO, bytes(16), b"no number")
            for payload in (b"one", b"bad", b"two"):
                child.send(FINISH, bytes(16), payload)
            wait_for(lambda: taken == [b"one", b"two"])
        wait_for(lambda: gone)
        with contextlib.closing(ChildEnd(end.path)) as child:
            child.send(FINISH, bytes(16), b"three")
            wait_for(lambda: taken == [b"one", b"two", b"three"])
        assert end.reading
        assert FRAMES_FAILED._value.get() == failed + 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whether_anybody_reads_can_be_asked():
    def end_the_thread(_frame: Frame) -> None:
        raise SystemExit

    end = MainEnd(end_the_thread, lambda _pid: None)
    assert not end.reading
    end.start()
    assert end.reading
    with contextlib.closing(end), contextlib.closing(ChildEnd(end.path)) as child:
        child.send(FINISH, bytes(16), b"")
        wait_for(lambda: not end.reading)


def test_the_socket_is_private_and_removed(channel):
    end, _, _ = channel
    folder = os.path.dirname(end.path)
    assert os.stat(folder).st_mode & 0o077 == 0
    end.close()
    assert not os.path.exists(folder)
