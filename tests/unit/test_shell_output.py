"""From a command's bytes to log chunks."""

import random

from workers_app.executors.output import CHUNK_BYTES_MAX, FLUSH_SECONDS, TAIL_BYTES, Output


class Log:
    def __init__(self):
        self.chunks = []

    def __call__(self, stream, text):
        self.chunks.append((stream, text))

    def text(self, stream):
        return "".join(text for name, text in self.chunks if name == stream)


def output(bytes_max=1 << 20):
    log = Log()
    return Output(log, bytes_max=bytes_max), log


def test_the_first_output_goes_out_at_once_and_more_after_a_pause_or_when_a_chunk_is_full():
    out, log = output()
    out.feed("stdout", b"a", 0.0)
    assert log.chunks == [("stdout", "a")]
    out.feed("stdout", b"b", 0.1)
    out.flush(FLUSH_SECONDS - 0.01)
    assert len(log.chunks) == 1
    out.flush(FLUSH_SECONDS + 0.01)
    assert log.chunks[1:] == [("stdout", "b")]
    out.feed("stderr", b"c" * (CHUNK_BYTES_MAX + 5), 0.22)
    assert log.chunks[2:] == [("stderr", "c" * CHUNK_BYTES_MAX)]
    out.close()
    assert log.chunks[3:] == [("stderr", "ccccc")]


def test_text_survives_being_cut_anywhere():
    text = "Grüße 信号箱 🚦 " * 400
    data = text.encode()
    out, log = output()
    at = 0
    while at < len(data):
        step = random.randint(1, 50)
        out.feed("stdout", data[at : at + step], at / 100)
        at += step
    out.close()
    assert log.text("stdout") == text


def test_broken_utf8_and_nul_are_replaced_and_nothing_else_is_lost():
    out, log = output()
    out.feed("stdout", b"a\xff\xfeb\x00c\xe4\xbf", 0.0)
    out.close()
    assert log.text("stdout") == "a\ufffd\ufffdb\ufffdc\ufffd"
    assert out.tail("stdout") == "a\ufffd\ufffdb\ufffdc\ufffd"


def test_output_past_the_limit_is_counted_and_marked_where_it_begins_and_once_at_the_end():
    out, log = output(bytes_max=10)
    out.feed("stdout", b"123456", 0.0)
    out.feed("stderr", b"abcdef", 0.0)
    out.feed("stdout", b"7", 0.5)
    out.feed("stdout", b"x" * 1000, 0.9)
    assert log.chunks == [
        ("stdout", "123456"),
        ("stderr", "abcd"),
        ("system", "[output truncated from here on: the limit is 10 bytes]\n"),
    ]
    out.close()
    assert log.chunks[3:] == [("system", "[output truncated: kept 10 of 1013 bytes]\n")]
    assert (out.seen_bytes, out.kept_bytes) == (1013, 10)


def test_output_that_just_fits_is_not_marked():
    out, log = output(bytes_max=10)
    out.feed("stdout", b"1234567890", 0.0)
    out.close()
    assert log.chunks == [("stdout", "1234567890")]


def test_half_a_character_at_the_limit_is_left_out():
    out, log = output(bytes_max=4)
    out.feed("stdout", "ab信".encode(), 0.0)
    out.close()
    assert log.text("stdout") == "ab"


def test_the_tail_is_the_end_of_what_was_written_also_past_the_limit():
    out, _ = output(bytes_max=10)
    for number in range(3000):
        out.feed("stderr", f"line {number} 信\n".encode(), 0.0)
    tail = out.tail("stderr")
    assert tail.endswith("line 2999 信\n")
    assert TAIL_BYTES - 3 <= len(tail.encode()) <= TAIL_BYTES
    assert "\ufffd" not in tail
