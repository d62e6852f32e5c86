"""The transport on Redis Streams, against real servers, with consumers that are killed and connections that are cut."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import OperationalError

from dispatch.broker.redis_stream import settlement, wire
from tests.processes import until
from tests.servers.tcp_proxy import TcpProxy

ROOT = Path(__file__).parents[2]
LEASE = 1.5
STREAMS = wire.Streams()


@pytest.fixture(params=["redis_server", "valkey"])
def server(request):
    return request.getfixturevalue(request.param)


def stream_url(server, port=None):
    return server.url.replace("redis://", "redis-stream://").replace(f":{server.port}/", f":{port or server.port}/")


@pytest.fixture
def queue():
    name = f"q{uuid4().hex[:12]}"
    return Queue(name, Exchange("", type="direct"), routing_key=name)


@contextmanager
def connected(url, **options) -> Iterator[Connection]:
    with Connection(url, transport_options={"consumer_lease": LEASE, **options}) as connection:
        yield connection


def publish(connection, queue, numbers):
    producer = Producer(connection)
    for n in numbers:
        producer.publish({"n": n}, exchange="", routing_key=queue.name)


class Taker:
    """Takes messages; acknowledges as it is told to."""

    def __init__(self, connection, queue, *, ack=True, prefetch=0, no_ack=False, channel=None):
        self.connection, self.ack, self.messages = connection, ack, []
        self.consumer = connection.Consumer(queue, channel, callbacks=[self._taken], accept=["json"], no_ack=no_ack)
        if prefetch:
            self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()

    def _taken(self, _body, message):
        self.messages.append(message)
        if self.ack:
            message.ack()

    @property
    def numbers(self):
        return [message.payload["n"] for message in self.messages]

    def take(self, count, seconds=15.0):
        end = time.monotonic() + seconds
        while len(self.messages) < count and time.monotonic() < end:
            self.turn()
        return self.numbers

    def turn(self, seconds=0.2):
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=seconds)


def held(server, queue):
    with server.client() as client:
        return client.xpending(STREAMS.key(queue.name), wire.GROUP)["pending"]


def length(server, queue):
    with server.client() as client:
        return client.xlen(STREAMS.key(queue.name))


# -- the usual ---------------------------------------------------------------------------------------------------------


def test_messages_come_in_order_and_nothing_is_left_of_them(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(300))
        assert Taker(connection, queue).take(300) == list(range(300))
        until(lambda: length(server, queue) == 0, "everything is acknowledged and gone")


def test_each_call_without_an_event_loop_takes_one_message_and_waits_for_none_that_is_here(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(5))
        taker = Taker(connection, queue)
        for n in range(5):
            connection.drain_events(timeout=15)
            assert taker.numbers == list(range(n + 1))
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)


def test_no_more_are_held_than_the_prefetch_allows_over_several_queues(server):
    queues = [Queue(f"q{uuid4().hex}", Exchange("", type="direct"), routing_key="") for _ in range(3)]
    with connected(stream_url(server)) as connection:
        for queue in queues:
            publish(connection, queue, range(20))
        taker = Taker(connection, queues, ack=False, prefetch=4)
        taker.take(4)
        for _ in range(5):
            taker.turn(0.05)
        assert len(taker.messages) == 4
        acknowledged = 0
        while acknowledged < len(taker.messages):
            for message in taker.messages[acknowledged : acknowledged + 2]:
                message.ack()
                acknowledged += 1
            taker.turn(0.3)
            assert len(taker.messages) - acknowledged <= 4
        assert len(taker.messages) == 60


def test_two_consumers_share_a_queue_and_none_gets_what_the_other_has(server, queue):
    with connected(stream_url(server)) as one, connected(stream_url(server)) as other:
        publish(one, queue, range(100))
        takers = [Taker(connection, queue, prefetch=5) for connection in (one, other)]
        end = time.monotonic() + 15
        while sum(len(taker.messages) for taker in takers) < 100 and time.monotonic() < end:
            for taker in takers:
                taker.turn(0.01)
        assert sorted(takers[0].numbers + takers[1].numbers) == list(range(100))
        assert all(taker.messages for taker in takers)


def test_what_needs_no_acknowledgement_is_gone_when_it_is_delivered(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(3))
        assert Taker(connection, queue, ack=False, no_ack=True).take(3) == [0, 1, 2]
        until(lambda: length(server, queue) == 0, "gone")


def test_single_messages_are_got_and_acknowledged(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, [7])
        bound = queue(connection.default_channel)
        message = bound.get()
        assert message.payload == {"n": 7}
        assert bound.get() is None
        message.ack()
        until(lambda: length(server, queue) == 0, "gone")


def test_a_rejected_message_is_gone_and_a_requeued_one_comes_again_marked(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, [1, 2])
        taker = Taker(connection, queue, ack=False)
        taker.take(2)
        taker.messages[0].reject()
        taker.messages[1].requeue()
        assert taker.take(3) == [1, 2, 2]
        assert taker.messages[2].headers["redelivered"]
        taker.messages[2].ack()
        until(lambda: length(server, queue) == 0, "gone")


def test_size_and_purge_leave_out_what_somebody_holds(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(5))
        taker = Taker(connection, queue, ack=False, prefetch=2)
        taker.take(2)
        bound = queue(connection.default_channel)
        assert connection.default_channel._size(queue.name) == 3
        assert bound.purge() == 3
        assert (length(server, queue), held(server, queue)) == (2, 2)


def test_a_queue_with_a_length_drops_its_oldest(server):
    name = f"q{uuid4().hex}"
    queue = Queue(name, Exchange(name, type="direct"), routing_key=name, max_length=50)
    with connected(stream_url(server)) as connection:
        producer = Producer(connection, exchange=queue.exchange, routing_key=name)
        for n in range(1000):
            producer.publish({"n": n}, declare=[queue] if n == 0 else [])
        # Redis trims by whole blocks of its list, so "about".
        assert length(server, queue) < 400


def test_an_entry_that_is_no_message_is_dropped_and_the_next_one_comes(server, queue, caplog):
    with connected(stream_url(server)) as connection:
        with server.client() as client:
            client.xadd(STREAMS.key(queue.name), {"m": "no json"})
            client.xadd(STREAMS.key(queue.name), {"something": "else"})
        publish(connection, queue, [1])
        assert Taker(connection, queue).take(1) == [1]
        until(lambda: length(server, queue) == 0, "gone")
    assert caplog.text.count("no message") == 2


def test_a_prefix_keeps_two_applications_apart(server, queue):
    with (
        connected(stream_url(server), global_keyprefix="one:") as one,
        connected(stream_url(server), global_keyprefix="two:") as two,
    ):
        publish(one, queue, [1])
        publish(two, queue, [2])
        assert (Taker(one, queue).take(1), Taker(two, queue).take(1)) == ([1], [2])
        with server.client() as client:
            assert client.exists("one:" + STREAMS.key(queue.name), "two:" + STREAMS.key(queue.name)) == 2


@pytest.fixture
def expiring():
    name = f"q{uuid4().hex[:12]}"
    return Queue(name, Exchange("", type="direct"), routing_key=name, expires=6.0)


def test_a_queue_that_expires_lives_while_somebody_consumes_from_it_and_ends_after(server, expiring):
    key = STREAMS.key(expiring.name)
    with server.client() as client:
        with connected(stream_url(server), consumer_lease=600) as connection:
            Taker(connection, expiring)
            # Nobody reads, as while a task runs.
            until(lambda: client.pttl(key) < 5500, "its time runs")
            least = client.pttl(key)
            until(lambda: client.pttl(key) > least, "its time begins again")
        until(lambda: not client.exists(key), "it is gone", 20)


def test_a_queue_that_expires_has_its_time_also_when_it_is_made_again(server, expiring):
    key = STREAMS.key(expiring.name)
    with server.client() as client, connected(stream_url(server), consumer_lease=600) as connection:
        taker = Taker(connection, expiring)
        taker.turn()
        client.delete(key)
        until(lambda: taker.turn() or client.exists(key), "it is made again")
        assert 0 < client.pttl(key) <= 6000


# -- consumers that end ------------------------------------------------------------------------------------------------


def test_what_a_consumer_did_not_acknowledge_comes_at_once_when_it_closes(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(10))
        first = Taker(connection, queue, ack=False, prefetch=4)
        first.take(4)
    with server.client() as client:
        assert client.xinfo_consumers(STREAMS.key(queue.name), wire.GROUP) == []
    with connected(stream_url(server), consumer_lease=600) as connection:
        assert sorted(Taker(connection, queue).take(10)) == list(range(10))


CONSUMER = """
import sys, time
import dispatch.broker.redis_stream
from kombu import Connection, Exchange, Queue
url, name, lease, hold = sys.argv[1:]
def taken(body, message):
    print(body["n"], flush=True)
    if hold != "all":
        message.ack()
        # An acknowledgement is on its way for a moment; what is killed before that comes again.
