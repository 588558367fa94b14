#!/usr/bin/env python3
"""What runs in the pods of scripts/demo, and a client for it.

    pod.py web NAME PORT            an HTTP server that answers with its name and the client it sees
    pod.py dns PORT NAME=ADDRESS..  a name server (UDP) that knows these names
    pod.py ask SERVER[:PORT] NAME   ask the name server at address SERVER, as `dig +short` does

Nothing but Python's standard library.
"""

import http.server
import socket
import socketserver
import struct
import sys

TIMEOUT = 2  # seconds that `ask` waits for an answer
TTL = 5  # seconds that an answer may be remembered


class Web(http.server.BaseHTTPRequestHandler):
    """Answers every GET with one line."""

    pod = ""

    def do_GET(self):
        body = f"{self.pod} here, you are {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Dns(socketserver.BaseRequestHandler):
    """Answers questions for A records from `names`; NXDOMAIN for all others."""

    names: dict[str, str] = {}

    def handle(self):
        query, sock = self.request
        try:
            name, end = read_name(query, 12)
        except (IndexError, UnicodeDecodeError):
            return  # not a question
        known = self.names.get(name.lower())
        a_in = query[end : end + 4] == struct.pack("!HH", 1, 1)  # type A, class IN
        answer = b""
        if known and a_in:
            # 0xc00c: the name that stands at byte 12, in the question
            answer = struct.pack("!HHHLH", 0xC00C, 1, 1, TTL, 4) + socket.inet_aton(known)
        # response, authoritative, recursion copied from the question, code 3 for a name we do not know
        flags = 0x8400 | (query[2] & 1) << 8 | (0 if known else 3)
        header = query[:2] + struct.pack("!HHHHH", flags, 1, 1 if answer else 0, 0, 0)
        sock.sendto(header + query[12 : end + 4] + answer, self.client_address)


def read_name(message, at):
    """The dotted name at byte `at`, and the byte after it."""
    labels = []
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("ascii"))
        at += 1 + message[at]
    return ".".join(labels), at + 1


def ask(server, name):
    """The IPv4 address of `name`, or None where the server knows of none."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack("!HHHHHH", 0x5348, 0x0100, 1, 0, 0, 0) + question + struct.pack("!HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        host, _, port = server.partition(":")
        sock.connect((host, int(port or 53)))  # so that an ICMP "port unreachable" becomes an error here
        sock.send(query)
        reply = sock.recv(512)
    answers = struct.unpack("!H", reply[6:8])[0]
    return socket.inet_ntoa(reply[-4:]) if answers else None


def main(arguments):
    match arguments:
        case ["web", pod, port]:
            Web.pod = pod
            server = http.server.ThreadingHTTPServer(("", int(port)), Web)
            server.serve_forever()
        case ["dns", port, *names]:
            Dns.names = dict(name.split("=") for name in names)
            socketserver.UDPServer(("", int(port)), Dns).serve_forever()
        case ["ask", server, name]:
            try:
                address = ask(server, name)
            except OSError as error:
                sys.exit(f"no answer from {server}: {error}")
            if address is None:
                sys.exit(f"{server} knows no {name}")
            print(address)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
