//! Refusals as the details of a gRPC status.
//!
//! ```text
//! u8 version=1 | u8 kind | body
//!   1 not here            nothing
//!   2 not the leader      v term | u8 0: unknown, 1: the leader is { v node, text address }
//!   3 other protocol      text      (version, cluster, or a request that cannot be read)
//!   16 stale epoch        v current
//!   17 overloaded, 18 unavailable, 19 malformed, 20 limit    text
//! ```

use super::{Malformed, end, put_text, take_flag};
use crate::{
    ErrorClass, ShardError,
    rpc::{Leader, LocalError, VERSION},
    write_batch::{Reader, put_varint},
};

/// The most bytes of a refusal's text: statuses travel in headers.
pub(crate) const TEXT_BYTES_MAX: usize = 2048;

/// Why a node did not do what it was asked.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// The node says so.
    Local(LocalError),
    /// The two sides do not understand each other, or do not belong together.
    Protocol(String),
}

impl Refused {
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Local(LocalError::Shard(e)) => e.class(),
            Self::Local(LocalError::NotHere) => ErrorClass::NotFound,
            Self::Local(LocalError::NotLeader { .. }) => ErrorClass::Unprocessable,
            Self::Protocol(_) => ErrorClass::BadRequest,
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Local(e) => e.to_string(),
            Self::Protocol(text) => text.clone(),
        }
    }
}

/// The longest beginning of a text that fits.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let mut n = text.len().min(max);
    while !text.is_char_boundary(n) {
        n -= 1;
    }
    &text[..n]
}

pub(crate) fn encode_refused(refused: &Refused) -> Vec<u8> {
    let mut out = vec![VERSION];
    let text = |out: &mut Vec<u8>, kind: u8, text: &str| {
        out.push(kind);
        put_text(out, cut(text, TEXT_BYTES_MAX));
    };
    match refused {
        Refused::Local(LocalError::NotHere) => out.push(1),
        Refused::Local(LocalError::NotLeader { leader, term }) => {
            out.push(2);
            put_varint(&mut out, *term);
            out.push(u8::from(leader.is_some()));
            if let Some(leader) = leader {
                put_varint(&mut out, leader.node);
                put_text(&mut out, &leader.address);
            }
        }
        Refused::Protocol(t) => text(&mut out, 3, t),
        Refused::Local(LocalError::Shard(e)) => match e {
            ShardError::StaleEpoch { current } => {
                out.push(16);
                put_varint(&mut out, *current);
            }
            ShardError::Overloaded(t) => text(&mut out, 17, t),
            ShardError::Unavailable(t) => text(&mut out, 18, t),
            ShardError::Malformed(t) => text(&mut out, 19, t),
            ShardError::Limit(t) => text(&mut out, 20, t),
        },
    }
    out
}

pub(crate) fn decode_refused(details: &[u8]) -> Result<Refused, Malformed> {
    let mut r = Reader(details);
    if r.u8()? != VERSION {
        return Err(Malformed("unknown version of the refusal"));
    }
    let refused = match r.u8()? {
        1 => Refused::Local(LocalError::NotHere),
        2 => {
            let term = r.varint()?;
            let leader = if take_flag(&mut r)? {
                Some(Leader { node: r.varint()?, address: r.text()?.to_owned() })
            } else {
                None
            };
            Refused::Local(LocalError::NotLeader { leader, term })
        }
        3 => Refused::Protocol(r.text()?.to_owned()),
        16 => Refused::Local(ShardError::StaleEpoch { current: r.varint()? }.into()),
        kind @ 17..=20 => {
            let text = r.text()?.to_owned();
            let error = match kind {
                17 => ShardError::Overloaded(text),
                18 => ShardError::Unavailable(text),
                19 => ShardError::Malformed(text),
                _ => ShardError::Limit(text),
            };
            Refused::Local(error.into())
        }
        _ => return Err(Malformed("unknown kind of refusal")),
    };
    end(&r)?;
    Ok(refused)
}
