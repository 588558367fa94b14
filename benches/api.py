"""A Kubernetes API that knows as much as shunt and kube-proxy ask for: the same cluster without a real server. It
begins with objects, streams or lists them, takes writes, and tells its watchers. A process of its own; called as a
program it is a server without Services, and prints its port."""

import http.server
import json
import os
import signal
import threading
import urllib.parse

import cluster

SERVICES, SLICES = "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"
NODES, CIDRS = "/api/v1/nodes", "/apis/networking.k8s.io/v1/servicecidrs"
NAMESPACES = "/api/v1/namespaces"
KINDS = {
    SERVICES: ("v1", "Service"),
    SLICES: ("discovery.k8s.io/v1", "EndpointSlice"),
    NODES: ("v1", "Node"),
    CIDRS: ("networking.k8s.io/v1", "ServiceCIDR"),
    NAMESPACES: ("v1", "Namespace"),
}
PIECE = 1 << 16  # bytes of a stream that are sent at once

NODE = {
    "metadata": {"name": cluster.NODE},
    "status": {"addresses": [{"type": "InternalIP", "address": cluster.NODE_ADDRESS}]},
}
CIDR = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [str(cluster.SERVICE_CIDR)]}}


def start(services, slices):
    """Starts a server with these objects on the loopback of this network namespace: its port and process id."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            api = Api({SERVICES: services, SLICES: slices, NODES: [NODE], CIDRS: [CIDR]})
            os.write(theirs, str(api.port).encode())
            os.close(theirs)
            api.serve()
        finally:
            os._exit(1)
    os.close(theirs)
    with open(ours, encoding="ascii") as pipe:
        return int(pipe.read()), pid


class Api:
    """The server: objects as text, by kind and name."""

    def __init__(self, objects):
        self.version = 10_000_000
        self.objects = {path: {} for path in KINDS}
        for path, found in objects.items():
            for one in found:
                self.store(path, one)
        self.watchers = {path: [] for path in KINDS}
        self.lock = threading.Lock()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # head and body of an answer go out together

            def log_message(self, *_):
                pass

        for method in ("GET", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", lambda request: api.answer(request))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def port(self):
        return self.server.server_address[1]

    def serve(self):
        self.server.serve_forever()

    def answer(self, request):
        url = urllib.parse.urlparse(request.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        path, name = self.collection(url.path)
        if path is None:
            reply(request, 404, status(404, f"{url.path} is not known here"))
        elif request.command != "GET":
            reply(request, *self.write(request.command, path, name, body))
        elif name is not None:
            found = self.objects[path].get(name)
            reply(request, 200 if found else 404, found or status(404, f"{name} not found"))
        elif query.get("watch") in ("1", "true"):
            self.watch(request, path, "sendInitialEvents" in query)
        else:
            reply(request, 200, self.list(path))

    def collection(self, path):
        """The kind that a path is about, whatever the namespace, and the name of an object, if there is one."""
        head, _, rest = path.partition("/namespaces/")
        if "/" in rest:
            path = f"{head}/{rest.partition('/')[2]}"
        if path in KINDS:
            return path, None
        kind, _, name = path.rpartition("/")
        return (kind, name) if kind in KINDS else (None, None)

    def write(self, method, path, name, body):
        """Creates, replaces or deletes one object, and tells every watcher of it."""
        with self.lock:
            wanted = json.loads(body) if method != "DELETE" else None
            name = name or wanted["metadata"]["name"]
            there = self.objects[path].get(name)
            if (there is None) != (method == "POST"):
                code = 404 if there is None else 409
                return code, status(code, f"{name} {'not found' if code == 404 else 'already exists'}")
            if method == "DELETE":
                self.version += 1
                del self.objects[path][name]
                event, text = "DELETED", there
            else:
                event, text = {"POST": "ADDED", "PUT": "MODIFIED"}[method], self.store(path, wanted)
            for stream in self.watchers[path]:
                send(stream, told(event, text))
        return 200, text

    def store(self, path, wanted):
        version, kind = KINDS[path]
        self.version += 1
        name = wanted["metadata"]["name"]
        meta = {
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "uid": f"00000000-0000-4000-8000-{hash((path, name)) & 0xFFFF_FFFF_FFFF:012x}",
            "resourceVersion": str(self.version),
        }
        found = {"apiVersion": version, "kind": kind, **wanted, "metadata": wanted["metadata"] | meta}
        text = self.objects[path][name] = json.dumps(found, separators=(",", ":"))
        return text

    def list(self, path):
        version, kind = KINDS[path]
        head = {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": str(self.version)}}
        return json.dumps(head)[:-1] + ', "items": [' + ", ".join(self.objects[path].values()) + "]}"

    def watch(self, request, path, with_objects):
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.flush()
        with self.lock:
            if with_objects:
                self.stream_objects(request, path)
            self.watchers[path].append(request.wfile)
        try:
            request.connection.recv(1)  # until the client goes: it has nothing more to say
        except OSError:
            pass
        with self.lock:
            self.watchers[path].remove(request.wfile)
        request.close_connection = True

    def stream_objects(self, request, path):
        piece, size = [], 0
        for text in [*(told("ADDED", text) for text in self.objects[path].values()), self.end_of_objects(path)]:
            piece.append(text)
            size += len(text)
            if size > PIECE:
                send(request.wfile, "".join(piece))
                piece, size = [], 0
        if piece:  # an empty chunk would be the end
            send(request.wfile, "".join(piece))

    def end_of_objects(self, path):
        version, kind = KINDS[path]
        meta = {"resourceVersion": str(self.version), "annotations": {"k8s.io/initial-events-end": "true"}}
        found = {"apiVersion": version, "kind": kind, "metadata": meta}
        return told("BOOKMARK", json.dumps(found))


def told(event, text):
    return f'{{"type":"{event}","object":{text}}}\n'


def status(code, message):
    found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return json.dumps(found)


def reply(request, code, text):
    body = text.encode()
    request.send_response(code)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
    request.wfile.flush()


def send(stream, text):
    """One chunk of a stream; a watcher that is gone is noticed elsewhere."""
    body = text.encode()
    try:
        stream.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        stream.flush()
    except OSError:
        pass


if __name__ == "__main__":
    empty = Api({CIDRS: [CIDR]})
    print(empty.port, flush=True)
    empty.serve()
