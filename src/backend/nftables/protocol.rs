//! The numbers of the nf_tables netlink protocol that we use, from
//! `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`. PURE.

/// Message types (`enum nf_tables_msg_types`), with the subsystem in the high byte.
pub mod message {
    /// `NFNL_SUBSYS_NFTABLES`: the resource id of a batch.
    pub const SUBSYSTEM: u16 = 10;
    const NFTABLES: u16 = SUBSYSTEM << 8;
    /// `NFT_MSG_NEWTABLE`.
    pub const NEW_TABLE: u16 = NFTABLES;
    /// `NFT_MSG_GETTABLE`.
    pub const GET_TABLE: u16 = NFTABLES + 1;
    /// `NFT_MSG_DELTABLE`.
    pub const DELETE_TABLE: u16 = NFTABLES + 2;
    /// `NFT_MSG_NEWCHAIN`.
    pub const NEW_CHAIN: u16 = NFTABLES + 3;
    /// `NFT_MSG_GETCHAIN`.
    pub const GET_CHAIN: u16 = NFTABLES + 4;
    /// `NFT_MSG_DELCHAIN`.
    pub const DELETE_CHAIN: u16 = NFTABLES + 5;
    /// `NFT_MSG_NEWRULE`.
    pub const NEW_RULE: u16 = NFTABLES + 6;
    /// `NFT_MSG_GETRULE`.
    pub const GET_RULE: u16 = NFTABLES + 7;
    /// `NFT_MSG_DELRULE`.
    pub const DELETE_RULE: u16 = NFTABLES + 8;
    /// `NFT_MSG_NEWSET`.
    pub const NEW_SET: u16 = NFTABLES + 9;
    /// `NFT_MSG_GETSET`.
    pub const GET_SET: u16 = NFTABLES + 10;
    /// `NFT_MSG_DELSET`.
    pub const DELETE_SET: u16 = NFTABLES + 11;
    /// `NFT_MSG_NEWSETELEM`.
    pub const NEW_ELEMENT: u16 = NFTABLES + 12;
    /// `NFT_MSG_GETSETELEM`.
    pub const GET_ELEMENT: u16 = NFTABLES + 13;
    /// `NFT_MSG_DELSETELEM`.
    pub const DELETE_ELEMENT: u16 = NFTABLES + 14;
    /// `NFT_MSG_NEWGEN`: the last notification of a transaction.
    pub const NEW_GENERATION: u16 = NFTABLES + 15;
    /// `NFT_MSG_GETGEN`.
    pub const GET_GENERATION: u16 = NFTABLES + 16;
    /// `NFT_MSG_NEWOBJ`.
    pub const NEW_OBJECT: u16 = NFTABLES + 18;
    /// `NFT_MSG_GETOBJ`.
    pub const GET_OBJECT: u16 = NFTABLES + 19;
    /// `NFT_MSG_DELOBJ`.
    pub const DELETE_OBJECT: u16 = NFTABLES + 20;
    /// `NFNL_MSG_BATCH_BEGIN`.
    pub const BATCH_BEGIN: u16 = 16;
    /// `NFNL_MSG_BATCH_END`.
    pub const BATCH_END: u16 = 17;
}

/// `NFNLGRP_NFTABLES`: who joins it hears of every transaction.
pub const NOTIFICATIONS: i32 = 7;

/// Attributes of a generation (`enum nft_gen_attributes`).
pub mod generation {
    /// The number.
    pub const ID: u16 = 1;
    /// The process that made it.
    pub const PROCESS: u16 = 2;
    /// The name of its program.
    pub const PROGRAM: u16 = 3;
}

/// Attributes of a table (`enum nft_table_attributes`).
pub mod table {
    /// The name.
    pub const NAME: u16 = 1;
    /// Flags.
    pub const FLAGS: u16 = 2;
    /// User data: the comment.
    pub const USER_DATA: u16 = 6;
    /// The netlink port of the socket that owns the table.
    pub const OWNER: u16 = 7;
    /// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST` (persist from Linux 6.9).
    pub const OWNED: u32 = 0x2 | 0x4;
}

/// Attributes of a chain (`enum nft_chain_attributes`).
pub mod chain {
    /// The table's name.
    pub const TABLE: u16 = 1;
    /// The name.
    pub const NAME: u16 = 3;
    /// Hook number (1) and priority (2) of a base chain.
    pub const HOOK: u16 = 4;
    /// The policy of a base chain: 1 is accept.
    pub const POLICY: u16 = 5;
    /// The type of a base chain.
    pub const TYPE: u16 = 7;
}

/// Attributes of a rule (`enum nft_rule_attributes`).
pub mod rule {
    /// The table's name.
    pub const TABLE: u16 = 1;
    /// The chain's name.
    pub const CHAIN: u16 = 2;
}

