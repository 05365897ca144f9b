"""A broker of our own, and senders that send again until they are answered."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lineside.core.errors import UserError
from lineside.machines.data.measurement import Measurement

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
ANSWER_SECONDS = 2.0
"""Timeout for an answer; then the sender sends again."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker on a free port that keeps its sessions on disk; it can be killed and restarted."""

    def __init__(self, folder: Path) -> None:
        if MOSQUITTO is None:
            raise UserError("mosquitto is not installed", "apt install mosquitto")
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        user = "user root\n" if os.getuid() == 0 else ""
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
            f"max_queued_messages 0\n{user}"
        )
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise UserError("mosquitto does not start", "try it by hand")

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal."""
        self._process.send_signal(number)
        self._process.wait(20)


def encode_message(measurement: Measurement, kind: Literal["npz", "json"] = "npz") -> bytes:
    """Return a snapshot as a message."""
    if kind == "json":
        return json.dumps(_to_json(measurement), allow_nan=False).encode()
    arrays: dict[str, Any] = {"machine": measurement.machine, "time": measurement.time}
    for name, channel in measurement.channels.items():
        arrays[f"channel.{name}"] = channel.samples
        arrays[f"rate_hz.{name}"] = channel.rate_hz
        arrays[f"unit.{name}"] = channel.unit
    for name, value in measurement.values.items():
        arrays[f"value.{name}"] = value
    arrays |= _speed_and_load(measurement)
    body = io.BytesIO()
    np.savez(body, **arrays)
    return body.getvalue()


def _to_json(measurement: Measurement) -> dict[str, Any]:
    fields: dict[str, Any] = {"machine": measurement.machine, "time": measurement.time}
    if measurement.channels:
        fields["channels"] = {
            name: {
                "samples": [_or_none(v) for v in channel.samples.tolist()],
                "rate_hz": channel.rate_hz, "unit": channel.unit,
            }
            for name, channel in measurement.channels.items()
        }  # fmt: skip
    if measurement.values:
        fields["values"] = {name: _or_none(v) for name, v in measurement.values.items()}
    return fields | _speed_and_load(measurement)


def _speed_and_load(measurement: Measurement) -> dict[str, float]:
    both = {"speed_hz": measurement.speed_hz, "load": measurement.load}
    return {name: value for name, value in both.items() if value is not None}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_file(folder: Path, measurement: Measurement) -> None:
    """Put a snapshot into a watched folder as a recorder does: complete under another name."""
    folder = folder / measurement.machine
    folder.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(measurement.time))
    fields: dict[str, Any] = {name: np.array([value]) for name, value in measurement.values.items()}
    for key in ("speed_hz", "load"):
        if getattr(measurement, key) is not None:
            fields[key] = np.array([getattr(measurement, key)])
    with (folder / f".{name}").open("wb") as stream:
        np.savez(
            stream,
            acc=np.stack([c.samples for c in measurement.channels.values()])[None],
            fs=next(iter(measurement.channels.values())).rate_hz,
            t=np.array([measurement.time]), channels=np.array(list(measurement.channels)), **fields,
        )  # fmt: skip
    (folder / f".{name}").rename(folder / f"{name}.npz")


def post(port: int, body: bytes, seconds: float = ANSWER_SECONDS) -> dict[str, Any] | None:
    """Send one snapshot over HTTP; None if it was not acknowledged."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/snapshots", data=body)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            result: dict[str, Any] = json.loads(answer.read())
            return result
    except urllib.error.HTTPError as error:
        error.read()
        if error.code == 503:
            return None
        raise
    except (OSError, HTTPException, ValueError):  # killed before, during or after it was ingested
        return None


class MqttSender:
    """Publishes one snapshot at a time and waits for the answer on a topic of its own."""

    def __init__(self, port: int, name: str) -> None:
        from paho.mqtt import client as paho

        self.name = name
        self._answered: dict[bytes, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=f"sender-{name}", protocol=paho.MQTTv5
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *rest: client.subscribe(f"answers/{name}", qos=1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def send(self, measurement: Measurement) -> dict[str, Any] | None:
        """Publish and wait; None if no answer came in time."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = f"answers/{self.name}"
        properties.CorrelationData = key = str(measurement.time).encode()
        if not self._client.is_connected():
            time.sleep(0.05)
            return None
        self._client.publish(
            f"plant/{self.name}", encode_message(measurement), qos=1, properties=properties
        )
        with self._news:
            self._news.wait_for(lambda: key in self._answered, ANSWER_SECONDS)
            return self._answered.pop(key, None)

    def end(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        with self._news:
            self._answered = {message.properties.CorrelationData: json.loads(message.payload)}
            self._news.notify_all()
