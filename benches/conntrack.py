#!/usr/bin/env python3
"""What it costs to find the stale UDP flows among many others: benches/conntrack.py [--flows N] SHUNT

Moves into a network namespace of its own, fills its conntrack table over ctnetlink, and removes one
endpoint of a UDP Service that has 68 flows. Needs root.
"""

import argparse
import ctypes
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

CLONE_NEWNET = 0x40000000
UDP = 17
OURS = 68  # flows of the Service, half of them to the endpoint that goes
BATCH = 500


def main():
    options = parse()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    table = Table()
    table.add(other_flow(n) for n in range(options.flows))
    table.add(our_flow(n) for n in range(OURS))
    print(f"{count()} flows in the table")
    directory = tempfile.mkdtemp(prefix="shunt-conntrack-")
    try:
        measure(options.shunt, directory)
    finally:
        shutil.rmtree(directory)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=200_000, help="unrelated UDP flows (default: 200000)")
    parser.add_argument("shunt", help="the program")
    return parser.parse_args()


class Table:
    """Adds flows with IPCTNL_MSG_CT_NEW."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        self.socket.bind((0, 0))

    def add(self, flows):
        batch, size = b"", 0
        for flow in flows:
            batch, size = batch + message(*flow), size + 1
            if size == BATCH:
                self.socket.send(batch)
                batch, size = b"", 0
        if batch:
            self.socket.send(batch)


def other_flow(n):
    client = f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}"
    return (client, 4000, "192.0.2.1", 53), ("192.0.2.1", 53, client, 4000)


def our_flow(n):
    client = (f"10.1.1.{n}", 4000)
    return (*client, "10.96.0.1", 53), (f"10.1.0.{1 + n % 2}", 8053, *client)


def message(original, reply):
    body = tuple_attribute(1, *original) + tuple_attribute(2, *reply)
    body += attribute(7, struct.pack(">I", 600)) + attribute(3, struct.pack(">I", 8 | 2 | 4))
    length = 20 + len(body)
    return struct.pack("=IHHIIBBH", length, 0x100, 0x601, 1, 0, socket.AF_INET, 0, 0) + body


def tuple_attribute(kind, source, source_port, destination, destination_port):
    addresses = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton(destination))
    ports = attribute(1, bytes([UDP]))
    ports += attribute(2, struct.pack(">H", source_port)) + attribute(3, struct.pack(">H", destination_port))
    return attribute(0x8000 | kind, attribute(0x8001, addresses) + attribute(0x8002, ports))


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def count():
    with open("/proc/sys/net/netfilter/nf_conntrack_count") as file:
        return int(file.read())


def measure(shunt, directory):
    manifests = os.path.join(directory, "manifests")
    os.mkdir(manifests)
    log_path = os.path.join(directory, "log")
    write(manifests, "service.json", service())
    write(manifests, "slice.json", endpoints(["10.1.0.1", "10.1.0.2"]))
    with open(log_path, "w") as log:
        command = [shunt, "run", "--manifests", manifests, "--node-name", "node-a"]
        environment = dict(os.environ, RUST_LOG="info,shunt::conntrack=debug")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait(log_path, reviews=2)
            start, before = time.monotonic(), count()
            write(manifests, "slice.json", endpoints(["10.1.0.1"]))
            while count() > before - OURS // 2:
                time.sleep(0.0005)
                assert time.monotonic() < start + 10, open(log_path).read()
            print(f"from the file to the last flow deleted: {(time.monotonic() - start) * 1000:.1f} ms")
            wait(log_path, reviews=4)
        finally:
            process.terminate()
            process.wait()
    for line in open(log_path):
        if "stale UDP flows" in line:
            print(re.sub(r"\x1b\[[0-9;]*m", "", line).strip().split("shunt::conntrack: ")[1])
    print(f"{count()} flows in the table")


def wait(log_path, reviews):
    """Until so many reviews were made; the one of each family at the start, the first and second look at a change."""
    limit = time.monotonic() + 20
    while open(log_path).read().count("stale UDP flows") < reviews:
        time.sleep(0.01)
        assert time.monotonic() < limit, open(log_path).read()


def write(manifests, name, manifest):
    staged = os.path.join(os.path.dirname(manifests), name)
    with open(staged, "w") as file:
        json.dump(manifest, file)
    os.rename(staged, os.path.join(manifests, name))


def service():
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": "dns"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"],
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
        },
    }


def endpoints(addresses):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop",
            "name": "dns-1",
            "labels": {"kubernetes.io/service-name": "dns"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "dns", "port": 8053, "protocol": "UDP"}],
        "endpoints": [{"addresses": [address]} for address in addresses],
    }


main()
