//! Opens the sockets that clients talk to. EDGE.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, UdpSocket};
use socket2::{Domain, Protocol as SocketProtocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};

use super::filter::{self, Gate, Instruction};
use super::slot::Listening;
use super::table::Binding;
use crate::desired::{Choice, Forwarding};
use crate::model::Protocol;

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Room for the datagrams of a burst; the kernel cuts it to `net.core.rmem_max`.
const DATAGRAM_BYTES: usize = 1024 * 1024;

/// What a frontend needs of its socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Stance {
    /// No socket: the kernel refuses, as for every other port of an address.
    Refuse,
    /// A socket that hears nobody: the caller is told nothing.
    Ignore,
    /// A socket that serves whom the gate lets through.
    Serve(Gate),
}

impl Stance {
    /// What a frontend needs. `pods` are the ranges that local pods have their addresses in, where
    /// addresses tell.
    #[must_use]
    pub fn of(forwarding: &Forwarding, pods: Option<&[ipnet::IpNet]>) -> Self {
        let sources = forwarding.allowed_sources.as_ref().map(|nets| nets.to_vec());
        let outside = forwarding.from_outside.as_ref();
        match (&forwarding.to, outside) {
            // Who may not call hears nothing, even where there is nothing to call.
            (Choice::Reject, None | Some(Choice::Reject)) if sources.is_none() => Self::Refuse,
            (Choice::Drop, None | Some(Choice::Drop)) => Self::Ignore,
            (_, Some(Choice::Drop)) => Self::Serve(Gate { sources, inside: pods.map(<[_]>::to_vec) }),
            _ => Self::Serve(Gate { sources, inside: None }),
        }
    }

    /// The filter of the socket, and whether it does all that is asked for.
    #[must_use]
    pub fn filter(&self) -> (Option<Vec<Instruction>>, bool) {
        match self {
            Self::Refuse => (None, true),
            Self::Ignore => (Some(filter::NOBODY.to_vec()), true),
            Self::Serve(gate) if *gate == Gate::default() => (None, true),
            Self::Serve(gate) => {
                let program = filter::program(gate);
                let complete = program.is_some();
                (program, complete)
            }
        }
    }
}

/// Opens a socket; the filter stands before the first packet can come. Besides it, why the filter could
/// not be put there: the socket is as good without, if the relay looks who calls.
///
/// # Errors
/// What the kernel says.
pub fn open(binding: Binding, filter: Option<&[Instruction]>) -> io::Result<(Listening, io::Result<()>)> {
    let domain = Domain::for_address(binding.at);
    let socket = match binding.protocol {
        Protocol::Tcp => Socket::new(domain, Type::STREAM.nonblocking(), Some(SocketProtocol::TCP))?,
        Protocol::Udp => Socket::new(domain, Type::DGRAM.nonblocking(), Some(SocketProtocol::UDP))?,
        Protocol::Sctp => return Err(io::ErrorKind::Unsupported.into()),
    };
    // The address may become local only later (FREEBIND), or live only in a route, which IPv6 does not
    // take for an address of its own.
    match binding.at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    let filtered = set_filter(&SockRef::from(&socket), filter);
    if binding.protocol == Protocol::Udp {
        let _ = socket.set_recv_buffer_size(DATAGRAM_BYTES);
        socket.bind(&binding.at.into())?;
        return Ok((Listening::Udp(UdpSocket::from_std(socket.into())), filtered));
    }
    // Connections of an earlier shunt may still be ending.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    set_keepalive(&SockRef::from(&socket))?;
    socket.bind(&binding.at.into())?;
    socket.listen(BACKLOG)?;
    Ok((Listening::Tcp(TcpListener::from_std(socket.into())), filtered))
}

/// Puts another filter on an open socket.
///
/// # Errors
/// What the kernel says.
pub fn refilter(socket: &Listening, filter: Option<&[Instruction]>) -> io::Result<()> {
    let socket = match socket {
        Listening::Tcp(socket) => SockRef::from(socket),
        Listening::Udp(socket) => SockRef::from(socket),
    };
    set_filter(&socket, filter)
}

fn set_filter(socket: &SockRef<'_>, filter: Option<&[Instruction]>) -> io::Result<()> {
    match filter {
        Some(filter) => {
            let filter: Vec<SockFilter> =
                filter.iter().map(|(code, yes, no, k)| SockFilter::new(*code, *yes, *no, *k)).collect();
            socket.attach_filter(&filter)
        }
        None => match socket.detach_filter() {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(()),
            result => result,
        },
    }
}

/// A peer that has vanished is noticed after two minutes. Accepted connections inherit this from their listener.
///
/// # Errors
/// What the kernel says.
pub fn set_keepalive(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Masquerade, ServicePortName};
    use crate::testing::target;

    #[test]
    fn what_a_frontend_needs() {
        let some = || Choice::Endpoints([target("a")].into_iter().collect());
        let net: ipnet::IpNet = "10.244.0.0/16".parse().unwrap();
        let range: ipnet::IpNet = "198.51.100.0/24".parse().unwrap();
        let serve = |sources: bool, inside: bool| {
            Stance::Serve(Gate { sources: sources.then(|| vec![range]), inside: inside.then(|| vec![net]) })
        };
        let table = [
            (some(), None, false, serve(false, false)),
            (some(), None, true, serve(true, false)),
            (some(), Some(some()), false, serve(false, false)),
            (some(), Some(Choice::Drop), false, serve(false, true)),
            (some(), Some(Choice::Drop), true, serve(true, true)),
            (Choice::Drop, None, true, Stance::Ignore),
            (Choice::Reject, None, false, Stance::Refuse),
            (Choice::Reject, None, true, serve(true, false)),
        ];
        for (to, from_outside, restricted, expected) in table {
            let forwarding = Forwarding {
                service_port: ServicePortName::parse("shop/web").unwrap(),
                masquerade: Masquerade::Always,
                to,
                from_outside,
                allowed_sources: restricted.then(|| [range].into()),
                affinity: None,
                proxy_protocol: false,
            };
            assert_eq!(Stance::of(&forwarding, Some(&[net])), expected, "{forwarding}");
        }
    }
}
