//! Requests and replies as frames. Pure: no I/O; memory is allocated only for what is there.
//!
//! # Format
//!
//! Little endian. A request begins with a head of 48 bytes, a reply with its first 8:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version ([`super::VERSION`]) |
//! | 1 | 1 | kind |
//! | 2 | 2 | zero |
//! | 4 | 4 | CRC32C over all that follows |
//! | 8 | 16 | the sender's cluster |
//! | 24 | 8 | the sender's node |
//! | 32 | 8 | the node that is meant |
//! | 40 | 8 | group |
//!
//! Then, by kind (a *vote* is term and node, `u64` each, and one byte whether it is committed; a *log id* is index, term and
//! node, `u64` each; an *optional* has a byte 0 or 1 before it):
//!
//! | kind | request | reply |
//! |---|---|---|
//! | 1 append | vote, optional previous log id, optional committed log id, `u32` entries, each as below, then all payloads | byte 0 success, 1 partial with an optional log id, 2 conflict, 3 higher vote with the vote |
//! | 2 ballot | vote, optional last log id, byte: hand over | vote, byte: granted, optional last log id |
//! | 3 checkpoint | vote, then the checkpoint's file ([`crate::checkpoint`]) | vote |
//! | 4 hand over | vote, optional last log id | |
//! | 5 read index | | index (`u64`) |
//! | 255 | | no answer: code (1 no group, 2 other cluster, 3 other node, 4 not the leader, 5 refused), its ids or a text |
//!
//! An entry is a log id and a byte: 1 blank; 2 batch, then `u32` payloads and a `u32` length for each; 3 membership, then a
//! `u32` length and the membership ([`crate::membership`]).

use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::{CommittedLeaderId, EntryPayload};

use crate::{
    AppendReply, AppendRequest, BallotReply, BallotRequest, CheckpointRequest, ClusterId, GroupId,
    HandOverRequest, NoAnswer, NodeId, Reply, Request,
    membership::{self, take_u32, take_u64},
    transport::{VERSION, frame::Frame},
    types::{Batch, Entry, LogId, Vote},
};

const HEAD_BYTES: usize = 8;
/// The smallest entry: a log id and its kind.
const ENTRY_BYTES_MIN: usize = 25;
const NO_ANSWER: u8 = 255;

/// Who sends a request, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) cluster: ClusterId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) group: GroupId,
}

/// Why a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("message version {0}, this node reads up to version {VERSION}")]
    Version(u8),
    #[error("checksum mismatch")]
    Checksum,
    #[error("unknown kind of message {0}")]
    Kind(u8),
    #[error("the message's parts do not fit")]
    Parts,
}

// --- encoding

struct Out {
    head: BytesMut,
    payloads: Vec<Bytes>,
}

impl Out {
    fn new(kind: u8) -> Self {
        let mut head = BytesMut::with_capacity(256);
        head.put_slice(&[VERSION, kind, 0, 0, 0, 0, 0, 0]);
        Self { head, payloads: Vec::new() }
    }

    fn vote(&mut self, vote: &Vote) {
        self.head.put_u64_le(vote.leader_id.term);
        self.head.put_u64_le(vote.leader_id.node_id.0);
        self.head.put_u8(u8::from(vote.committed));
    }

    fn log_id(&mut self, id: &LogId) {
        for n in [id.index, id.leader_id.term, id.leader_id.node_id.0] {
            self.head.put_u64_le(n);
        }
    }

    fn optional(&mut self, id: Option<&LogId>) {
        self.head.put_u8(u8::from(id.is_some()));
        id.into_iter().for_each(|id| self.log_id(id));
    }

    /// Counts and lengths are bounded by the size of an entry, far below `u32::MAX`.
    fn count(&mut self, n: usize) {
        self.head.put_u32_le(u32::try_from(n).unwrap_or(u32::MAX));
    }

    fn entry(&mut self, entry: &Entry) {
        self.log_id(&entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => self.head.put_u8(1),
            EntryPayload::Normal(Batch(payloads)) => {
                self.head.put_u8(2);
                self.count(payloads.len());
                payloads.iter().for_each(|p| self.count(p.len()));
                self.payloads.extend(payloads.iter().filter(|p| !p.is_empty()).cloned());
            }
            EntryPayload::Membership(members) => {
                self.head.put_u8(3);
                let mut bytes = Vec::new();
                membership::encode(members, &mut bytes);
                self.count(bytes.len());
                self.head.put_slice(&bytes);
            }
        }
    }

