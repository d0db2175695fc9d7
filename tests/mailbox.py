"""Real servers for alerts: an HTTP server that takes webhooks, and a small SMTP server that takes mail."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass
class Room:
    """What came in through a webhook. `status` is what it answers."""

    url: str = ""
    status: int = 200
    texts: list[str] = field(default_factory=list)
    asked: int = 0


@contextmanager
def chat_room() -> Iterator[Room]:
    """A webhook with a secret in its URL."""
    room = Room()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            room.asked += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if room.status == 200:
                room.texts.append(body["text"])
            self.send_response(room.status)
            if room.status in (301, 307):
                self.send_header("Location", f"{room.url}/elsewhere")
            self.end_headers()
            self.wfile.write(b"invalid_payload s3cret-of-the-server")

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        room.url = f"http://127.0.0.1:{server.server_port}/services/T0/B0/s3cret-of-the-room"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield room
        server.shutdown()


@dataclass
class Mailbox:
    """What mail came in. `refuses` is an SMTP code it answers to everything after the greeting."""

    port: int = 0
    refuses: int | None = None
    mails: list[EmailMessage] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """A mail server on this machine that asks for a user and takes any."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 test")
            for raw in iter(self.rfile.readline, b""):
                line = raw.decode().strip()
                box.said.append(line)
                word = line.partition(" ")[0].upper()
                if box.refuses is not None and word != "QUIT":
                    self.say(f"{box.refuses} s3cret-of-the-server")
                elif word == "EHLO":
                    self.say("250-test\r\n250 AUTH PLAIN")
                elif word == "AUTH":
                    self.say("235 welcome")
                elif word == "DATA":
                    self.say("354 go on")
                    content = b"".join(iter(self.rfile.readline, b".\r\n"))
                    box.mails.append(cast(EmailMessage, message_from_bytes(content, policy=policy.default)))
                    self.say("250 taken")
                elif word == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 fine")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        box.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield box
        server.shutdown()
