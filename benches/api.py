"""The same cluster behind a Kubernetes API: how long from the last object of the first lists until it is
programmed, and from an event until its commit. The server here knows as much of the API as that takes."""

import datetime
import http.server
import json
import os
import re
import threading
import time
import urllib.parse

import changes
import cluster
import nftnews
import node

SERVICES, SLICES = "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"
NODES, CIDRS = "/api/v1/nodes", "/apis/networking.k8s.io/v1/servicecidrs"
KINDS = {
    SERVICES: ("v1", "Service"),
    SLICES: ("discovery.k8s.io/v1", "EndpointSlice"),
    NODES: ("v1", "Node"),
    CIDRS: ("networking.k8s.io/v1", "ServiceCIDR"),
}
PIECE = 1 << 16  # bytes of a stream that are sent at once

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: bench, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
users: [{{name: bench, user: {{}}}}]
current-context: bench
"""

NODE = {
    "metadata": {"name": cluster.NODE, "resourceVersion": "1"},
    "status": {"addresses": [{"type": "InternalIP", "address": cluster.NODE_ADDRESS}]},
}
CIDR = {"metadata": {"name": "kubernetes", "resourceVersion": "1"}, "spec": {"cidrs": [str(cluster.SERVICE_CIDR)]}}


class Api:
    """A server with the objects of a made-up cluster, which it streams or lists as it is asked."""

    def __init__(self, made_up):
        self.objects = {
            SERVICES: [compact(made_up.service(number)) for number in range(made_up.services)],
            SLICES: [compact(made_up.endpoint_slice(number)) for number in range(made_up.services)],
            NODES: [json.dumps({"apiVersion": "v1", "kind": "Node", **NODE})],
            CIDRS: [json.dumps({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", **CIDR})],
        }
        self.version = 10_000_000
        self.listed = {}  # when the last byte of each first list was on its way, as time.time()
        self.watchers = {path: [] for path in KINDS}
        self.lock = threading.Lock()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802, the name is http.server's
                api.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server.server_address[1]

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        url = urllib.parse.urlparse(request.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path not in KINDS:
            request.send_error(404)
        elif query.get("watch") in ("1", "true"):
            self.watch(request, url.path, "sendInitialEvents" in query)
        else:
            self.list(request, url.path)

    def list(self, request, path):
        version, kind = KINDS[path]
        head = {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": str(self.version)}}
        text = json.dumps(head)[:-1] + ', "items": [' + ", ".join(self.objects[path]) + "]}"
        body = text.encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        self.listed.setdefault(path, time.time())

    def watch(self, request, path, with_objects):
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        if with_objects:
            self.stream_objects(request, path)
        with self.lock:
            self.watchers[path].append(request.wfile)
        request.connection.recv(1)  # until the client goes: it has nothing more to say
        with self.lock:
            self.watchers[path].remove(request.wfile)
        request.close_connection = True

    def stream_objects(self, request, path):
        piece = []
        for text in [*map(added, self.objects[path]), self.end_of_objects(path)]:
            piece.append(text)
            if sum(map(len, piece)) > PIECE:
                send(request.wfile, "".join(piece))
                piece.clear()
        send(request.wfile, "".join(piece))
        self.listed.setdefault(path, time.time())

    def end_of_objects(self, path):
        version, kind = KINDS[path]
        meta = {"resourceVersion": str(self.version), "annotations": {"k8s.io/initial-events-end": "true"}}
        event = {"type": "BOOKMARK", "object": {"apiVersion": version, "kind": kind, "metadata": meta}}
        return json.dumps(event) + "\n"

    def change(self, path, text):
        """Tells every watcher of a changed object."""
        self.version += 1
        changed = json.loads(text)
        changed["metadata"]["resourceVersion"] = str(self.version)
        event = json.dumps({"type": "MODIFIED", "object": changed}) + "\n"
        with self.lock:
            for stream in self.watchers[path]:
                send(stream, event)


def compact(text):
    return json.dumps(json.loads(text), separators=(",", ":"))


def added(text):
    return f'{{"type":"ADDED","object":{text}}}\n'


def send(stream, text):
    body = text.encode()
    stream.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
    stream.flush()


def measure(program, config, work, made_up, rounds, count):
    """Cold starts from the API, then single events of a running shunt."""
    made_up = cluster.Cluster("", made_up.services, made_up.endpoints, cluster.Json)
    cold = []
    for _ in range(rounds):
        node.fresh_network()
        api = Api(made_up)
        log = os.path.join(work, "api.log")
        kubeconfig = os.path.join(work, "kubeconfig")
        cluster.put(kubeconfig, KUBECONFIG.format(port=api.port))
        cluster.put(log, "")
        shunt = node.Shunt(program, ["--kubeconfig", kubeconfig], config, log)
        begun = time.time()
        with node.Daemon(shunt) as daemon:
            done = programmed_at(log)
            cold.append({"from_start_s": done - begun, "from_last_object_s": done - max(api.listed.values())})
            if len(cold) == rounds:
                found = {"start": daemon.memory()} | events(daemon, api, made_up, count)
        api.close()
    return {"cold": cold} | found


def events(daemon, api, made_up, count):
    """Seconds from sending an event until the kernel tells of a commit."""
    news, latencies = nftnews.News(), []
    for number in range(count):
        address = cluster.replacement_address(number)
        text = made_up.endpoint_slice(made_up.services // 2, address, version=2 + number)
        news.so_far()
        start = time.perf_counter()
        api.change(SLICES, text)
        heard, _ = news.until_commit(changes.CHANGE_LIMIT)
        latencies.append(heard - start)
        time.sleep(changes.PACE)
    news.close()
    return {"event_s": latencies}


def programmed_at(log):
    """When shunt says that IPv4 was first programmed, as time.time()."""
    with open(log, encoding="utf-8") as file:
        for line in file:
            match = re.match(r"(\S+)Z .*programmed.*IPv4", line)
            if match:
                return datetime.datetime.fromisoformat(match[1] + "+00:00").timestamp()
    raise RuntimeError("shunt did not say that it has programmed anything")
