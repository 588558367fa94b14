//! Netlink messages and attributes as bytes: a writer and a reader. PURE; [`socket`] is the edge.
//!
//! Layout: `struct nlmsghdr` (16 bytes, host byte order), for netfilter `struct nfgenmsg` (4 bytes),
//! then attributes of 4 bytes header (length, type) and a value, each padded to 4 bytes
//! (`include/uapi/linux/netlink.h`). Numbers inside netfilter attributes are big-endian.

pub mod socket;

use crate::model::Family;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: the kernel confirms the message.
pub const ACK: u16 = 0x4;
/// `NLM_F_ROOT | NLM_F_MATCH`: everything of a kind.
pub const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`, in answers: what was dumped has changed meanwhile.
pub const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP_FILTERED`, in answers: the kernel left out what was not asked for.
pub const DUMP_FILTERED: u16 = 0x20;
/// `NLM_F_EXCL`: what is there already is left alone, and an error.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub const APPEND: u16 = 0x800;

/// `NLMSG_ERROR`: an error, or a confirmation where the number is 0.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;

/// Bytes of `struct nlmsghdr` and `struct nfgenmsg` together.
pub const HEADERS: usize = 20;
const NLMSG_HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// `AF_INET`, `AF_INET6`: families in `struct nfgenmsg`.
#[must_use]
pub const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Appends messages to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// The start of a message or nested attribute that is still open.
#[derive(Clone, Copy, Debug)]
#[must_use = "an open message or attribute has no length yet"]
pub struct Open(usize);

impl Writer {
    /// What was written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer, for code that appends a message of its own.
    pub const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Where the next byte goes: how many were written.
    #[must_use]
    pub fn at(&self) -> usize {
        self.bytes.len()
    }

    /// Opens a message of `struct nfgenmsg`: its type, flags, sequence number, address family
    /// (`AF_INET`...) and resource id.
    pub fn message(&mut self, kind: u16, flags: u16, seq: u32, family: u8, resource: u16) -> Open {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(seq.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        Open(start)
    }

    /// Closes a message.
    pub fn end_message(&mut self, message: Open) {
        let length = u32::try_from(self.bytes.len() - message.0).unwrap_or(u32::MAX);
        self.bytes[message.0..message.0 + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds flags to a message that is already closed.
    pub fn add_flags(&mut self, message: usize, flags: u16) {
        let at = message + 6;
        let old = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        self.bytes[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// Writes an attribute with the bytes of `parts`, one after the other.
    pub fn attribute(&mut self, kind: u16, parts: &[&[u8]]) {
        let start = self.open(kind);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.close(start);
    }

    /// Writes a 32-bit number, big-endian.
    pub fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &[&number.to_be_bytes()]);
    }

    /// Writes a 64-bit number, big-endian.
    pub fn long_number(&mut self, kind: u16, number: u64) {
        self.attribute(kind, &[&number.to_be_bytes()]);
    }

    /// Writes a string with its closing NUL.
    pub fn string(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), &[0]]);
    }

    /// Opens an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16) -> Open {
        self.open(kind | NESTED)
    }

    /// Closes an attribute: sets its length and pads.
    pub fn close(&mut self, attribute: Open) {
        let length = u16::try_from(self.bytes.len() - attribute.0).unwrap_or(u16::MAX);
        self.bytes[attribute.0..attribute.0 + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn open(&mut self, kind: u16) -> Open {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        Open(start)
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The message type.
    pub kind: u16,
    /// `NLM_F_*` of the answer.
    pub flags: u16,
    /// The sequence number of the request it answers.
    pub seq: u32,
    /// `nfgenmsg.res_id`: in dumps of nf_tables the low 16 bits of the generation.
    pub resource: u16,
    /// What follows `struct nlmsghdr`.
    pub payload: &'a [u8],
    /// The whole message.
    pub whole: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind `struct nfgenmsg`.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(4..).unwrap_or_default())
    }
}

/// Takes a buffer of received messages apart; stops at what is no message.
pub fn messages(buffer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let whole = rest.get(..length).filter(|whole| whole.len() >= NLMSG_HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let payload = &whole[NLMSG_HEADER..];
        let resource = payload.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let kind = u16::from_ne_bytes([whole[4], whole[5]]);
        let flags = u16::from_ne_bytes([whole[6], whole[7]]);
        let seq = u32::from_ne_bytes([whole[8], whole[9], whole[10], whole[11]]);
        Some(Message { kind, flags, seq, resource, payload, whole })
    })
}

/// A run of attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

#[expect(clippy::copy_iterator, reason = "a slice by another name: each reader walks its own copy")]
impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    #[must_use]
    pub fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes inside a nested one; empty without it.
    #[must_use]
    pub fn nested(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    /// A big-endian number of 32 bits.
    #[must_use]
    pub fn number(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A big-endian number of 64 bits.
    #[must_use]
    pub fn long_number(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A string, without its NUL.
    #[must_use]
    pub fn string(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        std::str::from_utf8(&value[..end]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nft add element ip shunt services { 10.96.0.1 . tcp . 80 }` as strace shows it, shortened to its
    /// attributes.
    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        let message = writer.message(0x0a0c, CREATE, 7, 2, 0);
        writer.string(1, "shunt");
        let list = writer.nest(3);
        writer.attribute(1, &[&[10, 96, 0, 1], &[6], &[0; 3]]);
        writer.close(list);
        writer.number(4, 0xdead_beef);
        writer.end_message(message);
        assert_eq!(&writer.bytes()[HEADERS..HEADERS + 12], b"\x0a\0\x01\0shunt\0\0\0");

        let read: Vec<Message<'_>> = messages(writer.bytes()).collect();
        assert_eq!((read.len(), read[0].kind, read[0].seq), (1, 0x0a0c, 7));
        let attributes = read[0].attributes();
        assert_eq!(attributes.string(1), Some("shunt"));
        assert_eq!(attributes.nested(3).get(1), Some(&[10, 96, 0, 1, 6, 0, 0, 0][..]));
        assert_eq!(attributes.number(4), Some(0xdead_beef));
        assert_eq!(attributes.get(9), None);
    }

    #[test]
    fn rubbish_ends_the_reading() {
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        assert_eq!(messages(&[200, 0, 0, 0, 1, 1, 1, 1]).count(), 0);
        assert_eq!(Attributes(&[3, 0, 1, 0, 9]).count(), 0);
        assert_eq!(Attributes(&[99, 0, 1, 0]).count(), 0);
    }
}
