//! Many datagrams for one system call. EDGE.
//!
//! `recvmmsg` takes what has come. Datagrams of one length that go the same way leave as a train (`UDP_SEGMENT`),
//! which passes through the kernel as one packet and is cut into datagrams again where it leaves, or arrives.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmmsg, sendmsg,
};

/// Datagrams taken at once.
pub const AT_ONCE: usize = 32;
/// The longest datagram.
const LONGEST: usize = 65_536;
/// Bytes in a train, which has the headers of one packet.
const LONGEST_TRAIN: usize = 65_000;

/// Datagrams that came at once. Pages that no datagram has touched yet take no memory.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Length and sender of each.
    received: Vec<(usize, SocketAddr)>,
    /// For IPv4 and IPv6: the kernel leaves the length of an address in them.
    headers: [MultiHeaders<SockaddrStorage>; 2],
}

impl Default for Batch {
    fn default() -> Self {
        let headers = || MultiHeaders::preallocate(AT_ONCE, None);
        Self {
            bytes: vec![0; AT_ONCE * LONGEST],
            received: Vec::with_capacity(AT_ONCE),
            headers: [headers(), headers()],
        }
    }
}

impl Batch {
    /// Takes what has come to a socket of one family; tells how many there are. Fewer than [`AT_ONCE`]: there were no
    /// more, or an error stands behind them, of which an event tells.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&mut self, socket: &UdpSocket, four: bool) -> io::Result<usize> {
        self.received.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.bytes.chunks_exact_mut(LONGEST).map(|bytes| [IoSliceMut::new(bytes)]).collect();
        let headers = &mut self.headers[usize::from(four)];
        let messages =
            recvmmsg(socket.as_raw_fd(), headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        for message in messages {
            let from = message.address.as_ref().and_then(address).ok_or(Errno::EAFNOSUPPORT)?;
            self.received.push((message.bytes, from));
        }
        Ok(self.received.len())
    }

    /// Who has sent which: the datagrams by sender, of each in the order in which they came.
    pub fn by_sender(&self) -> Vec<(SocketAddr, Vec<usize>)> {
        let mut senders: Vec<(SocketAddr, Vec<usize>)> = Vec::new();
        for (at, (_, from)) in self.received.iter().enumerate() {
            match senders.iter_mut().find(|(sender, _)| sender == from) {
                Some((_, datagrams)) => datagrams.push(at),
                None => senders.push((*from, vec![at])),
            }
        }
        senders
    }

    /// Sends the first of these datagrams, with those behind it that fit into one train, to where the socket is
    /// connected or to an address. Returns how many that were, and how many bytes.
    ///
    /// # Errors
    /// What the kernel says of the first one.
    pub fn send(
        &self,
        socket: &UdpSocket,
        datagrams: &[usize],
        to: Option<SocketAddr>,
    ) -> io::Result<(usize, usize)> {
        let together = train(datagrams.iter().map(|at| self.received[*at].0));
        let together = &datagrams[..together.min(datagrams.len())];
        if together.len() > 1 {
            match self.send_train(socket, together, to) {
                Ok(bytes) => return Ok((together.len(), bytes)),
                // Datagrams that are longer than the way takes go in fragments (EINVAL before Linux 6.13), and some
                // devices take no trains: each one goes alone.
                Err(Errno::EMSGSIZE | Errno::EINVAL | Errno::EIO | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let (mut count, mut bytes) = (0, 0);
        for at in together {
            let sent = match to {
                Some(to) => socket.send_to(self.bytes(*at), to),
                None => socket.send(self.bytes(*at)),
            };
            match sent {
                Ok(sent) => (count, bytes) = (count + 1, bytes + sent),
                Err(error) if count == 0 => return Err(error),
                // The caller comes back to that one.
                Err(_) => break,
            }
        }
        Ok((count, bytes))
    }

    fn send_train(
        &self,
        socket: &UdpSocket,
        datagrams: &[usize],
        to: Option<SocketAddr>,
    ) -> Result<usize, Errno> {
        let slices: Vec<IoSlice<'_>> = datagrams.iter().map(|at| IoSlice::new(self.bytes(*at))).collect();
        let length = slices.first().map_or(0, |slice| slice.len());
        let length = u16::try_from(length).map_err(|_| Errno::EMSGSIZE)?;
        let to = to.map(SockaddrStorage::from);
        let control = [ControlMessage::UdpGsoSegments(&length)];
        sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, to.as_ref())
    }

    fn bytes(&self, at: usize) -> &[u8] {
        let (length, _) = self.received[at];
        &self.bytes[at * LONGEST..at * LONGEST + length]
    }
}

/// How many of these lengths fit into one train: all but the last one are equal, and that is no longer. A datagram
/// without bytes goes alone.
fn train(lengths: impl Iterator<Item = usize>) -> usize {
    let (mut first, mut count, mut bytes) = (0, 0, 0);
    for length in lengths {
        if count == 0 {
            first = length;
        }
        if length == 0 || length > first || bytes + length > LONGEST_TRAIN {
            break;
        }
        (count, bytes) = (count + 1, bytes + length);
        if length < first {
            break;
        }
    }
    count.max(1)
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let four = storage.as_sockaddr_in().map(|four: &SockaddrIn| SocketAddr::V4((*four).into()));
    four.or_else(|| storage.as_sockaddr_in6().map(|six: &SockaddrIn6| SocketAddr::V6((*six).into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_together() {
        let table: [(&[usize], usize); 9] = [
            (&[5], 1),
            (&[5, 5, 5], 3),
            (&[5, 5, 3, 5], 3),
            (&[5, 6], 1),
            (&[5, 5, 6], 2),
            (&[5, 0, 5], 1),
            (&[0, 0], 1),
            (&[30_000, 30_000, 30_000], 2),
            (&[65_507, 65_507], 1),
        ];
        for (lengths, expected) in table {
            assert_eq!(train(lengths.iter().copied()), expected, "{lengths:?}");
        }
    }
}