    fn finish(mut self) -> Frame {
        let crc = crc32c::crc32c(&self.head[HEAD_BYTES..]);
        let crc = self.payloads.iter().fold(crc, |crc, p| crc32c::crc32c_append(crc, p));
        self.head[4..8].copy_from_slice(&crc.to_le_bytes());
        let mut frame = Frame::default();
        frame.push(self.head.freeze());
        self.payloads.into_iter().for_each(|p| frame.push(p));
        frame
    }
}

pub(crate) fn encode_request(address: &Address, request: &Request) -> Frame {
    let kind = match request {
        Request::Append(_) => 1,
        Request::Ballot(_) => 2,
        Request::Checkpoint(_) => 3,
        Request::HandOver(_) => 4,
        Request::ReadIndex => 5,
    };
    let mut out = Out::new(kind);
    out.head.put_u128_le(address.cluster.0);
    for n in [address.from.0, address.to.0, address.group.0] {
        out.head.put_u64_le(n);
    }
    match request {
        Request::Append(append) => {
            out.vote(&append.vote);
            out.optional(append.prev_log_id.as_ref());
            out.optional(append.leader_commit.as_ref());
            out.count(append.entries.len());
            append.entries.iter().for_each(|entry| out.entry(entry));
        }
        Request::Ballot(ballot) => {
            out.vote(&ballot.request.vote);
            out.optional(ballot.request.last_log_id.as_ref());
            out.head.put_u8(u8::from(ballot.hand_over));
        }
        Request::Checkpoint(checkpoint) => {
            out.vote(&checkpoint.vote);
            out.payloads.push(checkpoint.file.clone());
        }
        Request::HandOver(hand_over) => {
            out.vote(&hand_over.vote);
            out.optional(hand_over.last.as_ref());
        }
        Request::ReadIndex => {}
    }
    out.finish()
}

pub(crate) fn encode_reply(reply: &Result<Reply, NoAnswer>) -> Frame {
    let mut out = Out::new(match reply {
        Ok(Reply::Append(_)) => 1,
        Ok(Reply::Ballot(_)) => 2,
        Ok(Reply::Checkpoint(_)) => 3,
        Ok(Reply::HandOver) => 4,
        Ok(Reply::ReadIndex(_)) => 5,
        Err(_) => NO_ANSWER,
    });
    match reply {
        Ok(Reply::Append(AppendReply::Success)) => out.head.put_u8(0),
        Ok(Reply::Append(AppendReply::PartialSuccess(upto))) => {
            out.head.put_u8(1);
            out.optional(upto.as_ref());
        }
        Ok(Reply::Append(AppendReply::Conflict)) => out.head.put_u8(2),
        Ok(Reply::Append(AppendReply::HigherVote(vote))) => {
            out.head.put_u8(3);
            out.vote(vote);
        }
        Ok(Reply::Ballot(ballot)) => {
            out.vote(&ballot.vote);
            out.head.put_u8(u8::from(ballot.vote_granted));
            out.optional(ballot.last_log_id.as_ref());
        }
        Ok(Reply::Checkpoint(vote)) => out.vote(vote),
        Ok(Reply::HandOver) => {}
        Ok(Reply::ReadIndex(index)) => out.head.put_u64_le(*index),
        Err(error) => encode_no_answer(error, &mut out.head),
    }
    out.finish()
}

fn encode_no_answer(error: &NoAnswer, out: &mut BytesMut) {
    match error {
        NoAnswer::NoGroup(group) => {
            out.put_u8(1);
            out.put_u64_le(group.0);
        }
        NoAnswer::OtherCluster { ours, theirs } => {
            out.put_u8(2);
            out.put_u128_le(ours.0);
            out.put_u128_le(theirs.0);
        }
        NoAnswer::OtherNode { asked, found } => {
            out.put_u8(3);
            out.put_u64_le(asked.0);
            out.put_u64_le(found.0);
        }
        NoAnswer::NotLeader(leader) => {
            out.put_u8(4);
            out.put_u8(u8::from(leader.is_some()));
            leader.iter().for_each(|n| out.put_u64_le(n.0));
        }
        NoAnswer::Refused(reason) | NoAnswer::Unreachable(reason) => {
            out.put_u8(5);
            out.put_slice(reason.as_bytes());
        }
    }
}

// --- decoding

