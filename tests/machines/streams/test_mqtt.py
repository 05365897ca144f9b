"""Snapshots over MQTT: acknowledged after the commit, delivered again after any loss."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from benchmarks.machines.senders import MOSQUITTO, Mosquitto, encode_message
from tests.machines.streaming import (
    FAST,
    NAMES,
    Captured,
    batch_of,
    count_judged,
    stored_verdicts,
    wait_until,
    watch_in_thread,
)  # fmt: skip

from lineside.core.errors import UserError
from lineside.machines.store import open_store
from lineside.machines.store.queries import fleet, refusals
from lineside.machines.streams.ingestor import Ingestor
from lineside.machines.streams.mqtt import MqttSource, parse_broker
from lineside.machines.streams.watch import Options, watch

needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@pytest.fixture(scope="module")
def snapshots(snapshots):
    return snapshots[:80]


@pytest.fixture
def broker(tmp_path):
    mosquitto = Mosquitto(tmp_path)
    yield mosquitto
    mosquitto.end()


class Sender:
    """Publishes, and collects the answers that come to its response topic."""

    def __init__(self, port):
        from paho.mqtt import client as paho

        self.answers = []
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="sender", protocol=paho.MQTTv5
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.on_message = lambda c, d, m: self.answers.append(json.loads(m.payload))
        self.client.on_connect = lambda c, *rest: c.subscribe("answers", qos=1)
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *rest: subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(20), "answers to what is sent before would be lost"

    def send(self, body):
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = "answers"
        return self.client.publish("plant/a", body, qos=1, properties=properties)

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def sender(broker):
    publisher = Sender(broker.port)
    yield publisher
    publisher.end()


def address(broker, topic="plant/#"):
    return f"mqtt://127.0.0.1:{broker.port}/{topic}"


def test_addresses_of_brokers(monkeypatch):
    broker = parse_broker("mqtt://me%40x:p%3Aw@broker.local/$share/lines/plant/+/#")
    assert (broker.host, broker.port, broker.topic) == (
        "broker.local", 1883, "$share/lines/plant/+/#",
    )  # fmt: skip
    assert (broker.user, broker.password) == ("me@x", "p:w")
    assert "p:w" not in str(broker) + repr(broker)
    assert parse_broker("mqtts://[::1]/a").port == 8883
    assert parse_broker("mqtt://[::1]:99/a").host == "::1"
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    assert parse_broker("mqtt://me@x/a").password == "secret"
    assert parse_broker("mqtt://x/a").password == ""
    for wrong in ("x/a", "http://x/a", "mqtt://x", "mqtt:///a", "mqtt://x:0/a", "mqtt://x:y/a"):
        with pytest.raises(UserError):
            parse_broker(wrong)


@needs_broker
def test_messages_are_judged_once_and_bad_ones_do_not_come_back(
    trained, snapshots, store, broker, sender
):
    model = trained[0]
    captured = Captured()
    with watch_in_thread(model, store, mqtt=address(broker), captured=captured) as loop:
        wait_until(lambda: loop.mqtt.connected)
        for number, measurement in enumerate(snapshots):
            sender.send(encode_message(measurement, ("npz", "json")[number % 2]))
        sender.send(b"nonsense")
        sender.send(encode_message(snapshots[5]))
        wait_until(lambda: len(sender.answers) == len(snapshots) + 2)
    assert [a["status"] for a in sender.answers[-2:]] == ["refused", "duplicate"]
    assert count_judged(store) == len(snapshots)
    batch = batch_of(trained)
    for name in NAMES:
        verdicts = stored_verdicts(store, name)
        assert verdicts == batch[name][: len(verdicts)]
    assert [r.item for r in refusals(store)] == ["topic plant/a"]
    again = Captured()
    with watch_in_thread(model, store, mqtt=address(broker), captured=again) as loop:
        wait_until(lambda: loop.mqtt.connected)
        time.sleep(0.3)
        assert not loop.ingestor.counts


@needs_broker
def test_what_comes_while_the_watch_is_down_is_ingested_later(
    trained, snapshots, store, broker, sender
):
    model = trained[0]
    with watch_in_thread(model, store, mqtt=address(broker)) as loop:
        wait_until(lambda: loop.mqtt.connected)
        time.sleep(0.2)
    for measurement in snapshots:
        sender.send(encode_message(measurement))
    code = watch([], model, store, mqtt=address(broker), options=Options(once=True),
                 console=Captured().console)  # fmt: skip
    assert code == 0 and count_judged(store) == len(snapshots)


@needs_broker
def test_a_broker_that_goes_away_is_reported_and_nothing_is_lost(
    trained, snapshots, store, broker, sender
):
    captured = Captured()
    with watch_in_thread(trained[0], store, mqtt=address(broker), captured=captured) as loop:
        wait_until(lambda: loop.mqtt.connected)
        time.sleep(0.2)
        for measurement in snapshots[:40]:
            sender.send(encode_message(measurement))
        broker.end()
        wait_until(lambda: not loop.mqtt.connected)
        for measurement in snapshots[40:]:
            sender.send(encode_message(measurement))
        broker.start()
        wait_until(lambda: count_judged(store) == len(snapshots))
    assert any("disconnected" in note for note in captured.notes)
    assert fleet(store)[0].out_of_order == 0


@needs_broker
def test_a_store_that_does_not_answer_keeps_messages_with_the_broker(
    trained, snapshots, store, broker, sender, monkeypatch
):
    with watch_in_thread(trained[0], store, mqtt=address(broker)) as loop:
        wait_until(lambda: loop.mqtt.connected)
        ingest, failures = loop.ingestor.journal.ingest, []

        def failing(measurement, *, source=""):
            if len(failures) < 3:
                failures.append(measurement)
                raise UserError("the disk is full", "free some space")
            return ingest(measurement, source=source)

        monkeypatch.setattr(loop.ingestor.journal, "ingest", failing)
        for measurement in snapshots[:20]:
            sender.send(encode_message(measurement))
        wait_until(lambda: count_judged(store) == 20)
    assert len(failures) == 3 and not refusals(store)


@needs_broker
def test_two_watches_share_the_work(trained, snapshots, tmp_path, store, broker, sender):
    topic = address(broker, "$share/lines/plant/#")
    with (
        watch_in_thread(trained[0], store, mqtt=topic, options=options("a")) as one,
        open_store(tmp_path / "machines.db") as other,
        watch_in_thread(trained[0], other, mqtt=topic, options=options("b")) as two,
    ):
        wait_until(lambda: one.mqtt.connected and two.mqtt.connected)
        time.sleep(0.2)
        for measurement in snapshots[:40]:
            sender.send(encode_message(measurement))
            count = len(sender.answers) + 1
            wait_until(lambda count=count: len(sender.answers) == count)
        assert one.ingestor.counts["judged"] and two.ingestor.counts["judged"]
    assert count_judged(store) == 40


def options(client_id):
    return Options(interval_seconds=FAST.interval_seconds, client_id=client_id)


def test_a_broker_that_is_not_there_is_no_end_but_once_it_is(trained, store):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        captured = Captured()
        gone = f"mqtt://127.0.0.1:{closed.getsockname()[1]}/a"
        with watch_in_thread(trained[0], store, mqtt=gone, captured=captured):
            wait_until(lambda: captured.notes)
            time.sleep(0.2)
        assert len(captured.notes) == 1 and "cannot be reached" in captured.notes[0]


@pytest.mark.parametrize("topic", ["a/#/b", "#x", "a/b+", "+a/b", "a" * 65536])
def test_topics_that_no_broker_accepts_are_refused_at_once(topic):
    with pytest.raises(UserError, match="not a topic to subscribe to"):
        parse_broker(f"mqtt://x/{topic}")


@pytest.mark.parametrize("topic", ["#", "+/a/#", "$share/halls/+/b"])
def test_topics_with_wildcards_are_accepted(topic):
    assert parse_broker(f"mqtt://x/{topic}").topic == topic


@pytest.mark.parametrize("topic", ["answers/#", "answers/+/a", "a" * 65536])
def test_a_sender_that_cannot_be_answered_is_told_and_its_message_does_not_come_again(topic):
    paho = pytest.importorskip("paho.mqtt.client")

    class Client(paho.Client):
        def ack(self, mid, qos):
            acknowledged.append(mid)

    acknowledged: list[int] = []
    notes: list[str] = []
    properties = SimpleNamespace(ResponseTopic=topic)
    message = SimpleNamespace(payload=b"x", topic="t", mid=7, qos=1, properties=properties)
    ingestor = Ingestor(journal=SimpleNamespace(refuse=lambda *given, **named: None))
    source = MqttSource(broker=parse_broker("mqtt://x/#"), ingestor=ingestor, note=notes.append)
    client = Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, manual_ack=True)
    with ThreadPoolExecutor() as pool:
        done = pool.submit(source._on_message, client, None, message)
        wait_until(lambda: ingestor.run_next(0.05))
        done.result()
    assert acknowledged == [7] and ingestor.failure is None
    assert "cannot be answered" in notes[0]
