//! The section `conntrack`: what the node's connection tracking should be set to. PURE.

use std::time::Duration;

use super::error::ConfigError;
use super::fields::{Section, flag, number, span};

/// `conntrack`. Zero, or false, leaves the setting of the kernel alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// `maxPerCore`: entries of the table for each core. With zero `min` is ignored as well.
    pub max_per_core: u32,
    /// `min`: the least number of entries.
    pub min: u32,
    /// `tcpEstablishedTimeout`.
    pub tcp_established: Duration,
    /// `tcpCloseWaitTimeout`.
    pub tcp_close_wait: Duration,
    /// `tcpBeLiberal`: packets outside of the window are not invalid.
    pub tcp_be_liberal: bool,
    /// `udpTimeout`: of flows without a reply.
    pub udp: Duration,
    /// `udpStreamTimeout`: of flows that go both ways.
    pub udp_stream: Duration,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: 32_768,
            min: 131_072,
            tcp_established: Duration::from_secs(24 * 3600),
            tcp_close_wait: Duration::from_secs(3600),
            tcp_be_liberal: false,
            udp: Duration::ZERO,
            udp_stream: Duration::ZERO,
        }
    }
}

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>) -> Result<Conntrack, ConfigError> {
    let default = Conntrack::default();
    let mut count = |name, default| {
        let value = section.get(name, number(0, i32::MAX))?;
        Ok(value.map_or(default, i32::unsigned_abs))
    };
    let (max_per_core, min) = (count("maxPerCore", default.max_per_core)?, count("min", default.min)?);
    let gone = "has no effect: kube-proxy has removed this field; set conntrack.maxPerCore and conntrack.min";
    section.unused("max", number(0, i32::MAX), &[0], gone)?;
    let mut timeout = |name, default| Ok(section.get(name, span)?.unwrap_or(default));
    Ok(Conntrack {
        max_per_core,
        min,
        tcp_established: timeout("tcpEstablishedTimeout", default.tcp_established)?,
        tcp_close_wait: timeout("tcpCloseWaitTimeout", default.tcp_close_wait)?,
        udp: timeout("udpTimeout", default.udp)?,
        udp_stream: timeout("udpStreamTimeout", default.udp_stream)?,
        tcp_be_liberal: section.get("tcpBeLiberal", flag)?.unwrap_or_default(),
    })
}