/// Checks version and checksum; gives the kind and what follows the head.
fn open(bytes: &Bytes) -> Result<(u8, &[u8]), BadFrame> {
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(BadFrame::Parts)?;
    let (mut crc, version, kind) = (&head[4..], head[0], head[1]);
    if version == 0 || version > VERSION {
        return Err(BadFrame::Version(version));
    }
    if take_u32(&mut crc) != Some(crc32c::crc32c(body)) {
        return Err(BadFrame::Checksum);
    }
    Ok((kind, body))
}

pub(crate) fn decode_request(bytes: &Bytes) -> Result<(Address, Request), BadFrame> {
    let (kind, mut rest) = open(bytes)?;
    let b = &mut rest;
    let address = take_address(b).ok_or(BadFrame::Parts)?;
    let request = match kind {
        1 => take_append(b, bytes).map(Request::Append),
        2 => take_ballot(b).map(Request::Ballot),
        3 => take_vote(b).map(|vote| {
            let file = bytes.slice(bytes.len() - b.len()..);
            *b = &[];
            Request::Checkpoint(CheckpointRequest { vote, file })
        }),
        4 => take_hand_over(b).map(Request::HandOver),
        5 => Some(Request::ReadIndex),
        other => return Err(BadFrame::Kind(other)),
    };
    request.filter(|_| b.is_empty()).map(|r| (address, r)).ok_or(BadFrame::Parts)
}

pub(crate) fn decode_reply(bytes: &Bytes) -> Result<Result<Reply, NoAnswer>, BadFrame> {
    let (kind, mut rest) = open(bytes)?;
    let b = &mut rest;
    let reply = match kind {
        1 => take_append_reply(b).map(Reply::Append),
        2 => take_ballot_reply(b).map(Reply::Ballot),
        3 => take_vote(b).map(Reply::Checkpoint),
        4 => Some(Reply::HandOver),
        5 => take_u64(b).map(Reply::ReadIndex),
        NO_ANSWER => return take_no_answer(b).filter(|_| b.is_empty()).map(Err).ok_or(BadFrame::Parts),
        other => return Err(BadFrame::Kind(other)),
    };
    reply.filter(|_| b.is_empty()).map(Ok).ok_or(BadFrame::Parts)
}

fn take_u8(b: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = b.split_first()?;
    *b = rest;
    Some(first)
}

