//! Raft's entries as records, and back. Payloads are neither copied on the way out nor on the way in.

use bytes::Bytes;
use openraft::{CommittedLeaderId, EntryPayload};

use crate::{
    GroupId, NodeId, membership,
    record::{Head, Kind, Record, payload_ranges},
    types::{Batch, Entry, LogId, Vote},
};

/// The head of a record about a log id.
pub(crate) fn head(kind: Kind, group: GroupId, log_id: LogId) -> Head {
    Head {
        kind,
        flag: false,
        group: group.0,
        index: log_id.index,
        term: log_id.leader_id.term,
        node: log_id.leader_id.node_id.0,
        payloads: 0,
    }
}

pub(crate) fn vote_head(group: GroupId, vote: &Vote) -> Head {
    Head {
        kind: Kind::Vote,
        flag: vote.committed,
        group: group.0,
        index: 0,
        term: vote.leader_id.term,
        node: vote.leader_id.node_id.0,
        payloads: 0,
    }
}

pub(crate) fn log_id(head: &Head) -> LogId {
    LogId::new(CommittedLeaderId::new(head.term, NodeId(head.node)), head.index)
}

pub(crate) fn vote(head: &Head) -> Vote {
    let node = NodeId(head.node);
    if head.flag { Vote::new_committed(head.term, node) } else { Vote::new(head.term, node) }
}

/// An entry ready to be written: its head, the small part of its body, and its payloads.
pub(crate) struct EntryRecord<'a> {
    pub(crate) head: Head,
    /// Payload lengths of a batch, or an encoded membership.
    pub(crate) inline: Vec<u8>,
    pub(crate) payloads: &'a [Bytes],
}

impl<'a> EntryRecord<'a> {
    pub(crate) fn new(group: GroupId, entry: &'a Entry) -> Self {
        let (kind, inline, payloads): (_, Vec<u8>, &[Bytes]) = match &entry.payload {
            EntryPayload::Blank => (Kind::Blank, Vec::new(), &[]),
            EntryPayload::Normal(Batch(payloads)) => {
                // Payloads beyond u32 are refused by size before they get here.
                let len = |p: &Bytes| u32::try_from(p.len()).unwrap_or(u32::MAX).to_le_bytes();
                (Kind::Batch, payloads.iter().flat_map(len).collect(), payloads)
            }
            EntryPayload::Membership(m) => {
                let mut out = Vec::new();
                membership::encode(m, &mut out);
                (Kind::Membership, out, &[])
            }
        };
        let mut head = head(kind, group, entry.log_id);
        head.payloads = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
        Self { head, inline, payloads }
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.inline.len() + self.payloads.iter().map(Bytes::len).sum::<usize>()
    }
}

/// The entry of a record; `body` is the record's body as a shared buffer. `None` when the body does not fit the kind.
pub(crate) fn decode(record: &Record<'_>, body: &Bytes) -> Option<Entry> {
    let payload = match record.head.kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Batch => {
            EntryPayload::Normal(Batch(payload_ranges(record)?.into_iter().map(|r| body.slice(r)).collect()))
        }
        Kind::Membership => EntryPayload::Membership(membership::decode(record.body)?),
        _ => return None,
    };
    Some(Entry { log_id: log_id(&record.head), payload })
}