with Connection(url, transport_options={"consumer_lease": float(lease)}) as connection:
    queue = Queue(name, Exchange("", type="direct"), routing_key=name)
    with connection.Consumer(queue, callbacks=[taken], accept=["json"]) as consumer:
        consumer.qos(prefetch_count=10)
        while True:
            try:
                connection.drain_events(timeout=1)
            except TimeoutError:
                pass
"""


@contextmanager
def consumer_process(url, queue, *, lease=LEASE, hold="none"):
    process = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, url, queue.name, str(lease), hold],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_killed_consumer_held_is_taken_over_and_the_dead_one_forgotten(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(10))
        with consumer_process(stream_url(server), queue, hold="all") as process:
            assert [int(process.stdout.readline()) for _ in range(10)] == list(range(10))
        taker = Taker(connection, queue)
        assert sorted(taker.take(10)) == list(range(10))
        until(lambda: length(server, queue) == 0, "gone", 5)

        def alone():
            taker.turn()
            with server.client() as client:
                return len(client.xinfo_consumers(STREAMS.key(queue.name), wire.GROUP)) == 1

        until(alone, "the dead consumer is forgotten", 15)


@pytest.mark.parametrize("in_event_loop", [False, True])
def test_each_channel_of_a_connection_takes_over_from_the_dead_of_its_queues(server, in_event_loop):
    queues = [Queue(name, Exchange("", type="direct"), routing_key=name) for name in (f"q{uuid4().hex}" for _ in "ab")]
    with connected(stream_url(server)) as connection:
        for queue in queues:
            publish(connection, queue, range(3))
            with consumer_process(stream_url(server), queue, hold="all") as process:
                assert [int(process.stdout.readline()) for _ in range(3)] == [0, 1, 2]
        takers = [Taker(connection, queue, channel=connection.channel()) for queue in queues]
        cycle = connection.transport.cycle

        def all_came():
            cycle.on_poll_init(cycle.poller) if in_event_loop else takers[0].turn()
            return [sorted(taker.numbers) for taker in takers] == [[0, 1, 2]] * 2

        until(all_came, "both queues are taken over", 20)


def test_a_living_consumer_keeps_what_it_holds_however_long_it_takes(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, [1])
        # Busy, and not reading: its life is renewed all the same.
        busy = Taker(connection, queue, ack=False)
        assert busy.take(1) == [1]
        with connected(stream_url(server)) as other:
            assert Taker(other, queue).take(1, seconds=3 * LEASE) == []
        busy.messages[0].ack()
        until(lambda: length(server, queue) == 0, "gone")


def test_one_that_stood_still_is_taken_over_and_its_late_word_does_no_harm(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(3))
        with consumer_process(stream_url(server), queue, hold="all") as process:
            assert [int(process.stdout.readline()) for _ in range(3)] == [0, 1, 2]
            os.kill(process.pid, signal.SIGSTOP)
            taker = Taker(connection, queue)
            assert sorted(taker.take(3)) == [0, 1, 2]
            os.kill(process.pid, signal.SIGCONT)
            publish(connection, queue, [3])
            until(lambda: taker.turn(0.1) or 3 in taker.numbers or process.poll() is None, "goes on")
    until(lambda: length(server, queue) - held(server, queue) == 0, "nothing waits")


# -- connections and servers that end ----------------------------------------------------------------------------------


def test_an_answer_that_was_cut_is_found_again_by_the_same_consumer(redis_server, queue):
    with TcpProxy(redis_server.port) as proxy, connected(redis_server.url.replace("redis:", "redis-stream:")) as sender:
        with connected(stream_url(redis_server, proxy.port), consumer_lease=600) as connection:
            taker = Taker(connection, queue)
            taker.turn(0.05)
            proxy.cut_next_answer_with(queue.name.encode())
            publish(sender, queue, range(5))
            end = time.monotonic() + 20
            while len(set(taker.numbers)) < 5 and time.monotonic() < end:
                try:
                    taker.turn()
                except connection.connection_errors:
                    continue
            assert sorted(set(taker.numbers)) == list(range(5))
            assert proxy.cuts == 1


def test_an_answer_that_a_partition_swallowed_is_found_again_by_the_same_consumer(redis_server, queue):
    url = redis_server.url.replace("redis:", "redis-stream:")
    with TcpProxy(redis_server.port) as proxy, connected(url) as sender:
        partitioned = stream_url(redis_server, proxy.port)
        # The health check drops a read whose answer is overdue by this interval.
        with connected(partitioned, consumer_lease=600, health_check_interval=0.5) as connection:
            taker = Taker(connection, queue)
            taker.turn(0.05)
            proxy.swallow_next_answer_with(queue.name.encode())
            publish(sender, queue, range(5))
            taker.take(5, seconds=30)
            assert sorted(taker.numbers) == list(range(5))
            assert proxy.cuts == 1


def test_what_is_acknowledged_and_not_yet_sent_does_not_come_again_when_an_answer_is_lost(
    redis_server, queue, monkeypatch
):
    monkeypatch.setattr(settlement, "ACK_SECONDS", 60.0)
    url = redis_server.url.replace("redis:", "redis-stream:")
    with TcpProxy(redis_server.port) as proxy, connected(url) as sender:
        with connected(stream_url(redis_server, proxy.port), consumer_lease=600, ack_batch=1000) as connection:
            taker = Taker(connection, queue)
            taker.turn()  # its look after the dead sends acknowledgements too, and is not due again
            publish(sender, queue, range(5))
            assert taker.take(5) == list(range(5))
            proxy.cut_next_answer_with(queue.name.encode())
            taker.turn(0.05)
            publish(sender, queue, [5])
            end = time.monotonic() + 20
            while 5 not in taker.numbers and time.monotonic() < end:
                with suppress(*connection.connection_errors):
                    taker.turn()
            taker.turn()
            assert (taker.numbers, proxy.cuts) == ([0, 1, 2, 3, 4, 5], 1)
            assert held(redis_server, queue) == 6, "nothing was sent before"
    assert length(redis_server, queue) == 0


def test_an_acknowledgement_that_is_being_sent_counts_as_unsent_until_its_end_is_known(queue):
    begun, ended = threading.Event(), threading.Event()

    def away():
        begun.set()
        ended.wait(30)
        raise OSError

    acks = settlement.Acknowledgements(STREAMS, away, 1000)
    acks.add((queue.name, "1-0"))
    with ThreadPoolExecutor() as threads:
        threads.submit(acks.send)
        begun.wait(30)
        asked = threads.submit(acks.unsent)
        with suppress(TimeoutError):
            asked.result(0.2)
        ended.set()
        assert asked.result(30) == [(queue.name, "1-0")]


def test_what_was_taken_over_in_an_answer_that_was_cut_is_found_again(redis_server, queue):
    with TcpProxy(redis_server.port) as proxy, connected(stream_url(redis_server)) as sender:
        publish(sender, queue, range(3))
        with consumer_process(stream_url(redis_server), queue, hold="all") as process:
            assert [int(process.stdout.readline()) for _ in range(3)] == [0, 1, 2]
        with connected(stream_url(redis_server, proxy.port)) as connection:
            taker = Taker(connection, queue)
            proxy.cut_next_answer_with(b'"properties"')
            assert sorted(taker.take(3)) == [0, 1, 2]
            assert proxy.cuts == 1


def test_acknowledgements_that_a_cut_connection_kept_back_are_sent_by_the_next_one(redis_server, queue):
    with TcpProxy(redis_server.port) as proxy:
        url = stream_url(redis_server, proxy.port)
        with connected(stream_url(redis_server)) as sender:
            publish(sender, queue, range(5))
        with suppress(OSError, OperationalError), connected(url, consumer_lease=600) as connection:
            taker = Taker(connection, queue)
            taker.connection.default_channel.acks._sending.acquire()
            assert taker.take(5) == list(range(5))
            proxy.refuse()
            taker.connection.default_channel.acks._sending.release()
        assert held(redis_server, queue) == 5
        proxy.accept()
        with connected(url) as connection:
            connection.default_channel.basic_get(queue.name)
            until(lambda: length(redis_server, queue) == 0, "acknowledged by the next")


def test_an_acknowledgement_after_the_end_of_its_channel_is_no_error_and_sent_by_another(redis_server, queue):
    with TcpProxy(redis_server.port) as proxy:
        with connected(stream_url(redis_server)) as sender:
            publish(sender, queue, range(40))
        with suppress(OSError, OperationalError), connected(stream_url(redis_server, proxy.port)) as connection:
            taker = Taker(connection, queue, ack=False)
            taker.take(40)
            proxy.refuse()
        assert held(redis_server, queue) == 40, "nothing could be put back"
        proxy.accept()
        for message in taker.messages:
            message.ack()
        with connected(stream_url(redis_server, proxy.port)) as connection, connection.channel():
            until(lambda: length(redis_server, queue) == 0, "acknowledged by the next")


def test_an_emptied_server_is_read_on_after_a_moment(server, queue):
    with connected(stream_url(server)) as connection, connected(stream_url(server)) as sender:
        taker = Taker(connection, queue)
        publish(sender, queue, [1])
        assert taker.take(1) == [1]
        with server.client() as client:
            client.flushall()
        publish(sender, queue, [2])
        assert taker.take(2) == [1, 2]


def test_messages_and_what_was_held_survive_a_restart_of_the_server(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(6))
        with consumer_process(stream_url(server), queue, hold="all") as process:
            assert int(process.stdout.readline()) == 0
            server.stop()
            server.start()
    with connected(stream_url(server)) as connection:
        assert sorted(Taker(connection, queue).take(6)) == list(range(6))


def test_what_was_put_back_already_may_be_requeued_and_comes_once(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, [1])
        taker = Taker(connection, queue, ack=False)
        taker.take(1)
        connection.default_channel.qos.restore_unacked()
        taker.messages[0].requeue()
        assert length(server, queue) == 1


@pytest.mark.parametrize("keeper_sends", [False, True])
def test_an_acknowledgement_given_while_its_channel_hands_over_is_the_heirs(queue, keeper_sends):
    def no_server():
        raise OSError

    class HandedOverMeanwhile(deque):
        def append(self, entry):
            acks.hand_over(heirs.extend)
            super().append(entry)
            if keeper_sends:
                acks.send()

    acks, heirs = settlement.Acknowledgements(STREAMS, no_server, 1000), []
    acks._gathered = HandedOverMeanwhile()
    acks.add((queue.name, "1-0"))
    assert heirs == [(queue.name, "1-0")]


def test_threads_may_acknowledge(server, queue):
    with connected(stream_url(server)) as connection:
        publish(connection, queue, range(200))
        taker = Taker(connection, queue, ack=False)
        taker.take(200)
        threads = [
            threading.Thread(target=lambda part: [message.ack() for message in part], args=(taker.messages[n::4],))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: length(server, queue) == 0, "gone")


def test_a_server_that_is_not_there_is_an_error_of_the_connection():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OperationalError), Connection(f"redis-stream://127.0.0.1:{port}/0") as connection:
        connection.ensure_connection(max_retries=1, timeout=2)


# -- a Celery worker ---------------------------------------------------------------------------------------------------

DRIVER = """
import sys
from tests.brokers.app import app
what = sys.argv[1]
if what == "ping":
    sys.exit(0 if app.control.ping(timeout=2.0) else 1)
with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
    for n in range(500):
        app.send_task("drain.noop", [n], producer=producer)
"""


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_celery_worker_of_each_pool_answers_drains_its_queue_and_ends(redis_server, pool):
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["DRAIN_BROKER_URL"] = stream_url(redis_server).rsplit("/", 1)[0] + "/7"

    def drive(what):
        done = subprocess.run([sys.executable, "-c", DRIVER, what], env=environment, cwd=ROOT, timeout=60, check=False)
        return done.returncode == 0

    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tests.brokers.app", "worker", "-P", pool, "-c", "2", "-l", "ERROR"],
        env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: drive("ping"), "the worker to answer", 60)
        assert drive("send")
        with redis_server.client() as client:
            client.select(7)
            until(lambda: client.xlen(STREAMS.key("drain")) == 0, "everything is acknowledged", 30)
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
