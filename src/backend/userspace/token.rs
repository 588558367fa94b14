//! The tokens of a worker's poll: what an event is about. PURE.

use mio::Token;

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP socket that listens.
    Listener,
    /// The client's side of a connection.
    Client,
    /// The endpoint's side of a connection.
    Endpoint,
    /// A UDP socket that clients talk to.
    Datagrams,
    /// The endpoint's side of a UDP flow.
    Flow,
    /// The waker: orders.
    Orders,
}

const KINDS: [Kind; 6] =
    [Kind::Listener, Kind::Client, Kind::Endpoint, Kind::Datagrams, Kind::Flow, Kind::Orders];

/// The token of one thing.
#[must_use]
pub const fn token(kind: Kind, number: usize) -> Token {
    Token(number * KINDS.len() + kind as usize)
}

/// What a token names.
#[must_use]
pub const fn names(token: Token) -> (Kind, usize) {
    (KINDS[token.0 % KINDS.len()], token.0 / KINDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_one_thing() {
        for (index, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(names(token(kind, 7)), (kind, 7));
        }
    }
}
