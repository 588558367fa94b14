"""A way out of a network namespace: a process that stays where the API server can be reached, and is given
sockets from elsewhere. A socket belongs to the namespace in which it was made, whoever uses it: so it accepts
on the listener that it is given, and passes bytes on. TLS goes through it untouched.

It also notes when much came from the server: the end of a list is visible even where its content is not.
"""

import json
import os
import socket
import threading
import time

LISTEN, CONNECT, ASK = b"L", b"C", b"?"
PIECE = 1 << 18  # bytes that are passed on at once
MUCH = 4096  # bytes at once that are part of a list, not a single event
REMEMBERED = 2000  # so many of the last times at which much came


class Tunnel:
    """Our end of the conversation with that process."""

    def __init__(self, control):
        self.control, self.lock = control, threading.Lock()

    def close(self):
        self.control.close()

    def listen(self, port):
        """From now on `port` on the loopback of this network namespace leads to the server, and from no
        namespace where it did before."""
        with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
            self.give(LISTEN, listener)

    def connect(self):
        """A socket that leads to the server."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.give(CONNECT, theirs)
        return ours

    def give(self, what, sock):
        with self.lock:
            try:
                socket.send_fds(self.control, [what], [sock.fileno()])
                answer = self.control.recv(1)
            except OSError:
                answer = b""
            if answer != what:
                raise ConnectionError("the process that leads to it (benches/outside.py) has ended")

    def much_came(self):
        """When much came from the server through the present listener, as time.perf_counter() tells it."""
        with self.lock:
            self.control.send(ASK)
            return json.loads(self.control.recv(1 << 22))


def serve(control, address):
    """Does what the other end of `control` asks for, until that is closed. `control` keeps the bounds of
    messages (SOCK_SEQPACKET)."""
    listening = None
    while True:
        try:
            what, sockets, _, _ = socket.recv_fds(control, 1, 1)
        except OSError:
            what = b""
        if not what:
            return
        if what == ASK:
            control.send(json.dumps(listening.much[-REMEMBERED:] if listening else []).encode())
            continue
        given = socket.socket(fileno=sockets[0])
        given.settimeout(None)
        if what == LISTEN:
            if listening:
                listening.close()
            listening = Listening(given, address)
        else:
            threading.Thread(target=join, args=(given, address, None), daemon=True).start()
        control.send(what)


class Listening:
    """One listener, and what came through it."""

    def __init__(self, listener, address):
        self.listener, self.address, self.much = listener, address, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return  # closed
            threading.Thread(target=join, args=(client, self.address, self.much), daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def join(client, address, much):
    """Passes on what either side says, until both have ended."""
    try:
        server = socket.create_connection(address, timeout=10)
    except OSError:
        client.close()
        return
    server.settimeout(None)
    for one in (client, server):
        if one.family != socket.AF_UNIX:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=pass_on, args=(client, server, None), daemon=True).start()
    pass_on(server, client, much)


def pass_on(source, target, much):
    try:
        while data := source.recv(PIECE):
            if much is not None and len(data) >= MUCH:
                much.append(time.perf_counter())
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        try:
            one.shutdown(socket.SHUT_RDWR)  # wakes the thread of the other direction
        except OSError:
            pass


def beside(address):
    """A tunnel process that stays in the network namespace in which we are now; it ends with us."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        try:
            serve(theirs, address)
        finally:
            os._exit(0)
    theirs.close()
    return Tunnel(ours)
