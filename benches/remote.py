"""The made-up cluster on an API server, in one namespace: written there, changed there, taken back.

Nobody's address is used: pods are in 240.0.0.0/4, which is reserved, and where the server gives ClusterIPs away
by itself they are what it gave. So a server accepts all of it, and no traffic can go wrong.
"""

import functools
import ipaddress
import json
import select
import sys
import time

import access
import changes
import cluster
import nftnews

PODS = ipaddress.ip_network("240.0.0.0/9")
SERVICES, SLICES = "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"
CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
WORKERS = 8  # connections that write at the same time


class Remote:
    """What there is of one size of cluster on a server."""

    def __init__(self, services, endpoints, namespace, connect):
        self.made_up = cluster.Cluster("", services, endpoints, cluster.Json, PODS)
        self.namespace, self.connect = namespace, connect  # `connect` makes a Client
        self.given = None  # whether the server itself chooses ClusterIPs
        self.cluster_ips = {}  # by number of the Service
        self.addresses = {}  # of the endpoints, by number of the Service
        self.changed = set()  # the Services whose endpoints are not those of the beginning

    @functools.cached_property
    def client(self):
        return self.connect()

    def numbers(self):
        return [*range(self.made_up.services), cluster.ROLLED]

    def first_slice(self, number):
        """The slice of a Service as long as nothing was changed."""
        if number == cluster.ROLLED:
            return changes.rolled(self.made_up, 0).slice
        return self.made_up.endpoint_slice(number)

    def service(self, number):
        found = json.loads(self.made_up.service(number))
        spec = found["spec"]
        del spec["selector"]  # with one, a controller would empty the slices
        if self.given:
            del spec["clusterIP"], spec["clusterIPs"]
        return {**found, "metadata": self.meta(found), "status": {"loadBalancer": {}}}

    def slice(self, text):
        found = json.loads(text)
        meta = self.meta(found)
        meta["labels"] |= {
            "endpointslice.kubernetes.io/managed-by": "shunt-bench",
            "kubernetes.io/service-name": found["metadata"]["labels"]["kubernetes.io/service-name"],
        }
        for endpoint in found["endpoints"]:
            endpoint["targetRef"]["namespace"] = self.namespace
        return {**found, "metadata": meta}

    def meta(self, found):
        meta = found["metadata"]
        labels = {"app": meta["labels"]["app"], "app.kubernetes.io/managed-by": "shunt-bench"}
        return {"name": meta["name"], "namespace": self.namespace, "labels": labels}

    def objects(self):
        """All of it as objects, for a server that begins with them."""
        self.given = False
        services, slices = [], []
        for number in self.numbers():
            self.cluster_ips[number] = str(cluster.service_address(number))
            services.append(self.service(number))
            slices.append(self.slice(self.first_slice(number)))
            self.addresses[number] = addresses(slices[-1])
        return services, slices

    # --- on a server that is filled ------------------------------------------------------------------

    def fill(self, further):
        """Writes all of it; `further` is how many Services will be added later. Seconds that it took."""
        start = time.perf_counter()
        self.check_room(len(self.numbers()) + further)
        # the first one shows whether the server chooses addresses
        self.given = True
        first, *others = self.numbers()
        try:
            self.create(self.client, first)
        except access.Refused as error:
            if error.status not in (400, 422) or "clusterIP" not in error.said:
                raise
            self.cluster_ips[first] = None
        if not self.cluster_ips[first]:
            self.given = False
            self.client.delete(self.path(SERVICES, cluster.service_name(first)))
            self.check_addresses()
            self.create(self.client, first)
        access.parallel(self.connect, others, self.create, WORKERS)
        return time.perf_counter() - start

    def create(self, client, number):
        self.cluster_ips[number] = self.post(client, SERVICES, self.service(number))["spec"].get("clusterIP")
        if self.cluster_ips[number]:
            found = self.slice(self.first_slice(number))
            self.post(client, SLICES, found)
            self.addresses[number] = addresses(found)

    def post(self, client, collection, wanted):
        """Creates an object; what is there already is what a request left whose answer got lost."""
        try:
            return client.ask("POST", self.path(collection), wanted)
        except access.Refused as error:
            if error.status != 409:
                raise
        return client.ask("GET", self.path(collection, wanted["metadata"]["name"]))

    def check_room(self, needed):
        """Ends the bench where the server has not enough ClusterIPs for so many Services."""
        try:
            cidrs = self.client.ask("GET", CIDRS)["items"]
        except access.Refused:
            return  # an older server: it will say so itself
        ranges = [cidr for item in cidrs for cidr in item["spec"]["cidrs"] if "." in cidr]
        taken = len(self.client.ask("GET", SERVICES)["items"])
        room = sum(ipaddress.ip_network(cidr).num_addresses - 2 for cidr in ranges) - taken
        if ranges and room < needed:
            sys.exit(
                f"bench: the server has room for {room} more Services in {', '.join(ranges)} (ServiceCIDRs), and "
                f"{needed} are needed: measure a smaller size, make --changes smaller, or add a ServiceCIDR"
            )

    def check_addresses(self):
        """Ends the bench where Services of others have addresses that ours would have."""
        for item in self.client.ask("GET", SERVICES)["items"]:
            address = item["spec"].get("clusterIP", "None")
            if address != "None" and ipaddress.ip_address(address) in cluster.SERVICE_CIDR:
                name = "{namespace}/{name}".format(**item["metadata"])
                sys.exit(
                    f"bench: Service {name} has {address}: the bench needs {cluster.SERVICE_CIDR} for itself on a "
                    "server that does not choose ClusterIPs"
                )

    def empty(self):
        """Removes all Services and slices of ours, for another size."""
        for collection in (SERVICES, SLICES):
            names = [item["metadata"]["name"] for item in self.client.ask("GET", self.path(collection))["items"]]
            access.parallel(
                self.connect, names, lambda client, name: client.delete(self.path(collection, name)), WORKERS
            )

    # --- changes ---------------------------------------------------------------------------------------

    def put_slice(self, client, number, text):
        found = self.slice(text)
        client.ask("PUT", self.path(SLICES, cluster.slice_name(number)), found)
        self.addresses[number] = addresses(found)

    def replace_some(self, numbers, offset):
        """Another endpoint in each of these Services; `offset` makes the addresses others than last time."""

        def replace(client, number):
            address = self.made_up.replacement_address(offset + number)
            self.put_slice(client, number, self.made_up.endpoint_slice(number, address))

        access.parallel(self.connect, numbers, replace, WORKERS)
        self.changed.update(numbers)

    def restore(self):
        """Makes everything what it was when it was filled."""

        def put_back(client, number):
            self.put_slice(client, number, self.first_slice(number))

        access.parallel(self.connect, self.changed, put_back, WORKERS)
        self.changed.clear()

    def pods(self):
        """The addresses of all endpoints that there are now, as text."""
        return {address for of_service in self.addresses.values() for address in of_service}

    def path(self, collection, name=None):
        head, _, kind = collection.rpartition("/")
        path = f"{head}/namespaces/{self.namespace}/{kind}"
        return f"{path}/{name}" if name else path


