#!/usr/bin/env python3
"""The part of scripts/bench --kubeconfig that stays outside of the namespaces in which it measures, because
there the API server can be reached, and because it has to clean up whatever becomes of the rest.

It makes a namespace object and a Node object, prints `ready`, leads connections of the rest to the server
(tunnel.py), and when the rest has ended, in whatever way, removes everything that was made.
"""

import argparse
import json
import os
import secrets
import select
import signal
import socket
import ssl
import sys
import time

import access
import cluster
import tunnel

LABEL, VALUE = "app.kubernetes.io/managed-by", "shunt-bench"
WORKERS = 8  # connections that remove objects at the same time
CONTROLLERS_HEAD_START = 3  # seconds after which a controller has seen a namespace for sure
CONTROLLERS_LIMIT = 90  # seconds that a namespace controller may take to empty the namespace
FILLED = (
    "/api/v1/namespaces/{}/services",
    "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "/apis/events.k8s.io/v1/namespaces/{}/events",
)
NAMESPACES, NODES, EVENTS = "/api/v1/namespaces", "/api/v1/nodes", "/api/v1/namespaces/default/events"


def main():
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they end the rest, which we see
    parent = os.getppid()
    try:
        found = access.read(options.kubeconfig)
        place = Place(found)
        place.check()
    except access.Unusable as error:
        sys.exit(f"bench: {options.kubeconfig}: {error}")
    except (access.Refused, OSError) as error:
        sys.exit(f"bench: {options.kubeconfig}: {found.server}: {reason(error)}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(os.path.join(options.folder, "outside"))
    listener.listen(1)
    place.client.patience = access.PATIENCE
    try:
        place.make()
        with open(os.path.join(options.folder, "access.json"), "w", encoding="utf-8") as file:
            json.dump({"access": vars_of(found), "name": place.name}, file)
        print("ready", flush=True)
        control = accept(listener, os.path.join(options.folder, "outside"), parent)
        if control:
            tunnel.serve(control, (found.host, found.port))
    except (access.Refused, OSError) as error:
        print(f"bench: {found.server}: {reason(error)}", file=sys.stderr)
    finally:
        place.remove()


def parse():
    parser = argparse.ArgumentParser(prog="outside.py", description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--folder", required=True, help="of our own, for a socket and the credentials")
    return parser.parse_args()


def vars_of(found):
    names = ("server", "ca", "server_name", "insecure", "token", "certificate", "key")
    return {name: getattr(found, name) for name in names}


def accept(listener, path, parent):
    """The connection of the rest, or None where whoever started us is gone, or has taken the socket away, before it
    came."""
    while not select.select([listener], [], [], 1)[0]:
        if os.getppid() != parent or not os.path.exists(path):
            return None
    return listener.accept()[0]


def reason(error):
    """What went wrong, and what to do where that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message} (certificate-authority of the kubeconfig)"
    if isinstance(error, access.Refused) and error.status == 401:
        return f"it does not know us ({error.said}): token or client certificate of the kubeconfig may have expired"
    if isinstance(error, access.Refused) and error.status == 403:
        return f"{error.said}: the bench makes and removes a namespace, a Node, Services, EndpointSlices, and Events"
    return str(error)


class Place:
    """A namespace and a Node of the same name, which are ours alone."""

    def __init__(self, found):
        self.make_client = lambda: access.Client(found, lambda: access.dial(found))
        self.client = self.make_client()
        self.client.patience = 0  # a wrong address is told at once
        self.access, self.name = found, f"{VALUE}-{secrets.token_hex(3)}"

    def check(self):
        """Raises Unusable where another run's objects are, or anything has our name."""
        others = self.client.ask("GET", f"{NAMESPACES}?labelSelector={LABEL}%3D{VALUE}")["items"]
        if others:
            name = others[0]["metadata"]["name"]
            raise access.Unusable(
                f"on {self.access.server} another bench runs, or left its namespace {name}: wait for it, or remove it "
                f"with: kubectl delete services,endpointslices --all -n {name}; "
                f"kubectl delete --ignore-not-found namespace/{name} node/{name}"
            )
        for path in (NAMESPACES, NODES):
            try:
                self.client.ask("GET", f"{path}/{self.name}")
            except access.Refused as error:
                if error.status == 404:
                    continue
                raise
            raise access.Unusable(f"{path}/{self.name} is on the server already, and is not ours")

    def make(self):
        meta = {"name": self.name, "labels": {LABEL: VALUE}}
        self.client.ask("POST", NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        say(f"namespace and Node {self.name} on {self.access.server}: they are removed with all that is in them")
        self.client.ask("POST", NODES, node_object(self.name, meta))

    def remove(self):
        """Everything that carries our name. What cannot be removed is said, and the rest is tried."""
        start = time.monotonic()
        selector = f"?fieldSelector=involvedObject.name%3D{self.name}"
        try:
            # twice: a write that was on its way may have arrived behind us
            counts = [self.try_to(self.remove_all, path.format(self.name)) for path in FILLED + FILLED]
            counts.append(self.try_to(self.remove_all, EVENTS, selector))
            self.try_to(self.client.delete, f"{NODES}/{self.name}")
            self.try_to(self.remove_namespace)
        except OSError as error:
            say(f"{self.access.server} cannot be reached ({error}): namespace and Node {self.name} are still there")
            return
        left = sum(filter(None, counts))
        say(f"removed {self.name}, and {left} objects that were left of it, in {time.monotonic() - start:.1f} s")

    def try_to(self, what, *arguments):
        try:
            return what(*arguments)
        except access.Refused as error:
            if error.status != 404:
                say(f"cannot remove something of {self.name}: {reason(error)}")
            return None

    def remove_all(self, path, selector=""):
        """Removes the objects in a collection, page by page, over several connections; returns how many."""
        count = 0
        while True:
            page = self.client.ask("GET", f"{path}{selector or '?'}&limit=5000")
            names = [item["metadata"]["name"] for item in page["items"]]
            if not names:
                return count
            access.parallel(self.make_client, names, lambda client, name: client.delete(f"{path}/{name}"), WORKERS)
            count += len(names)

    def remove_namespace(self):
        """Deletes the namespace. On a server without controllers nobody ends it but we."""
        path = f"{NAMESPACES}/{self.name}"
        controlled = self.has_controllers()
        self.client.delete(path)
        deadline = time.monotonic() + (CONTROLLERS_LIMIT if controlled else 0)
        while True:
            try:
                namespace = self.client.ask("GET", path)
            except access.Refused as error:
                if error.status == 404:
                    return
                raise
            if time.monotonic() >= deadline:
                break
            time.sleep(0.5)
        if controlled:
            say(f"namespace {self.name} is being removed by the cluster's controllers, and is not gone yet")
            return
        namespace["spec"] = {"finalizers": []}
        self.client.ask("PUT", f"{path}/finalize", namespace)

    def has_controllers(self):
        """Whether a controller has put into the namespace what it puts into each, or may have."""
        deadline = time.monotonic() + CONTROLLERS_HEAD_START
        while True:
            try:
                self.client.ask("GET", f"/api/v1/namespaces/{self.name}/serviceaccounts/default")
            except access.Refused as error:
                if error.status == 404 and time.monotonic() < deadline:
                    time.sleep(0.5)
                    continue
                return error.status != 404
            return True


def node_object(name, meta):
    """Our node, to which nothing is ever scheduled. kube-proxy waits for one with an address."""
    taints = [{"key": VALUE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    addresses = [{"type": "InternalIP", "address": cluster.NODE_ADDRESS}, {"type": "Hostname", "address": name}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta,
        "spec": {"unschedulable": True, "taints": taints},
        "status": {"addresses": addresses},
    }


def say(what):
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
