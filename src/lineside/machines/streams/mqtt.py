"""Snapshots over MQTT: a message is acknowledged when its snapshot is committed, not before.

MQTT 5 with quality of service 1 (at-least-once delivery) and a session that the broker keeps under
a fixed client id: what comes while the watch is down, or was not acknowledged, is delivered again,
and a duplicate is simply acknowledged. (The broker must be configured to keep it: mosquitto holds
1,000 messages per client unless ``max_queued_messages`` says otherwise, and forgets them when it
is killed unless ``persistence`` is on.) Several watches share the work with a topic
``$share/NAME/...`` and client ids of their own. A sender that wants to know gives a response topic
and gets the answer of the HTTP source there, after the commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from lineside.core.errors import UserError
from lineside.core.run.files import finite
from lineside.machines.store.ingest_result import IngestResult
from lineside.machines.streams.ingestor import Ingestor, NotStoredError
from lineside.machines.streams.message import MAX_MESSAGE_BYTES

IN_FLIGHT = 20
"""Messages that the broker sends before the first of them is acknowledged."""
SESSION_SECONDS = 30 * 24 * 3600
"""How long the broker keeps the session of a watch that is not running."""
KEEP_ALIVE_SECONDS = 60
LONGEST_TOPIC_BYTES = 65535
MIN_RECONNECT_SECONDS, MAX_RECONNECT_SECONDS = 1, 30
"""Between two attempts to reach a broker; doubled each time."""


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where messages come from.

    Attributes:
        host: Name or address.
        port: 1883, or 8883 with TLS.
        topic: May hold wildcards; ``$share/NAME/...`` for a shared subscription.
        user: Empty without one.
        password: Empty without one.
        tls: Encrypted, with the certificates that this computer trusts.
    """

    host: str
    topic: str
    port: int = 1883
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    def __str__(self) -> str:
        """Return its address without the password."""
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}/{self.topic}"


