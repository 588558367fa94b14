"""Makes up clusters: folders of manifests with so many Services and so many endpoints each.

One object to a file, with the fields that `kubectl get -o yaml` shows, so that reading them costs what
it costs in life. The same size gives the same files, byte by byte.
"""

import ipaddress
import os
import string

import templates

NODE = "node-1"
NODE_ADDRESS = "192.168.1.10"
CLUSTER_CIDR = ipaddress.ip_network("10.128.0.0/9")
OTHER_PODS = ipaddress.ip_network("10.128.0.0/10")  # where the pods of the other nodes have their addresses
SERVICE_CIDR = ipaddress.ip_network("10.64.0.0/12")
PODS_PER_NODE = 110  # the kubelet's default limit; every 110th pod starts a new node

ADDED = 60_000  # the first Service that is added while shunt runs
ROLLED = 69_000  # the Service whose pods are rolled

CONFIG = f"""\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {NODE}
detectLocalMode: ClusterCIDR
clusterCIDR: {CLUSTER_CIDR}
metricsBindAddress: 127.0.0.1:10249
"""

NODE_MANIFEST = f"""\
apiVersion: v1
kind: Node
metadata:
  name: {NODE}
  labels:
    kubernetes.io/hostname: {NODE}
    topology.kubernetes.io/zone: zone-0
status:
  addresses:
  - address: {NODE_ADDRESS}
    type: InternalIP
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata:
  name: kubernetes
spec:
  cidrs:
  - {SERVICE_CIDR}
"""


class Yaml:
    """Manifests as YAML files."""

    extension = "yaml"
    service = string.Template(templates.SERVICE)
    endpoint_slice = string.Template(templates.SLICE)
    endpoint = string.Template(templates.ENDPOINT)

    @staticmethod
    def list_of(endpoints):
        return "".join(endpoints)

    @staticmethod
    def together(objects):
        return "---\n".join(objects)


class Json:
    """The same as JSON files."""

    extension = "json"
    service = string.Template(templates.SERVICE_JSON)
    endpoint_slice = string.Template(templates.SLICE_JSON)
    endpoint = string.Template(templates.ENDPOINT_JSON)

    @staticmethod
    def list_of(endpoints):
        return ", ".join(endpoints)

    @staticmethod
    def together(objects):
        return '{"apiVersion": "v1", "kind": "List", "items": [' + ", ".join(objects) + "]}\n"


STYLES = {"yaml": Yaml, "json": Json}


def service_name(number):
    return f"service-{number:05}"


def slice_name(number):
    return f"{service_name(number)}-x7k2p"


def service_address(number):
    return SERVICE_CIDR[256 + number]


class Cluster:
    """A made-up cluster in a folder."""

    def __init__(self, folder, services, endpoints, style=Yaml, pods=CLUSTER_CIDR):
        self.folder, self.services, self.endpoints, self.style = folder, services, endpoints, style
        self.pods = pods

    def write(self):
        """Writes the manifests of all of it into a folder that does not exist; returns how many bytes they are."""
        os.makedirs(self.folder)
        size = put(os.path.join(self.folder, "node.yaml"), NODE_MANIFEST)
        for number in range(self.services):
            size += put(self.service_path(number), self.service(number))
            size += put(self.slice_path(number), self.endpoint_slice(number))
        return size

    def service_path(self, number):
        return os.path.join(self.folder, f"service-{number:05}.{self.style.extension}")

    def slice_path(self, number):
        return os.path.join(self.folder, f"slice-{number:05}.{self.style.extension}")

    def pod_address(self, number, index):
        """The address of one endpoint of Service `number`, as long as nothing is changed."""
        return self.pods[65536 + number * self.endpoints + index]

    def more_address(self, number, index):
        """The address of the endpoint that comes to Service `number` as the `index`th behind its own."""
        return self.pods[3_400_000 + number + 50_000 * index]

    def replacement_address(self, number):
        return self.pods[1 + number % 65000]  # the first network is kept free of pods

    def steady_address(self, number):
        return self.pods[3_800_000 + number]  # beyond every pod, and each only once

    def service(self, number):
        return self.style.service.substitute(
            name=service_name(number), uid=uid(number), version=1000 + number, address=service_address(number)
        )

    def endpoint_slice(self, number, replaced_by=None, version=1, more=0):
        """The slice of Service `number`; with `replaced_by` its last endpoint has that address instead, and
        `more` come behind it."""
        addresses = [self.pod_address(number, index) for index in range(self.endpoints)]
        addresses += [self.more_address(number, index) for index in range(more)]
        if replaced_by:
            addresses[self.endpoints - 1] = replaced_by
        return self.slice_of(number, addresses, version)

    def rolled_addresses(self, endpoints, rolled):
        """The pods of the Service that is rolled, after so many of them, one after the other, got a new address."""
        return [
            self.pods[3_600_000 + index + endpoints * ((rolled + endpoints - 1 - index) // endpoints)]
            for index in range(endpoints)
        ]

    def slice_of(self, number, addresses, version):
        rows = []
        for pod, address in enumerate(addresses, number * self.endpoints):
            node = 2 + pod // PODS_PER_NODE  # all on other nodes
            rows.append(
                self.style.endpoint.substitute(
                    address=address,
                    node=f"node-{node}",
                    name=service_name(number),
                    number=pod,
                    uid=uid(pod),
                    zone=node % 3,
                )
            )
        return self.style.endpoint_slice.substitute(
            name=service_name(number),
            slice=slice_name(number),
            uid=uid(number),
            version=1000 + number + version,
            endpoints=self.style.list_of(rows),
        )


def uid(number):
    """The end of a uid; what it begins with tells the kind of object."""
    return f"{number:012x}"


def put(path, text):
    with open(path, "w", encoding="ascii") as file:
        return file.write(text)
