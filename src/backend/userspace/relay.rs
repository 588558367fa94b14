//! One direction of a TCP connection: bytes from one socket to the other, as fast as the slower one
//! takes them. EDGE.
//!
//! Short exchanges are copied through one buffer that all connections share; what the receiver does not
//! take is kept, and nothing more is read until it is gone. Whoever sends more than [`SPLICE_FROM`] gets a
//! pipe, through which the kernel moves pages without copying them (`splice`).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use mio::net::TcpStream;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// From how many bytes on a direction is worth the two descriptors of a pipe.
const SPLICE_FROM: u64 = 64 * 1024;
/// What a pipe can hold.
const PIPE_BYTES: i32 = 256 * 1024;
/// How much is moved before others get their turn.
const TURN: usize = 1024 * 1024;
/// Pipes kept for the next connection.
const SPARE_PIPES: usize = 64;

/// What all connections of a worker share.
#[derive(Debug)]
pub struct Shared {
    buffer: Vec<u8>,
    spare: Vec<Pipe>,
    in_use: usize,
    /// Pipes at a time; without one, bytes are copied.
    pub most_pipes: usize,
}

impl Default for Shared {
    fn default() -> Self {
        Self { buffer: vec![0; 64 * 1024], spare: Vec::new(), in_use: 0, most_pipes: 0 }
    }
}

impl Shared {
    fn pipe(&mut self) -> Option<Pipe> {
        if self.in_use >= self.most_pipes {
            return None;
        }
        let pipe = self.spare.pop().or_else(Pipe::new)?;
        self.in_use += 1;
        Some(pipe)
    }

    fn give_back(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        if pipe.filled == 0 && self.spare.len() < SPARE_PIPES {
            self.spare.push(pipe);
        }
    }
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

impl Pipe {
    /// `None` where descriptors are short: then bytes are copied.
    fn new() -> Option<Self> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        // Where that is more than one user may have, it stays at 64 KiB.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Some(Self { read, write, filled: 0 })
    }
}

/// What came of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Everything that there was, or all that the receiver takes for now.
    Enough,
    /// There may be more: the turn is over.
    TurnOver,
    /// The sender has finished, and the receiver knows.
    Finished,
}

/// How far the end of a direction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// The sender may send more.
    #[default]
    Open,
    /// The sender has finished; what is kept has to go first.
    Read,
    /// The receiver knows.
    Told,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Direction {
    /// Read and not taken yet.
    kept: Vec<u8>,
    taken: usize,
    pipe: Option<Pipe>,
    /// `splice` does not work between these sockets.
    copies: bool,
    moved: u64,
    /// What was moved when there was no pipe to be had.
    asked: u64,
    end: End,
    /// The sender may have finished: what is read last is no bytes.
    expects_end: bool,
    /// The receiver takes nothing more for now.
    blocked: bool,
}

impl Direction {
    /// A direction that begins with these bytes.
    #[must_use]
    pub fn beginning_with(bytes: Vec<u8>) -> Self {
        Self { kept: bytes, ..Self::default() }
    }

    /// The kernel says that the sender has finished, or broken off. Until then a read that does not fill the
    /// buffer has read all that there is: whatever comes later is told of.
    pub const fn expect_end(&mut self) {
        self.expects_end = true;
    }