class Writes:
    """Changes as writes to the server, by one connection."""

    def __init__(self, program, remote):
        self.program, self.remote = program, remote
        self.client, self.news = remote.connect(), nftnews.News()
        self.client.ask("GET", remote.path(SERVICES, cluster.service_name(0)))  # connected

    def close(self):
        self.client.close()
        self.news.close()

    def make(self, change):
        """One write: seconds from the server's answer until the kernel's news of the commit that holds what
        is new. Less than nothing where the server tells its watchers first."""
        remote, number = self.remote, change.number
        if change.what == changes.GONE:
            cluster_ip, name = remote.cluster_ips.pop(number), cluster.service_name(number)
            made, _ = self.timed("DELETE", remote.path(SERVICES, name), None, [ipaddress.ip_address(cluster_ip)])
            self.client.delete(remote.path(SLICES, cluster.slice_name(number)))
            del remote.addresses[number]
            return made
        found = remote.slice(change.slice)
        if change.what == changes.SLICE:
            made, _ = self.timed("PUT", remote.path(SLICES, cluster.slice_name(number)), found, change.addresses)
            remote.changed.add(number)
        else:
            # the slice first: without its Service it means nothing yet
            remote.post(self.client, SLICES, found)
            made, service = self.timed("POST", remote.path(SERVICES), remote.service(number), change.addresses)
            remote.cluster_ips[number] = service["spec"]["clusterIP"]
        remote.addresses[number] = addresses(found)
        return made

    def timed(self, method, path, body, addresses):
        """One request, and the commit that mentions these addresses."""
        self.news.so_far()
        sought = nftnews.Sought(address.packed for address in addresses)
        asked, answered, answer = time.perf_counter(), None, None
        deadline = asked + self.program.limit
        self.client.send(method, path, body)
        while not (answered and sought.done):
            waiting = [self.news] if answered else [self.news, self.client]
            ready = select.select(waiting, [], [], max(0, deadline - time.perf_counter()))[0]
            if not ready:
                self.program.fail(f"{method} {path}: not in the kernel after {self.program.limit} s")
            if self.client in ready:
                answered = time.perf_counter()
                answer = self.client.answer(method, path)
            if self.news in ready:
                try:
                    sought.take(*self.news.receive())
                except OSError as error:  # ENOBUFS
                    sys.exit(f"bench: the kernel tells more of one change than its buffer holds ({error}): run it as root")
        return changes.Made(sought.done - answered, sought.counts, sought.done - asked), answer


def addresses(endpoint_slice):
    return [address for endpoint in endpoint_slice["endpoints"] for address in endpoint["addresses"]]
