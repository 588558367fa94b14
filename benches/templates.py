"""The objects of a made-up cluster, as `kubectl get -o yaml` and `-o json` show them, for string.Template."""

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels:
    app: ${name}
  name: ${name}
  namespace: bench
  resourceVersion: "${version}"
  uid: 00000000-0000-4000-8000-${uid}
spec:
  clusterIP: ${address}
  clusterIPs:
  - ${address}
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
    app: ${name}
  sessionAffinity: None
  type: ClusterIP
status:
  loadBalancer: {}
"""

SLICE = """\
addressType: IPv4
apiVersion: discovery.k8s.io/v1
endpoints:
${endpoints}kind: EndpointSlice
metadata:
  creationTimestamp: "2026-01-01T00:00:00Z"
  generateName: ${name}-
  labels:
    app: ${name}
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
    kubernetes.io/service-name: ${name}
  name: ${slice}
  namespace: bench
  resourceVersion: "${version}"
  uid: 00000000-0000-4000-9000-${uid}
ports:
- name: http
  port: 8080
  protocol: TCP
"""

ENDPOINT = """\
- addresses:
  - ${address}
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: ${node}
  targetRef:
    kind: Pod
    name: ${name}-${number}
    namespace: bench
    uid: 00000000-0000-4000-a000-${uid}
  zone: zone-${zone}
"""

SERVICE_JSON = """\
{
  "apiVersion": "v1",
  "kind": "Service",
  "metadata": {
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {
      "app": "${name}"
    },
    "name": "${name}",
    "namespace": "bench",
    "resourceVersion": "${version}",
    "uid": "00000000-0000-4000-8000-${uid}"
  },
  "spec": {
    "clusterIP": "${address}",
    "clusterIPs": [
      "${address}"
    ],
    "internalTrafficPolicy": "Cluster",
    "ipFamilies": [
      "IPv4"
    ],
    "ipFamilyPolicy": "SingleStack",
    "ports": [
      {
        "name": "http",
        "port": 80,
        "protocol": "TCP",
        "targetPort": 8080
      }
    ],
    "selector": {
      "app": "${name}"
    },
    "sessionAffinity": "None",
    "type": "ClusterIP"
  },
  "status": {
    "loadBalancer": {}
  }
}
"""

SLICE_JSON = """\
{
  "addressType": "IPv4",
  "apiVersion": "discovery.k8s.io/v1",
  "endpoints": [${endpoints}],
  "kind": "EndpointSlice",
  "metadata": {
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "generateName": "${name}-",
    "labels": {
      "app": "${name}",
      "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
      "kubernetes.io/service-name": "${name}"
    },
    "name": "${slice}",
    "namespace": "bench",
    "resourceVersion": "${version}",
    "uid": "00000000-0000-4000-9000-${uid}"
  },
  "ports": [
    {
      "name": "http",
      "port": 8080,
      "protocol": "TCP"
    }
  ]
}
"""

ENDPOINT_JSON = """\
{
  "addresses": [
    "${address}"
  ],
  "conditions": {
    "ready": true,
    "serving": true,
    "terminating": false
  },
  "nodeName": "${node}",
  "targetRef": {
    "kind": "Pod",
    "name": "${name}-${number}",
    "namespace": "bench",
    "uid": "00000000-0000-4000-a000-${uid}"
  },
  "zone": "zone-${zone}"
}"""
