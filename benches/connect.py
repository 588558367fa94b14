"""What a new TCP connection costs on its way through the node: a client, a node and all pods, each in a
network namespace of its own, once for each way to lead connections. The client is a pod of the node, so that
nobody masquerades. All are measured in turn, round by round, so that the machine's moods hit them alike."""

import multiprocessing
import os
import random
import socket
import statistics
import struct
import subprocess
import time

import chains
import cluster
import node

CHAINS_LIMIT = 60_000  # chains: nft needs a minute for so many, and much longer for more
CLIENT, CLIENTS_NODE = "10.255.0.2", "10.255.0.1"
PODS, PODS_NODE = "192.168.3.2", "192.168.3.1"
TARGETS = 1000  # so many different Services are called

# So that connections are tracked without Services, too: the difference is what the rules cost.
TRACKING = "table ip tracking { chain c { type filter hook prerouting priority 0; ct state invalid drop; }; }\n"

NO_SERVICES, SHUNT, CHAINS = "straight to a pod, tracked", "ClusterIP by shunt", "ClusterIP by a chain per Service"


def measure(shunt, made_up, work, rounds, connects):
    """Seconds of a connect (p50, p99) and connects a second, for each way; `ratio` compares the p50 with the
    first way's, in the same round."""
    ways = {NO_SERVICES: 0, SHUNT: 1}
    if made_up.services * (1 + made_up.endpoints) <= CHAINS_LIMIT:
        ways[CHAINS] = 2
    labs = {way: Lab(number, targets(made_up, way)) for way, number in ways.items()}
    try:
        labs[NO_SERVICES].load(TRACKING, work)
        node.enter_network(labs[SHUNT].path("node"))
        shunt.once()
        if CHAINS in labs:
            path = os.path.join(work, "chains.nft")
            chains.write(path, made_up)
            labs[CHAINS].load_file(path)
        found = {way: [] for way in labs}
        for lab in labs.values():
            lab.connects(connects // 10)  # neighbours are known, caches are warm
        for _ in range(rounds):
            for way, lab in labs.items():
                found[way].append(lab.connects(connects))
        return {way: summary(rounds_of_way, found[NO_SERVICES]) for way, rounds_of_way in found.items()}
    finally:
        for lab in labs.values():
            lab.close()


def summary(found, straight):
    def median(name):
        return statistics.median(one[name] for one in found)

    ratios = [one["p50"] / base["p50"] for one, base in zip(found, straight)]
    return {
        "p50_s": median("p50"),
        "p99_s": median("p99"),
        "per_second": median("per_second"),
        "ratio": statistics.median(ratios),
        "ratios": [min(ratios), max(ratios)],
    }


class Lab:
    """Client, node and pods."""

    def __init__(self, number, targets):
        self.number, self.targets = number, targets
        for name in ("client", "node", "pods"):
            node.ip(f"netns add {name}{number}")
            node.ip(f"-n {name}{number} link set lo up")
        self.link("client", CLIENTS_NODE, CLIENT)
        self.link("pods", PODS_NODE, PODS)
        node.ip(f"-n node{number} route add {cluster.OTHER_PODS} via {PODS}")
        # the address of every pod is here, but not the client's
        node.ip(f"-n pods{number} route add local {cluster.OTHER_PODS} dev lo")
        self.inside("node", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.inside("pods", "echo 65535 > /proc/sys/net/core/somaxconn")
        self.server = multiprocessing.Process(target=serve, args=(self.path("pods"),), daemon=True)
        self.server.start()
        self.ours, theirs = multiprocessing.Pipe()
        self.client = multiprocessing.Process(target=call, args=(self.path("client"), theirs), daemon=True)
        self.client.start()

    def link(self, name, node_address, address):
        number = self.number
        node.ip(f"-n node{number} link add {name} type veth peer name eth0 netns {name}{number}")
        node.ip(f"-n node{number} address add {node_address}/30 dev {name}")
        node.ip(f"-n node{number} link set {name} up")
        node.ip(f"-n {name}{number} address add {address}/30 dev eth0")
        node.ip(f"-n {name}{number} link set eth0 up")
        node.ip(f"-n {name}{number} route add default via {node_address}")

    def path(self, name):
        return f"/run/netns/{name}{self.number}"

    def inside(self, name, command):
        subprocess.run(["ip", "netns", "exec", f"{name}{self.number}", "sh", "-c", command], check=True)

    def load(self, rules, work):
        path = os.path.join(work, "rules.nft")
        cluster.put(path, rules)
        self.load_file(path)

    def load_file(self, path):
        self.inside("node", f"nft -f {path}")

    def connects(self, count):
        """So many connections, one after the other."""
        self.ours.send((self.targets, count))
        result = self.ours.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self):
        for process in (self.client, self.server):
            process.kill()
            process.join()
        for name in ("client", "node", "pods"):
            node.ip(f"netns delete {name}{self.number}")


def targets(made_up, way):
    """What is called: some of the Services, or one of their endpoints."""
    some = random.Random(1).sample(range(made_up.services), min(made_up.services, TARGETS))
    if way == NO_SERVICES:
        return [(str(made_up.pod_address(number, 0)), 8080) for number in some]
    return [(str(cluster.service_address(number)), 80) for number in some]


def serve(network):
    """Takes whatever arrives, now and then: a server that wakes up for each connection would be measured too."""
    node.enter_network(network)
    listener = socket.create_server(("", 8080), backlog=65535)
    listener.setblocking(False)
    while True:
        try:
            while True:
                listener.accept()[0].close()
        except BlockingIOError:
            time.sleep(0.002)


def call(network, pipe):
    node.enter_network(network)
    while True:
        addresses, count = pipe.recv()
        try:
            pipe.send(connects(addresses, count))
        except OSError as error:
            pipe.send(error)


def connects(addresses, count):
    seconds = []
    reset = struct.pack("ii", 1, 0)  # no TIME_WAIT on either side
    begin = time.perf_counter()
    for number in range(count):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            client.settimeout(5)
            start = time.perf_counter()
            client.connect(addresses[number % len(addresses)])
            seconds.append(time.perf_counter() - start)
    took = time.perf_counter() - begin
    seconds.sort()
    return {"p50": seconds[count // 2], "p99": seconds[count * 99 // 100], "per_second": count / took}
