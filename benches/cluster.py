"""Makes up clusters: folders of manifests with so many Services and so many endpoints each.

One object to a file, with the fields that `kubectl get -o yaml` shows, so that reading them costs what
it costs in life. The same size gives the same files, byte by byte.
"""

import ipaddress
import os

NODE = "node-1"
NODE_ADDRESS = "192.168.1.10"
CLUSTER_CIDR = ipaddress.ip_network("10.128.0.0/9")
SERVICE_CIDR = ipaddress.ip_network("10.64.0.0/12")
PODS_PER_NODE = 110  # the kubelet's default limit; every 110th pod starts a new node

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

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels:
    app: {name}
  name: {name}
  namespace: bench
  resourceVersion: "{version}"
  uid: 00000000-0000-4000-8000-{number:012x}
spec:
  clusterIP: {address}
  clusterIPs:
  - {address}
  internalTrafficPolicy: Cluster
  ipFamilies:
  - IPv4
  ipFamilyPolicy: SingleStack
  ports:
  - name: http
    port: 80
    protocol: TCP
    targetPort: 8080
  selector:
    app: {name}
  sessionAffinity: None
  type: ClusterIP
status:
  loadBalancer: {{}}
"""

SLICE = """\
addressType: IPv4
apiVersion: discovery.k8s.io/v1
endpoints:
{endpoints}kind: EndpointSlice
metadata:
  creationTimestamp: "2026-01-01T00:00:00Z"
  generateName: {name}-
  labels:
    app: {name}
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
    kubernetes.io/service-name: {name}
  name: {name}-x7k2p
  namespace: bench
  resourceVersion: "{version}"
  uid: 00000000-0000-4000-9000-{number:012x}
ports:
- name: http
  port: 8080
  protocol: TCP
"""

ENDPOINT = """\
- addresses:
  - {address}
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: {node}
  targetRef:
    kind: Pod
    name: {name}-{number}
    namespace: bench
    uid: 00000000-0000-4000-a000-{number:012x}
  zone: zone-{zone}
"""


def service_name(number):
    return f"service-{number:05}"


def pod_address(number):
    # the first network is kept free: replacements take their addresses from it
    return CLUSTER_CIDR[65536 + number]


def replacement_address(number):
    return CLUSTER_CIDR[1 + number % 65000]


def service(number):
    return SERVICE.format(
        name=service_name(number), number=number, version=1000 + number, address=SERVICE_CIDR[256 + number]
    )


def endpoint_slice(number, endpoints, replaced_by=None, version=1):
    """The slice of Service `number`; with `replaced_by` its last endpoint has that address instead."""
    rows = []
    for index in range(endpoints):
        pod = number * endpoints + index
        last = index == endpoints - 1
        address = replaced_by if replaced_by and last else pod_address(pod)
        node = 2 + pod // PODS_PER_NODE  # all on other nodes
        rows.append(
            ENDPOINT.format(
                address=address, node=f"node-{node}", name=service_name(number), number=pod, zone=node % 3
            )
        )
    return SLICE.format(
        name=service_name(number), number=number, version=1000 + number + version, endpoints="".join(rows)
    )


def slice_path(folder, number):
    return os.path.join(folder, f"slice-{number:05}.yaml")


def write(folder, services, endpoints):
    """Writes the manifests of a whole cluster into an empty folder; returns how many bytes they are."""
    os.makedirs(folder)
    size = put(os.path.join(folder, "node.yaml"), NODE_MANIFEST)
    for number in range(services):
        size += put(os.path.join(folder, f"service-{number:05}.yaml"), service(number))
        size += put(slice_path(folder, number), endpoint_slice(number, endpoints))
    return size


def put(path, text):
    with open(path, "w", encoding="ascii") as file:
        return file.write(text)
