"""The shape that kube-proxy gives to the rules of its nftables mode, a chain for each Service and one for
each endpoint, written for the same made-up cluster. It is here so that connections can be compared without
a kube-proxy at hand."""

import cluster

HEAD = """\
table ip kube-proxy {{
	chain mark-for-masquerade {{
		mark set mark or 0x4000
	}}
	chain masquerading {{
		mark and 0x4000 == 0 return
		mark set mark xor 0x4000
		masquerade fully-random
	}}
	chain reject-chain {{
		reject
	}}
	set cluster-ips {{
		type ipv4_addr
		elements = {{ {cluster_ips} }}
	}}
	set nodeport-ips {{
		type ipv4_addr
		elements = {{ {node} }}
	}}
	map no-endpoint-services {{
		type ipv4_addr . inet_proto . inet_service : verdict
	}}
	map firewall-ips {{
		type ipv4_addr . inet_proto . inet_service : verdict
	}}
	map service-nodeports {{
		type inet_proto . inet_service : verdict
	}}
	chain service-endpoints-check {{
		ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}}
	chain firewall-check {{
		ip daddr . meta l4proto . th dport vmap @firewall-ips
	}}
	chain cluster-ips-check {{
		ip daddr @cluster-ips reject
		ip daddr {{ {service_cidr} }} drop
	}}
"""

SERVICE = """\
	chain {chain} {{
		ip daddr {address} tcp dport 80 ip saddr != {cluster_cidr} jump mark-for-masquerade
		numgen random mod {count} vmap {{ {choices} }}
	}}
"""

ENDPOINT = """\
	chain {chain} {{
		ip saddr {address} jump mark-for-masquerade
		meta l4proto tcp dnat to {address}:8080
	}}
"""

TAIL = """\
	map service-ips {{
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = {{ {services} }}
	}}
	chain services {{
		ip daddr . meta l4proto . th dport vmap @service-ips
		ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
	}}
	chain filter-prerouting-pre-dnat {{
		type filter hook prerouting priority -110; policy accept;
		ct state new jump firewall-check
	}}
	chain filter-output-pre-dnat {{
		type filter hook output priority -110; policy accept;
		ct state new jump firewall-check
	}}
	chain filter-input {{
		type filter hook input priority -110; policy accept;
		ct state new jump service-endpoints-check
	}}
	chain filter-forward {{
		type filter hook forward priority -110; policy accept;
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}}
	chain filter-output {{
		type filter hook output priority -90; policy accept;
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}}
	chain nat-prerouting {{
		type nat hook prerouting priority -100; policy accept;
		jump services
	}}
	chain nat-output {{
		type nat hook output priority -100; policy accept;
		jump services
	}}
	chain nat-postrouting {{
		type nat hook postrouting priority 100; policy accept;
		jump masquerading
	}}
}}
"""


def write(path, made_up):
    """Writes the rules, for `nft -f`."""
    addresses = [cluster.service_address(number) for number in range(made_up.services)]
    endpoints = made_up.endpoints
    with open(path, "w", encoding="ascii") as file:
        file.write(
            HEAD.format(
                cluster_ips=", ".join(map(str, addresses)),
                node=cluster.NODE_ADDRESS,
                service_cidr=cluster.SERVICE_CIDR,
            )
        )
        for number, address in enumerate(addresses):
            for index in range(endpoints):
                pod = made_up.pod_address(number, index)
                file.write(ENDPOINT.format(chain=f"endpoint-{number}-{index}", address=pod))
            file.write(
                SERVICE.format(
                    chain=f"service-{number}",
                    address=address,
                    cluster_cidr=cluster.CLUSTER_CIDR,
                    count=endpoints,
                    choices=", ".join(f"{index} : goto endpoint-{number}-{index}" for index in range(endpoints)),
                )
            )
        elements = (f"{address} . tcp . 80 : goto service-{number}" for number, address in enumerate(addresses))
        file.write(TAIL.format(services=", ".join(elements)))