/// Attributes of a set (`enum nft_set_attributes`).
pub mod set {
    /// The table's name.
    pub const TABLE: u16 = 1;
    /// The name.
    pub const NAME: u16 = 2;
    /// Flags.
    pub const FLAGS: u16 = 3;
    /// The key's type, for nft only.
    pub const KEY_TYPE: u16 = 4;
    /// The key's length in bytes.
    pub const KEY_LENGTH: u16 = 5;
    /// The data's type.
    pub const DATA_TYPE: u16 = 6;
    /// The data's length in bytes.
    pub const DATA_LENGTH: u16 = 7;
    /// Nested: size (1), fields of a concatenation (2).
    pub const DESCRIPTION: u16 = 9;
    /// The id by which a transaction refers to a set without a name yet.
    pub const ID: u16 = 10;
    /// Milliseconds after which elements expire, 64 bits.
    pub const TIMEOUT: u16 = 11;
    /// User data: what nft needs to list the set.
    pub const USER_DATA: u16 = 13;

    /// How many elements there are; only newer kernels tell.
    pub const COUNT: u16 = 20;

    /// `NFTA_SET_DESC_SIZE`.
    pub const DESCRIPTION_SIZE: u16 = 1;
    /// `NFTA_SET_DESC_CONCAT`, of items with `NFTA_SET_FIELD_LEN`.
    pub const DESCRIPTION_CONCAT: u16 = 2;
    /// `NFTA_SET_FIELD_LEN`.
    pub const FIELD_LENGTH: u16 = 1;

    /// `NFT_SET_ANONYMOUS | NFT_SET_CONSTANT`.
    pub const ANONYMOUS: u32 = 0x1 | 0x2;
    /// `NFT_SET_INTERVAL`.
    pub const INTERVAL: u32 = 0x4;
    /// `NFT_SET_MAP`.
    pub const MAP: u32 = 0x8;
    /// `NFT_SET_TIMEOUT | NFT_SET_EVAL`: elements expire, and rules write them.
    pub const WRITTEN_BY_RULES: u32 = 0x10 | 0x20;
    /// `NFT_SET_CONCAT`.
    pub const CONCAT: u32 = 0x80;

    /// `NFT_DATA_VERDICT`, the data type of verdict maps.
    pub const TYPE_VERDICT: u32 = 0xffff_ff00;
    /// The length of a verdict register.
    pub const VERDICT_LENGTH: u32 = 16;
}

/// Attributes of a stateful object (`enum nft_object_attributes`), of which we have counters.
pub mod object {
    /// The table's name.
    pub const TABLE: u16 = 1;
    /// The name.
    pub const NAME: u16 = 2;
    /// The type.
    pub const TYPE: u16 = 3;
    /// Nested: bytes (1) and packets (2) of a counter, 64 bits each.
    pub const DATA: u16 = 4;
    /// `NFTA_COUNTER_PACKETS`.
    pub const PACKETS: u16 = 2;
    /// `NFT_OBJECT_COUNTER`.
    pub const COUNTER: u32 = 1;
}

/// Attributes of a message about elements (`enum nft_set_elem_list_attributes`).
pub mod list {
    /// The table's name.
    pub const TABLE: u16 = 1;
    /// The set's name.
    pub const SET: u16 = 2;
    /// Nested: the elements.
    pub const ELEMENTS: u16 = 3;
    /// The set's id.
    pub const SET_ID: u16 = 4;
    /// `NFTA_LIST_ELEM`: one of them.
    pub const ITEM: u16 = 1;
    /// When a list is full: it has to fit into one attribute of 64 KiB, and one element is far below
    /// 1 KiB.
    pub const MOST_BYTES: usize = 60_000;
}

/// Attributes of an element (`enum nft_set_elem_attributes`) and of its key and data.
pub mod element {
    /// Nested: the key.
    pub const KEY: u16 = 1;
    /// Nested: the data.
    pub const DATA: u16 = 2;
    /// Flags.
    pub const FLAGS: u16 = 3;
    /// Milliseconds for which the element lives, where that is not the set's own; 64 bits.
    pub const TIMEOUT: u16 = 4;
    /// Milliseconds that are left of them, 64 bits.
    pub const EXPIRATION: u16 = 5;
    /// User data: the comment.
    pub const USER_DATA: u16 = 6;
    /// Nested: the end of the range of a concatenation.
    pub const KEY_END: u16 = 10;
    /// `NFT_SET_ELEM_INTERVAL_END`: the first address behind a range.
    pub const INTERVAL_END: u32 = 1;

    /// `NFTA_DATA_VALUE`.
    pub const VALUE: u16 = 1;
    /// `NFTA_DATA_VERDICT`.
    pub const VERDICT: u16 = 2;
    /// `NFTA_VERDICT_CODE`.
    pub const VERDICT_CODE: u16 = 1;
    /// `NFTA_VERDICT_CHAIN`.
    pub const VERDICT_CHAIN: u16 = 2;
    /// `NF_DROP`.
    pub const DROP: i32 = 0;
    /// `NFT_GOTO`.
    pub const GOTO: i32 = -4;
}
