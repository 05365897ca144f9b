"""Snapshots over MQTT: acknowledged after the commit, delivered again after any loss."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from benchmarks.machines.senders import MOSQUITTO, Mosquitto
from tests.machines.streaming import (
    FAST,
    NAMES,
    Said,
    batch_of,
    judged,
    learn_fleet,
    stored,
    until,
    watching,
)  # fmt: skip

from lineside.core.errors import UserError
from lineside.machines.data import load_measurement
from lineside.machines.store import open_store
from lineside.machines.store.queries import fleet, refusals
from lineside.machines.streams import encode
from lineside.machines.streams.ingestor import Ingestor
from lineside.machines.streams.mqtt import MqttSource, parse_broker
from lineside.machines.streams.watch import Options, watch

needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return learn_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def snapshots(trained):
    return [load_measurement(item) for item in trained[1]][:80]


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "machines.db") as opened:
        yield opened


@pytest.fixture
def broker(tmp_path):
    found = Mosquitto(tmp_path)
    yield found
    found.end()


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

        asked = Properties(PacketTypes.PUBLISH)
        asked.ResponseTopic = "answers"
        return self.client.publish("plant/a", body, qos=1, properties=asked)

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def sender(broker):
    found = Sender(broker.port)
    yield found
    found.end()


def address(broker, topic="plant/#"):
    return f"mqtt://127.0.0.1:{broker.port}/{topic}"


def test_addresses_of_brokers(monkeypatch):
    found = parse_broker("mqtt://me%40x:p%3Aw@broker.local/$share/lines/plant/+/#")
    assert (found.host, found.port, found.topic) == (
        "broker.local", 1883, "$share/lines/plant/+/#",
    )  # fmt: skip
    assert (found.user, found.password) == ("me@x", "p:w")
    assert "p:w" not in str(found) + repr(found)
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
    said = Said()
    with watching(model, store, mqtt=address(broker), said=said) as found:
        until(lambda: found.mqtt.connected)
        for place, measurement in enumerate(snapshots):
            sender.send(encode(measurement, ("npz", "json")[place % 2]))
        sender.send(b"nonsense")
        sender.send(encode(snapshots[5]))
        until(lambda: len(sender.answers) == len(snapshots) + 2)
    assert [a["status"] for a in sender.answers[-2:]] == ["refused", "duplicate"]
    assert judged(store) == len(snapshots)
    batch = batch_of(trained)
    for name in NAMES:
        own = stored(store, name)
        assert own == batch[name][: len(own)]
    assert [r.item for r in refusals(store)] == ["topic plant/a"]
    again = Said()
    with watching(model, store, mqtt=address(broker), said=again) as found:
        until(lambda: found.mqtt.connected)
        time.sleep(0.3)
        assert not found.ingestor.counts


@needs_broker
def test_what_comes_while_the_watch_is_down_is_taken_later(
    trained, snapshots, store, broker, sender
):
    model = trained[0]
    with watching(model, store, mqtt=address(broker)) as found:
        until(lambda: found.mqtt.connected)
        time.sleep(0.2)
    for measurement in snapshots:
        sender.send(encode(measurement))
    code = watch([], model, store, mqtt=address(broker), options=Options(once=True),
                 console=Said().console)  # fmt: skip
    assert code == 0 and judged(store) == len(snapshots)


@needs_broker
def test_a_broker_that_goes_away_is_told_and_nothing_is_lost(
    trained, snapshots, store, broker, sender
):
    said = Said()
    with watching(trained[0], store, mqtt=address(broker), said=said) as found:
        until(lambda: found.mqtt.connected)
        time.sleep(0.2)
        for measurement in snapshots[:40]:
            sender.send(encode(measurement))
        broker.end()
        until(lambda: not found.mqtt.connected)
        for measurement in snapshots[40:]:
            sender.send(encode(measurement))
        broker.start()
        until(lambda: judged(store) == len(snapshots))
    assert any("is gone" in note for note in said.notes)
    assert fleet(store)[0].out_of_order == 0


@needs_broker
def test_a_store_that_does_not_answer_keeps_messages_with_the_broker(
    trained, snapshots, store, broker, sender, monkeypatch
):
    with watching(trained[0], store, mqtt=address(broker)) as found:
        until(lambda: found.mqtt.connected)
        take, troubles = found.ingestor.journal.ingest, []

        def failing(measurement, *, source=""):
            if len(troubles) < 3:
                troubles.append(measurement)
                raise UserError("the disk is full", "free some space")
            return take(measurement, source=source)

        monkeypatch.setattr(found.ingestor.journal, "ingest", failing)
        for measurement in snapshots[:20]:
            sender.send(encode(measurement))
        until(lambda: judged(store) == 20)
    assert len(troubles) == 3 and not refusals(store)


@needs_broker
def test_two_watches_share_the_work(trained, snapshots, tmp_path, store, broker, sender):
    topic = address(broker, "$share/lines/plant/#")
    with (
        watching(trained[0], store, mqtt=topic, options=options("a")) as one,
        open_store(tmp_path / "machines.db") as other,
        watching(trained[0], other, mqtt=topic, options=options("b")) as two,
    ):
        until(lambda: one.mqtt.connected and two.mqtt.connected)
        time.sleep(0.2)
        for measurement in snapshots[:40]:
            sender.send(encode(measurement))
            count = len(sender.answers) + 1
            until(lambda count=count: len(sender.answers) == count)
        assert one.ingestor.counts["judged"] and two.ingestor.counts["judged"]
    assert judged(store) == 40


def options(client_id):
    return Options(interval_seconds=FAST.interval_seconds, client_id=client_id)


def test_a_broker_that_is_not_there_is_no_end_but_once_it_is(trained, store):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        said = Said()
        gone = f"mqtt://127.0.0.1:{closed.getsockname()[1]}/a"
        with watching(trained[0], store, mqtt=gone, said=said):
            until(lambda: said.notes)
            time.sleep(0.2)
        assert len(said.notes) == 1 and "cannot be reached" in said.notes[0]


@pytest.mark.parametrize("topic", ["a/#/b", "#x", "a/b+", "+a/b", "a" * 65536])
def test_topics_that_no_broker_takes_are_refused_at_once(topic):
    with pytest.raises(UserError, match="not a topic to subscribe to"):
        parse_broker(f"mqtt://x/{topic}")


@pytest.mark.parametrize("topic", ["#", "+/a/#", "$share/halls/+/b"])
def test_topics_with_wildcards_are_taken(topic):
    assert parse_broker(f"mqtt://x/{topic}").topic == topic


@pytest.mark.parametrize("topic", ["answers/#", "answers/+/a", "a" * 65536])
def test_a_sender_that_cannot_be_answered_is_told_and_its_message_does_not_come_again(topic):
    paho = pytest.importorskip("paho.mqtt.client")

    class Client(paho.Client):
        def ack(self, mid, qos):
            acknowledged.append(mid)

    acknowledged: list[int] = []
    notes: list[str] = []
    asked = SimpleNamespace(ResponseTopic=topic)
    message = SimpleNamespace(payload=b"x", topic="t", mid=7, qos=1, properties=asked)
    ingestor = Ingestor(journal=SimpleNamespace(refuse=lambda *given, **named: None))
    source = MqttSource(broker=parse_broker("mqtt://x/#"), ingestor=ingestor, note=notes.append)
    client = Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, manual_ack=True)
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(source._on_message, client, None, message)
        until(lambda: ingestor.run_next(0.05))
        taken.result()
    assert acknowledged == [7] and ingestor.failure is None
    assert "cannot be answered" in notes[0]
