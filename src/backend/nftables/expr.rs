//! The kernel's expressions, as far as our rules use them. PURE; `wire.rs` gives them to libnftnl.
//!
//! Numbers are those of `include/uapi/linux/netfilter/nf_tables.h`.

use std::borrow::Cow;

use crate::model::Family;

/// A data register. Registers are named by their first 32-bit word; a concatenation fills words one
/// after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// The verdict register, `NFT_REG_VERDICT`.
    pub const VERDICT: Self = Self(0);
    /// The first word of data, `NFT_REG32_00`.
    pub const FIRST: Self = Self(8);

    /// The register just behind a field of `bytes` bytes that starts here.
    #[must_use]
    pub const fn after(self, bytes: u32) -> Self {
        Self(self.0 + bytes.div_ceil(4))
    }

    /// The number in netlink attributes. The words at multiples of 16 bytes have an older name
    /// (`NFT_REG_1` to `NFT_REG_4`), which is what the kernel reports back.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self.0 {
            8 => 1,
            12 => 2,
            16 => 3,
            20 => 4,
            number => number,
        }
    }
}

/// Something that fills a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The first bytes of the source address.
    Source(Family, u32),
    /// The first bytes of the destination address.
    Destination(Family, u32),
    /// The destination port, of any transport protocol.
    DestinationPort,
    /// The transport protocol.
    L4Proto,
    /// The name of the incoming interface.
    Interface,
    /// The packet mark.
    Mark,
    /// The state of the connection, `NF_CT_STATE_BIT`s.
    CtState,
    /// The status of the connection, `enum ip_conntrack_status`.
    CtStatus,
    /// The source of the connection's first packet, as it was sent.
    OriginalSource(Family),
    /// The destination of the connection's first packet, as it was sent.
    OriginalDestination(Family),
    /// The destination port of the connection's first packet, as it was sent.
    OriginalPort,
    /// A random number from 0 to this, exclusive.
    Random(u16),
}

/// How a register is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `NFT_CMP_EQ`.
    Equal,
    /// `NFT_CMP_NEQ`.
    NotEqual,
}

/// One expression. Where none is named, the register is [`Register::FIRST`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Fills a register.
    Load(Load, Register),
    /// Loads the type of the route to the source or destination address.
    FibType {
        /// The source address instead of the destination.
        source: bool,
    },
    /// `register = (register & mask) ^ xor`.
    Mask {
        /// The mask; as long as the register's content.
        mask: Vec<u8>,
        /// What is toggled afterwards.
        xor: Vec<u8>,
    },
    /// Goes on only if the register compares like this.
    Cmp(Compare, Vec<u8>),
    /// Sets the packet mark.
    StoreMark,
    /// Goes on only if the key is in the set; loads what it leads to.
    Lookup {
        /// The name of the set or map.
        set: Cow<'static, str>,
        /// Where the data goes; the verdict register makes it a verdict map.
        into: Option<Register>,
    },
    /// Writes the key in [`Register::FIRST`] into a map, or renews it there; goes on only if the map
    /// has it afterwards. What a known key leads to does not change.
    Update {
        /// The name of the map.
        map: String,
        /// Where the data is.
        data: Register,
    },
    /// Counts the packet with a counter of this name.
    Count(&'static str),
    /// Goes on only if the protocol is one that Services know: an anonymous set in the kernel.
    AnonymousProtocols,
    /// Rewrites the destination.
    Dnat {
        /// The family of the address.
        family: Family,
        /// The register of the address.
        address: Register,
        /// The register of the port.
        port: Register,
    },
    /// Rewrites the source to the address of the outgoing interface, with a random port.
    Masquerade,
    /// Calls a chain.
    Jump(String),
    /// Goes to a chain and does not come back.
    Goto(String),
    /// Goes back to the calling chain.
    Return,
    /// Drops the packet.
    Drop,
    /// Answers with a TCP reset.
    RejectTcpReset,
    /// Answers with ICMP port unreachable.
    RejectPort(Family),
}

impl Expr {
    /// Compares what [`Expr::FibType`] loaded with `RTN_LOCAL`.
    #[must_use]
    pub fn local_type() -> Self {
        Self::Cmp(Compare::Equal, 2_u32.to_ne_bytes().to_vec())
    }
}