    /// Whether it waits for the receiver.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether the sender has finished, and the receiver knows.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.end, End::Told)
    }

    /// Moves what there is. `count` is told of every byte that the receiver has taken. With the `last` direction
    /// the connection ends: closing it tells the receiver.
    ///
    /// # Errors
    /// One of the two has broken the connection off.
    pub fn pump(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        shared: &mut Shared,
        last: bool,
        mut count: impl FnMut(usize),
    ) -> io::Result<Moved> {
        let mut turn = 0;
        self.blocked = false;
        while self.end != End::Told {
            let written = self.write(to)?;
            self.moved += written as u64;
            count(written);
            turn += written;
            if self.blocked {
                return Ok(Moved::Enough);
            }
            if self.end == End::Read {
                if !last {
                    // Where the receiver is gone already, reading from it tells.
                    let _ = to.shutdown(Shutdown::Write);
                }
                self.end = End::Told;
                self.release(shared);
                break;
            }
            if turn >= TURN {
                return Ok(Moved::TurnOver);
            }
            if self.pipe.is_none() && !self.copies && self.moved - self.asked >= SPLICE_FROM {
                self.pipe = shared.pipe();
                // Where there is none, there may be one after as many bytes again.
                self.asked = self.moved;
            }
            if !self.read(from, to, shared, &mut turn, &mut count)? {
                return Ok(Moved::Enough);
            }
        }
        Ok(Moved::Finished)
    }

    /// Writes what is kept; returns how much was taken.
    fn write(&mut self, mut to: &TcpStream) -> io::Result<usize> {
        let mut written = 0;
        while self.taken < self.kept.len() {
            match to.write(&self.kept[self.taken..]) {
                Ok(taken) => {
                    self.taken += taken;
                    written += taken;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.would_block(error).map(|()| written),
            }
        }
        if !self.kept.is_empty() {
            (self.kept, self.taken) = (Vec::new(), 0);
        }
        let Some(pipe) = &mut self.pipe else { return Ok(written) };
        while pipe.filled > 0 {
            match splice(&pipe.read, None, to, None, pipe.filled, flags()) {
                Ok(taken) => {
                    pipe.filled -= taken;
                    written += taken;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return self.would_block(errno.into()).map(|()| written),
            }
        }
        Ok(written)
    }

    fn would_block(&mut self, error: io::Error) -> io::Result<()> {
        self.blocked = error.kind() == io::ErrorKind::WouldBlock;
        if self.blocked { Ok(()) } else { Err(error) }
    }

    /// Reads once. Returns whether there was anything, be it the end.
    fn read(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        shared: &mut Shared,
        turn: &mut usize,
        count: &mut impl FnMut(usize),
    ) -> io::Result<bool> {
        if let Some(pipe) = &mut self.pipe {
            match splice(from, None, &pipe.write, None, TURN, flags()) {
                Ok(0) => self.end = End::Read,
                Ok(read) => pipe.filled += read,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(Errno::EINVAL | Errno::ENOSYS) => {
                    self.copies = true;
                    self.release(shared);
                }
                Err(errno) => return Err(errno.into()),
            }
            return Ok(true);
        }
        let read = match from.read(&mut shared.buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        if read == 0 {
            self.end = End::Read;
        }
        let bytes = &shared.buffer[..read];
        // Usually the receiver takes all of it, and nothing has to be kept.
        let taken = match to.write(bytes) {
            _ if read == 0 => 0,
            Ok(taken) => taken,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        self.kept.extend_from_slice(&bytes[taken..]);
        self.moved += taken as u64;
        *turn += taken;
        count(taken);
        Ok(read == 0 || read == shared.buffer.len() || self.expects_end || !self.kept.is_empty())
    }

    /// Gives the pipe back.
    pub fn release(&mut self, shared: &mut Shared) {
        if let Some(pipe) = self.pipe.take() {
            shared.give_back(pipe);
        }
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

/// Has the kernel tell the other side at once that it is over, with a reset.
pub fn break_off(stream: &TcpStream) {
    let _ = socket2::SockRef::from(&stream.as_fd()).set_linger(Some(std::time::Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two ends of a connection.
    fn pair() -> [TcpStream; 2] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        [client, listener.accept().unwrap().0].map(|side| {
            side.set_nonblocking(true).unwrap();
            TcpStream::from_std(side)
        })
    }

    #[test]
    fn a_shortage_of_pipes_does_not_last_longer_than_it_does() {
        let ([mut sender, from], [to, mut receiver]) = (pair(), pair());
        let (mut direction, mut shared) = (Direction::default(), Shared::default());
        let chunk = vec![7; 16 * 1024];
        let mut moves = |bytes: u64, shared: &mut Shared| {
            let end = direction.moved + bytes;
            let start = std::time::Instant::now();
            while direction.moved < end {
                let _ = sender.write(&chunk);
                direction.pump(&from, &to, shared, false, |_| {}).unwrap();
                while receiver.read(&mut [0; 16 * 1024]).is_ok_and(|read| read > 0) {}
                assert!(start.elapsed().as_secs() < 20, "{} of {end} bytes", direction.moved);
            }
            direction.pipe.is_some()
        };
        assert!(!moves(SPLICE_FROM * 3, &mut shared), "there is none");
        shared.most_pipes = 1;
        assert!(moves(SPLICE_FROM * 3, &mut shared), "there is one now");
    }
}