def parse_broker(address: str) -> Broker:
    """Return the broker of ``mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC`` (``mqtts`` for TLS).

    The topic may hold ``#``; without a password in it, the variable MQTT_PASSWORD is used.

    Raises:
        UserError: if it is no such address.
    """
    hint = "e.g. mqtt://broker.local/machines/#"
    scheme, _, rest = address.partition("://")
    authority, _, topic = rest.partition("/")
    if scheme not in ("mqtt", "mqtts") or not authority:
        raise UserError("--mqtt is not the address of a broker", hint)
    if not topic:
        raise UserError("the address of the broker has no topic", hint)
    _check_filter(topic)
    account, _, server = authority.rpartition("@")
    user, _, password = account.partition(":")
    if server.startswith("["):  # IPv6
        host, _, port = server[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = server.partition(":")
    tls = scheme == "mqtts"
    number = port or ("8883" if tls else "1883")
    if not host or not number.isdigit() or not 0 < int(number) < 65536:
        raise UserError(f"{server!r} is not a host and port", hint)
    return Broker(
        host=host, port=int(number), topic=topic, user=unquote(user), tls=tls,
        password=unquote(password) or (os.environ.get("MQTT_PASSWORD", "") if user else ""),
    )  # fmt: skip


def _check_filter(topic: str) -> None:
    """Refuse what no broker accepts as a subscription, before the client runs (MQTT 5, 4.7.1)."""
    levels = topic.split("/")
    whole = all(level in ("#", "+") or not {"#", "+"} & set(level) for level in levels)
    if not whole or "#" in levels[:-1] or len(topic.encode()) > LONGEST_TOPIC_BYTES:
        raise UserError(
            f"{topic!r} is not a topic to subscribe to",
            "+ stands for one level, # for all at the end",
        )


@dataclass(kw_only=True)
class MqttSource:
    """A subscriber in a thread of its own; it reconnects by itself.

    Attributes:
        broker: Where messages come from.
        ingestor: Ingests the snapshots.
        client_id: Names the session; by default made from this computer, `store_address` and topic.
        store_address: Tells watches on one computer apart.
        note: Is called with a sentence when the broker comes and goes; in another thread.
        connected: Whether the topic is subscribed to.
        last_message: When the last message came, by the monotonic clock.
    """

    broker: Broker
    ingestor: Ingestor
    client_id: str = ""
    store_address: str = ""
    note: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        if not self.client_id:
            names = "\0".join((socket.gethostname(), self.store_address, self.broker.topic))
            self.client_id = f"lineside-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
        self.connected = False
        self.last_message = time.monotonic()
        self._last_note = ""
        self._client: Any = None

    def start(self) -> None:
        """Start to connect; repeated until it succeeds.

        Raises:
            UserError: if paho-mqtt is missing.
        """
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties
        except ImportError as error:
            raise UserError("--mqtt needs paho-mqtt", "pip install 'lineside[mqtt]'") from error
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=self.client_id, protocol=paho.MQTTv5,
            manual_ack=True,
        )  # fmt: skip
        if self.broker.user:
            client.username_pw_set(self.broker.user, self.broker.password or None)
        if self.broker.tls:
            client.tls_set()
        client.reconnect_delay_set(MIN_RECONNECT_SECONDS, MAX_RECONNECT_SECONDS)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_message = self._on_connect_fail, self._on_message
        client.on_subscribe = self._on_subscribe
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_SECONDS
        properties.ReceiveMaximum = IN_FLIGHT
        properties.MaximumPacketSize = MAX_MESSAGE_BYTES + 2**16  # larger ones stay with the broker
        client.connect_async(
            self.broker.host, self.broker.port, KEEP_ALIVE_SECONDS,
            clean_start=False, properties=properties,
        )  # fmt: skip
        self._client = client
        client.loop_start()

    def stop(self) -> None:
        """Disconnect; the broker keeps the session. The ingestor should be closed by then."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, props: Any) -> None:
        if reason.is_failure:
            self._note(f"{self.broker} refuses: {reason}")
            return
        # Also in a session that the broker has kept: it may have restarted without it.
        client.subscribe(self.broker.topic, qos=1)
        self._note(f"connected to {self.broker} as {self.client_id}")

    def _on_subscribe(self, client: Any, data: Any, mid: int, reasons: Any, props: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                self._note(f"{self.broker} does not let us read the topic: {reason}")
                return
        # Before the topic is subscribed to, the broker drops what comes for a new session.
        self.connected, self.last_message = True, time.monotonic()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, props: Any) -> None:
        self.connected = False
        if not self.ingestor.stopping:
            self._note(f"{self.broker} disconnected ({reason}), trying again")

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self._note(f"{self.broker} cannot be reached, trying again")

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        """Ingest a message, then acknowledge it; it stays with the broker if that fails.

        While the store does not answer this thread waits, and so does the broker. If the
        connection ends meanwhile, the message is delivered again and is a duplicate by then.
        """
        self.last_message = time.monotonic()
        wait = 0.1
        while not self.ingestor.stopping:
            try:
                result = self.ingestor.ingest_message(
                    bytes(message.payload), "mqtt", f"topic {message.topic}"
                )
            except NotStoredError:
                time.sleep(wait)
                wait = min(2 * wait, 5.0)
                continue
            except Exception as error:  # it would end this thread unseen
                self.ingestor.failure = error
                return
            self._answer(client, message, result)
            client.ack(message.mid, message.qos)
            return

    def _answer(self, client: Any, message: Any, result: IngestResult) -> None:
        """Publish the result if the message has a response topic."""
        request = message.properties
        topic = getattr(request, "ResponseTopic", "")
        if not topic:
            return
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)
        if hasattr(request, "CorrelationData"):
            properties.CorrelationData = request.CorrelationData
        body = json.dumps(finite(result.as_json()))
        try:
            client.publish(topic, body, qos=0, properties=properties)
        except ValueError as error:  # e.g. wildcards in the topic: no reason for another delivery
            self._note(f"{topic[:60]!r} cannot be answered: {error}")

    def _note(self, text: str) -> None:
        if text != self._last_note:
            self._last_note = text
            self.note(text)
