//! Our Node, and ServiceCIDRs. PURE.

use std::net::IpAddr;

use super::{Context, Converted, Report, label};
use crate::model::{Kind, Node, Object, Zone};
use crate::source::objects::{self, Spec, Status};

/// Which zone a node is in.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The taint of a node that the cluster autoscaler is about to delete (KEP-3836).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

impl Context {
    /// A Node; all but our own come to nothing. `podCIDRs` falls back to `podCIDR`.
    #[must_use]
    pub fn node(&self, object: &objects::Node) -> Converted {
        let mut report = Report::new(Kind::Node, &object.metadata);
        let Some(name) = report.name() else { return report.nothing() };
        if name != &*self.node_name.0 {
            return report.nothing();
        }
        let (no_spec, no_status) = (Spec::default(), Status::default());
        let spec = report.value(&object.spec, format_args!("spec")).unwrap_or(&no_spec);
        let status = report.value(&object.status, format_args!("status")).unwrap_or(&no_status);
        let zone = label(&object.metadata, ZONE).filter(|zone| !zone.is_empty());
        let taints = report.elements(&spec.taints, format_args!("spec.taints"));
        let tainted = taints.iter().any(|(_, taint)| taint.key.text() == TO_BE_DELETED);
        let node = Node {
            zone: zone.map(|zone| Zone(zone.into())),
            addresses: report.node_addresses(status),
            pod_cidrs: report.pod_cidrs(spec),
            leaving: tainted || object.metadata.deletion_timestamp.is_some(),
        };
        report.set(Object::Node(node))
    }

    /// A ServiceCIDR. One that is being deleted counts until it is gone: its addresses may be in use.
    #[must_use]
    pub fn service_cidr(&self, object: &objects::ServiceCidr) -> Converted {
        let mut report = Report::new(Kind::ServiceCidr, &object.metadata);
        let Some(name) = report.name() else { return report.nothing() };
        let no_spec = Spec::default();
        let spec = report.value(&object.spec, format_args!("spec")).unwrap_or(&no_spec);
        let cidrs = report.nets(&spec.cidrs, format_args!("spec.cidrs"));
        report.set(Object::ServiceCidr(name.into(), cidrs))
    }
}

impl Report<'_> {
    /// Internal addresses, then external ones; other types are names.
    fn node_addresses(&mut self, status: &Status) -> Box<[IpAddr]> {
        let given = self.elements(&status.addresses, format_args!("status.addresses"));
        let mut addresses = Vec::new();
        for kind in ["InternalIP", "ExternalIP"] {
            for (index, given) in given.iter().filter(|(_, given)| given.kind.text() == kind) {
                let path = format_args!("status.addresses[{index}].address");
                let text = self.text(&given.address, path);
                // the same address as internal and external one is usual
                addresses.extend(self.ip(text, path).filter(|ip| !addresses.contains(ip)));
            }
        }
        addresses.into()
    }

    fn pod_cidrs(&mut self, spec: &Spec) -> Box<[ipnet::IpNet]> {
        let cidrs = self.nets(&spec.pod_cidrs, format_args!("spec.podCIDRs"));
        let given = spec.pod_cidrs.get().is_some_and(|list| !list.is_empty());
        let first = self.text(&spec.pod_cidr, format_args!("spec.podCIDR"));
        if given || first.is_empty() {
            return cidrs;
        }
        let cidr = super::parse_net(first);
        if cidr.is_none() {
            let what = format_args!("{first:?} is not a CIDR: left out");
            self.problem(format_args!("spec.podCIDR"), what);
        }
        cidr.into_iter().collect()
    }
}
