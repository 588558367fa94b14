//! The address book: cases name a place, the family decides which address that is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Every case runs for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// The namespaces of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ns {
    Node,
    Client,
    Pod1,
    Pod2,
    Pod3,
    Remote,
    Void,
}

pub const NAMESPACES: [Ns; 7] = [Ns::Node, Ns::Client, Ns::Pod1, Ns::Pod2, Ns::Pod3, Ns::Remote, Ns::Void];

/// A place that a packet comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The node's address in its Node object, on eth0, where the default route is.
    Node,
    /// A second address on eth0.
    Node2,
    /// The node's address on the veths of its pods.
    Gateway,
    /// The node's address on the link to the other node.
    Underlay,
    /// 127.0.0.1 and ::1, as the node sees them.
    Loopback,
    /// Outside clients, both in the namespace behind eth0.
    Client,
    Client2,
    /// A server in the outside world that has nothing to do with Services.
    Elsewhere,
    /// Pods on this node, each in a namespace of its own.
    Pod1,
    Pod2,
    Pod3,
    /// Pods on another node, all in one namespace.
    Remote1,
    Remote2,
    Remote3,
    Remote4,
    Remote5,
    Remote6,
    /// The endpoint of the sentinel Service, by which settling is observed.
    Beacon,
    /// The ClusterIP of the sentinel Service.
    Sentinel,
    /// A ClusterIP: 10.96.0.n, fd00:10:96::n.
    Cluster(u8),
    /// For external and load-balancer IPs: 203.0.113.n, 2001:db8:203::n. Nobody has them...
    Public(u8),
    /// ...except this one, which a server in the outside world has: 203.0.113.250.
    PublicTaken,
}

use Name::{
    Beacon, Client, Client2, Cluster, Elsewhere, Gateway, Loopback, Node, Node2, Pod1, Pod2, Pod3, Public,
    PublicTaken, Remote1, Remote2, Remote3, Remote4, Remote5, Remote6, Sentinel, Underlay,
};

/// All that answer on the ports of `lab::PORTS`.
pub const ENDPOINTS: [Name; 10] =
    [Pod1, Pod2, Pod3, Remote1, Remote2, Remote3, Remote4, Remote5, Remote6, Beacon];

/// What masquerading may turn a source into.
pub const NODE_ADDRESSES: [Name; 4] = [Node, Node2, Gateway, Underlay];

pub const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// Around the addresses of `Public(n)`.
pub const PUBLIC_CIDRS: [&str; 2] = ["203.0.113.0/24", "2001:db8:203::/64"];

impl Name {
    pub fn ip(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4()),
            Family::V6 => IpAddr::V6(self.v6()),
        }
    }

    pub fn at(self, port: u16, family: Family) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    fn v4(self) -> Ipv4Addr {
        let (net, host) = match self {
            Node => ([192, 168, 1], 10),
            Node2 => ([192, 168, 1], 11),
            Gateway => ([10, 244, 1], 1),
            Underlay => ([192, 168, 2], 10),
            Loopback => ([127, 0, 0], 1),
            Client => ([198, 51, 100], 7),
            Client2 => ([198, 51, 101], 8),
            Elsewhere => ([192, 0, 2], 1),
            Pod1 | Pod2 | Pod3 => ([10, 244, 1], self.index()),
            Remote1 | Remote2 | Remote3 | Remote4 | Remote5 | Remote6 | Beacon => {
                ([10, 244, 2], self.index())
            }
            Sentinel => ([10, 96, 255], 254),
            Cluster(n) => ([10, 96, 0], n),
            Public(n) => ([203, 0, 113], n),
            PublicTaken => ([203, 0, 113], 250),
        };
        Ipv4Addr::new(net[0], net[1], net[2], host)
    }

    fn v6(self) -> Ipv6Addr {
        let (net, host) = match self {
            Node => ([0x2001, 0xdb8, 1, 0], 0x10),
            Node2 => ([0x2001, 0xdb8, 1, 0], 0x11),
            Gateway => ([0xfd00, 0x10, 0x244, 1], 1),
            Underlay => ([0x2001, 0xdb8, 2, 0], 0x10),
            Loopback => ([0, 0, 0, 0], 1),
            Client => ([0x2001, 0xdb8, 0x100, 0], 7),
            Client2 => ([0x2001, 0xdb8, 0x101, 0], 8),
            Elsewhere => ([0x2001, 0xdb8, 0xe, 0], 1),
            Pod1 | Pod2 | Pod3 => ([0xfd00, 0x10, 0x244, 1], u16::from(self.index())),
            Remote1 | Remote2 | Remote3 | Remote4 | Remote5 | Remote6 | Beacon => {
                ([0xfd00, 0x10, 0x244, 2], u16::from(self.index()))
            }
            Sentinel => ([0xfd00, 0x10, 0x96, 0], 0xfffe),
            Cluster(n) => ([0xfd00, 0x10, 0x96, 0], u16::from(n)),
            Public(n) => ([0x2001, 0xdb8, 0x203, 0], u16::from(n)),
            PublicTaken => ([0x2001, 0xdb8, 0x203, 0], 0xfa),
        };
        Ipv6Addr::new(net[0], net[1], net[2], net[3], 0, 0, 0, host)
    }

    /// The last byte of a pod's addresses.
    fn index(self) -> u8 {
        match self {
            Pod1 => 5,
            Pod2 => 6,
            Pod3 => 7,
            Remote1 => 9,
            Remote2 => 10,
            Remote3 => 11,
            Remote4 => 12,
            Remote5 => 13,
            Remote6 => 14,
            _ => 250,
        }
    }

    /// Who holds the address; nobody holds the virtual ones.
    pub fn namespace(self) -> Option<Ns> {
        match self {
            Node | Node2 | Gateway | Underlay | Loopback => Some(Ns::Node),
            Client | Client2 | Elsewhere | PublicTaken => Some(Ns::Client),
            Pod1 => Some(Ns::Pod1),
            Pod2 => Some(Ns::Pod2),
            Pod3 => Some(Ns::Pod3),
            Remote1 | Remote2 | Remote3 | Remote4 | Remote5 | Remote6 | Beacon => Some(Ns::Remote),
            Sentinel | Cluster(_) | Public(_) => None,
        }
    }

    /// Where a packet to this address arrives if nobody touches it: virtual addresses lead to the void, so that a
    /// packet which slips through can be answered, and is not mistaken for one that was dropped.
    pub fn destination(self) -> Ns {
        self.namespace().unwrap_or(Ns::Void)
    }

    /// The name of the node that a pod is on.
    pub fn node_name(self) -> &'static str {
        if self.namespace() == Some(Ns::Remote) { "node-b" } else { THIS_NODE }
    }
}

/// `--node-name`.
pub const THIS_NODE: &str = "node-a";