fn take_bool(b: &mut &[u8]) -> Option<bool> {
    match take_u8(b)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_u128(b: &mut &[u8]) -> Option<u128> {
    let (low, high) = (take_u64(b)?, take_u64(b)?);
    Some(u128::from(low) | u128::from(high) << 64)
}

fn take_address(b: &mut &[u8]) -> Option<Address> {
    Some(Address {
        cluster: ClusterId(take_u128(b)?),
        from: NodeId(take_u64(b)?),
        to: NodeId(take_u64(b)?),
        group: GroupId(take_u64(b)?),
    })
}

fn take_vote(b: &mut &[u8]) -> Option<Vote> {
    let (term, node) = (take_u64(b)?, NodeId(take_u64(b)?));
    Some(if take_bool(b)? { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}

fn take_log_id(b: &mut &[u8]) -> Option<LogId> {
    let (index, term, node) = (take_u64(b)?, take_u64(b)?, take_u64(b)?);
    Some(LogId::new(CommittedLeaderId::new(term, NodeId(node)), index))
}

/// `None`: it does not fit. `Some(None)`: there is no log id.
fn take_optional(b: &mut &[u8]) -> Option<Option<LogId>> {
    if take_bool(b)? { take_log_id(b).map(Some) } else { Some(None) }
}

fn take_ballot(b: &mut &[u8]) -> Option<BallotRequest> {
    let (vote, last_log_id) = (take_vote(b)?, take_optional(b)?);
    let request = openraft::raft::VoteRequest { vote, last_log_id };
    Some(BallotRequest { request, hand_over: take_bool(b)? })
}

fn take_hand_over(b: &mut &[u8]) -> Option<HandOverRequest> {
    Some(HandOverRequest { vote: take_vote(b)?, last: take_optional(b)? })
}

enum Body {
    Blank,
    Batch(Vec<u32>),
    Membership(crate::types::Membership),
}

fn take_body(b: &mut &[u8]) -> Option<Body> {
    match take_u8(b)? {
        1 => Some(Body::Blank),
        2 => {
            let count = take_u32(b)? as usize;
            // Checked before anything is allocated for it.
            count.checked_mul(4).filter(|&n| n <= b.len())?;
            (0..count).map(|_| take_u32(b)).collect::<Option<_>>().map(Body::Batch)
        }
        3 => {
            let n = take_u32(b)? as usize;
            let (members, rest) = b.split_at_checked(n)?;
            *b = rest;
            membership::decode(members).map(Body::Membership)
        }
        _ => None,
    }
}

fn take_append(b: &mut &[u8], whole: &Bytes) -> Option<AppendRequest> {
    let (vote, prev_log_id, leader_commit) = (take_vote(b)?, take_optional(b)?, take_optional(b)?);
    let count = take_u32(b)? as usize;
    count.checked_mul(ENTRY_BYTES_MIN).filter(|&n| n <= b.len())?;
    let mut bodies = Vec::with_capacity(count);
    let mut next = match prev_log_id {
        Some(prev) => prev.index.checked_add(1)?,
        None => 0,
    };
    for _ in 0..count {
        let log_id = take_log_id(b)?;
        // Raft never sends entries with a hole; taking one would make the log unreadable.
        if log_id.index != next {
            return None;
        }
        next = next.checked_add(1)?;
        bodies.push((log_id, take_body(b)?));
    }
    let mut payloads = whole.slice(whole.len() - b.len()..);
    let mut entries = Vec::with_capacity(count);
    for (log_id, body) in bodies {
        let payload = match body {
            Body::Blank => EntryPayload::Blank,
            Body::Membership(members) => EntryPayload::Membership(members),
            Body::Batch(lengths) => {
                let cut = |n: u32| ((n as usize) <= payloads.len()).then(|| payloads.split_to(n as usize));
                let batch: Option<Vec<_>> = lengths.into_iter().map(cut).collect();
                EntryPayload::Normal(Batch(batch?.into()))
            }
        };
        entries.push(Entry { log_id, payload });
    }
    *b = &b[b.len() - payloads.len()..];
    Some(AppendRequest { vote, prev_log_id, entries, leader_commit })
}

fn take_append_reply(b: &mut &[u8]) -> Option<AppendReply> {
    Some(match take_u8(b)? {
        0 => AppendReply::Success,
        1 => AppendReply::PartialSuccess(take_optional(b)?),
        2 => AppendReply::Conflict,
        3 => AppendReply::HigherVote(take_vote(b)?),
        _ => return None,
    })
}

fn take_ballot_reply(b: &mut &[u8]) -> Option<BallotReply> {
    let (vote, vote_granted, last_log_id) = (take_vote(b)?, take_bool(b)?, take_optional(b)?);
    Some(BallotReply { vote, vote_granted, last_log_id })
}

fn take_no_answer(b: &mut &[u8]) -> Option<NoAnswer> {
    Some(match take_u8(b)? {
        1 => NoAnswer::NoGroup(GroupId(take_u64(b)?)),
        2 => NoAnswer::OtherCluster { ours: ClusterId(take_u128(b)?), theirs: ClusterId(take_u128(b)?) },
        3 => NoAnswer::OtherNode { asked: NodeId(take_u64(b)?), found: NodeId(take_u64(b)?) },
        4 => NoAnswer::NotLeader(if take_bool(b)? { Some(NodeId(take_u64(b)?)) } else { None }),
        5 => NoAnswer::Refused(String::from_utf8_lossy(std::mem::take(b)).into_owned()),
        _ => return None,
    })
}

/// Decodes any bytes as a request and as a reply, as they are and behind a head that fits; for fuzzing. Never panics,
/// whatever the bytes; what is decoded says the same when it is encoded again.
#[doc(hidden)]
pub fn fuzz_decode_message(bytes: &[u8]) {
    let (kind, body) = bytes.split_first().map_or((0, bytes), |(k, b)| (*k, b));
    let mut sealed = vec![VERSION, kind, 0, 0];
    sealed.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    sealed.extend_from_slice(body);
    for bytes in [Bytes::copy_from_slice(bytes), sealed.into()] {
        if let Ok((address, request)) = decode_request(&bytes) {
            let frame = encode_request(&address, &request);
            assert!(frame.bytes() <= bytes.len(), "a request grew");
        }
        if let Ok(reply) = decode_reply(&bytes) {
            encode_reply(&reply);
        }
    }
}

#[cfg(test)]
mod tests;
