"""Listens to what the kernel says about changes of nftables: a stopwatch and a counter that stand
outside of shunt. The numbers are those of linux/netfilter/nf_tables.h and nfnetlink.h."""

import collections
import ctypes
import select
import socket
import struct
import time

NETLINK_NETFILTER = 12
GROUP_NFTABLES = 1 << (7 - 1)  # NFNLGRP_NFTABLES, as a bit for bind()
SUBSYSTEM_NFTABLES = 10
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
BUFFER = 64 << 20  # bytes: a whole cold start fits

NAMES = {
    0: "+table", 2: "-table", 3: "+chain", 5: "-chain", 6: "+rule", 8: "-rule", 9: "+set", 11: "-set",
    12: "+element", 14: "-element", 15: "commit", 18: "+object", 20: "-object", 22: "+flowtable", 24: "-flowtable",
}  # fmt: skip
COMMIT = 15
ELEMENTS = (12, 14)
SET_ELEM_LIST_ELEMENTS = 3  # the attribute that holds the elements of one message
SET_ELEM_DATA = 2  # in one element: what its key leads to
NEW_ELEMENTS = 12
DATA_VALUE = struct.pack("=H", 1)  # the type of the attribute that holds any value: a key, data, in an expression

# A program for the kernel that drops whatever is no news of a commit: struct sock_filter, linux/filter.h.
ONLY_COMMITS = [
    (0x28, 0, 0, 4),  # load the two bytes of nlmsg_type, as if they were big-endian
    (0x15, 0, 1, int.from_bytes(struct.pack("=H", SUBSYSTEM_NFTABLES << 8 | COMMIT), "big")),
    (0x06, 0, 0, 0xFFFF_FFFF),  # keep all of it
    (0x06, 0, 0, 0),  # keep nothing
]


class News:
    """An open ear in the network namespace in which it was made."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:  # root of a user namespace only: the default has to do
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.socket.bind((0, GROUP_NFTABLES))

    def close(self):
        self.socket.close()

    def fileno(self):
        return self.socket.fileno()

    def receive(self):
        """What there is now: when it was heard of, and the bytes."""
        data = self.socket.recv(1 << 20)
        return time.perf_counter(), data

    def until_commit(self, timeout):
        """Waits for the next commit; returns when it was heard of (time.perf_counter) and what it held
        as {"+element": 1, ...}. Raises TimeoutError where there is none."""
        counts = collections.Counter()
        deadline = time.perf_counter() + timeout
        while True:
            left = deadline - time.perf_counter()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError(f"no commit within {timeout} s")
            data = self.socket.recv(1 << 20)
            heard = time.perf_counter()
            counts += count(data)
            if counts["commit"]:
                return heard, counts

    def addresses(self, until):
        """The IPv4 addresses that elements added from now on lead to, each with when it was heard of, until
        that time (time.perf_counter)."""
        while (left := until - time.perf_counter()) > 0 and select.select([self.socket], [], [], left)[0]:
            data = self.socket.recv(1 << 20)
            heard = time.perf_counter()
            for kind, payload in messages(data):
                if kind == SUBSYSTEM_NFTABLES << 8 | NEW_ELEMENTS:
                    for value in element_data(payload):
                        yield heard, value[:4]

    def so_far(self):
        """What has happened since the last look, without waiting."""
        counts = collections.Counter()
        while select.select([self.socket], [], [], 0)[0]:
            try:
                counts += count(self.socket.recv(1 << 20))
            except OSError:  # ENOBUFS: more than the buffer holds
                counts["lost"] += 1
        return counts


class Commits:
    """Hears of nothing but that something was committed: a cold start with 100,000 elements is not slowed down."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in ONLY_COMMITS))
        program = struct.pack("@HP", len(ONLY_COMMITS), ctypes.addressof(steps))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        self.socket.bind((0, GROUP_NFTABLES))

    def close(self):
        self.socket.close()

    def next(self, timeout):
        """When the next commit was heard of, or None where there is none in so many seconds."""
        if not select.select([self.socket], [], [], timeout)[0]:
            return None
        self.socket.recv(1 << 16)
        return time.perf_counter()


class Sought:
    """Looks for values among what is told of commits, whatever table, set or rule they are in: where they
    are all seen, `done` is when the commit was heard of that held the last of them."""

    def __init__(self, values):
        self.missing, self.done, self.counts = set(values), None, collections.Counter()

    def take(self, heard, data):
        if self.done:
            return
        for kind, payload in messages(data):
            if self.missing:
                self.missing = {value for value in self.missing if not holds(payload, value)}
        self.counts += count(data)
        if not self.missing and count(data)["commit"]:
            self.done = heard


def holds(payload, value):
    """Whether a value in a message begins with these bytes: an element's key or data, an operand of a rule."""
    at = payload.find(value)
    while at >= 0:
        if payload[at - 2 : at] == DATA_VALUE:
            return True
        at = payload.find(value, at + 1)
    return False


def count(data):
    """The messages in one datagram, by kind."""
    counts = collections.Counter()
    for kind, payload in messages(data):
        if kind >> 8 == SUBSYSTEM_NFTABLES:
            number = kind & 0xFF
            elements = elements_in(payload) if number in ELEMENTS else 1
            counts[NAMES.get(number, f"message {number}")] += elements
    return counts


def messages(data):
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        yield kind, data[at + 20 : at + length]  # behind nlmsghdr and nfgenmsg
        at += (length + 3) & ~3


def attributes(data):
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def elements_in(payload):
    return sum(
        len(list(attributes(value))) for kind, value in attributes(payload) if kind == SET_ELEM_LIST_ELEMENTS
    )


def element_data(payload):
    """The data of each element of a map that one message tells of."""
    for kind, elements in attributes(payload):
        if kind == SET_ELEM_LIST_ELEMENTS:
            for _, element in attributes(elements):
                for what, data in attributes(element):
                    if what == SET_ELEM_DATA:
                        for _, value in attributes(data):
                            yield value
