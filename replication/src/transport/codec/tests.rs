//! Every message says the same after its way over the wire, and no bytes do harm.

use std::collections::{BTreeMap, BTreeSet};

use openraft::raft::VoteRequest;
use proptest::prelude::*;

use super::*;
use crate::{Member, types::Membership};

const ADDRESS: Address =
    Address { cluster: ClusterId(7 << 100 | 9), from: NodeId(1), to: NodeId(2), group: GroupId(3) };

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, NodeId(4)), index)
}

fn append() -> AppendRequest {
    let voters = BTreeSet::from([NodeId(1), NodeId(2)]);
    let nodes = BTreeMap::from([1, 2, 3].map(|n| (NodeId(n), Member { address: format!("host-{n}:1") })));
    let payloads: Vec<Bytes> = vec!["one".into(), Bytes::new(), vec![7u8; 70_000].into()];
    let payload = [
        EntryPayload::Blank,
        EntryPayload::Normal(Batch(payloads.into())),
        EntryPayload::Membership(Membership::new(vec![voters], nodes)),
        EntryPayload::Normal(Batch(Vec::new().into())),
    ];
    let entries = payload.into_iter().zip(11..).map(|(payload, i)| Entry { log_id: log_id(5, i), payload });
    AppendRequest {
        vote: Vote::new_committed(5, NodeId(4)),
        prev_log_id: Some(log_id(4, 10)),
        leader_commit: Some(log_id(4, 9)),
        entries: entries.collect(),
    }
}

fn requests() -> Vec<Request> {
    let vote = Vote::new(6, NodeId(1));
    let heartbeat = AppendRequest { vote, prev_log_id: None, leader_commit: None, entries: Vec::new() };
    vec![
        Request::Append(append()),
        Request::Append(heartbeat),
        Request::Ballot(BallotRequest {
            request: VoteRequest { vote, last_log_id: Some(log_id(1, 2)) },
            hand_over: true,
        }),
        Request::Checkpoint(CheckpointRequest { vote, file: "the file".into() }),
        Request::HandOver(HandOverRequest { vote, last: None }),
        Request::ReadIndex,
    ]
}

fn sealed(kind: u8, body: &[u8]) -> Bytes {
    let crc = crc32c::crc32c(body).to_le_bytes();
    [&[VERSION, kind, 0, 0][..], &crc, body].concat().into()
}

#[test]
fn requests_come_back_as_they_were() {
    for request in requests() {
        let bytes = encode_request(&ADDRESS, &request).joined();
        let (address, decoded) = decode_request(&bytes).unwrap();
        assert_eq!(address, ADDRESS);
        assert_eq!(format!("{decoded:?}"), format!("{request:?}"));
    }
}

#[test]
fn payloads_are_not_copied() {
    let bytes = encode_request(&ADDRESS, &Request::Append(append())).joined();
    let Ok((_, Request::Append(decoded))) = decode_request(&bytes) else { panic!("not an append") };
    let EntryPayload::Normal(Batch(payloads)) = &decoded.entries[1].payload else { panic!("not a batch") };
    let within = bytes.as_ptr_range();
    assert!(within.contains(&payloads[2].as_ptr()));
}

#[test]
fn replies_come_back_as_they_were() {
    let vote = Vote::new_committed(3, NodeId(9));
    let replies = || {
        vec![
            Ok(Reply::Append(AppendReply::Success)),
            Ok(Reply::Append(AppendReply::PartialSuccess(Some(log_id(2, 3))))),
            Ok(Reply::Append(AppendReply::PartialSuccess(None))),
            Ok(Reply::Append(AppendReply::Conflict)),
            Ok(Reply::Append(AppendReply::HigherVote(vote))),
            Ok(Reply::Ballot(BallotReply { vote, vote_granted: true, last_log_id: None })),
            Ok(Reply::Checkpoint(vote)),
            Ok(Reply::HandOver),
            Ok(Reply::ReadIndex(77)),
            Err(NoAnswer::NoGroup(GroupId(4))),
            Err(NoAnswer::OtherCluster { ours: ClusterId(1), theirs: ClusterId(u128::MAX) }),
            Err(NoAnswer::OtherNode { asked: NodeId(1), found: NodeId(2) }),
            Err(NoAnswer::NotLeader(Some(NodeId(3)))),
            Err(NoAnswer::NotLeader(None)),
            Err(NoAnswer::Refused("no space".to_owned())),
        ]
    };
    for (reply, same) in replies().into_iter().zip(replies()) {
        assert_eq!(decode_reply(&encode_reply(&reply).joined()), Ok(same));
    }
}

#[test]
fn bad_requests_are_refused_for_what_they_are() {
    let good = encode_request(&ADDRESS, &Request::Append(append())).joined();
    let body = &good[HEAD_BYTES..];
    let changed = |at: usize, to: &[u8]| {
        let mut body = body.to_vec();
        body[at..at + to.len()].copy_from_slice(to);
        sealed(1, &body)
    };
    // Offsets behind the head: address 40, vote 17, previous 25, committed 25, count 4, then the first entry.
    let count = 40 + 17 + 25 + 25;
    let first = count + 4;
    let raw = |at: usize, to: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = to;
        Bytes::from(bytes)
    };
    let table: Vec<(&str, Bytes, BadFrame)> = vec![
        ("nothing", Bytes::new(), BadFrame::Parts),
        ("half a head", good.slice(..7), BadFrame::Parts),
        ("version 0", raw(0, 0), BadFrame::Version(0)),
        ("a newer version", raw(0, VERSION + 1), BadFrame::Version(VERSION + 1)),
        ("a flipped bit in the last payload", raw(good.len() - 1, 6), BadFrame::Checksum),
        ("cut short", good.slice(..good.len() - 1), BadFrame::Checksum),
        ("an unknown kind", sealed(77, body), BadFrame::Kind(77)),
        ("a reply's kind", sealed(NO_ANSWER, body), BadFrame::Kind(NO_ANSWER)),
        ("only an address", sealed(1, &body[..40]), BadFrame::Parts),
        ("a flag that is neither", changed(40 + 17, &[2]), BadFrame::Parts),
        ("four billion entries", changed(count, &[255; 4]), BadFrame::Parts),
        ("one entry more", changed(count, &[5, 0, 0, 0]), BadFrame::Parts),
        ("one entry less", changed(count, &[3, 0, 0, 0]), BadFrame::Parts),
        ("a hole before the first entry", changed(first, &12u64.to_le_bytes()), BadFrame::Parts),
        ("an unknown kind of entry", changed(first + 24, &[9]), BadFrame::Parts),
        ("four billion payloads", changed(first + 25 + 25, &[255; 4]), BadFrame::Parts),
        ("a payload of four gigabytes", changed(first + 25 + 29, &[255; 4]), BadFrame::Parts),
        ("payloads missing", sealed(1, &body[..body.len() - 1]), BadFrame::Parts),
        ("bytes left over", sealed(1, &[body, b"x"].concat()), BadFrame::Parts),
        ("a read index with a body", sealed(5, &body[..41]), BadFrame::Parts),
    ];
    for (what, bytes, expected) in table {
        assert_eq!(decode_request(&bytes).err(), Some(expected), "{what}");
    }
    let last_index = [1u8; 1].iter().chain(&[255; 8]).copied().collect::<Vec<_>>();
    assert_eq!(decode_request(&changed(40 + 17, &last_index)).err(), Some(BadFrame::Parts));
}

#[test]
fn bad_replies_are_refused() {
    for (kind, body) in
        [(1, &[4][..]), (1, &[1, 1, 0]), (2, &[]), (4, &[0]), (5, &[1; 7]), (255, &[9]), (255, &[])]
    {
        assert_eq!(decode_reply(&sealed(kind, body)), Err(BadFrame::Parts), "{kind} {body:?}");
    }
    assert_eq!(decode_reply(&sealed(6, &[])), Err(BadFrame::Kind(6)));
}

proptest! {
    #[test]
    fn no_bytes_do_harm(kind in 0u8..7, body in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz_decode_message(&body);
        fuzz_decode_message(&[&[kind][..], &body].concat());
    }

    #[test]
    fn no_change_of_a_good_message_does_harm(which in 0usize..6, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = encode_request(&ADDRESS, &requests()[which]).joined().to_vec();
        for (at, to) in changes {
            let n = bytes.len();
            bytes[at.index(n)] = to;
        }
        let kind = bytes[1];
        bytes.drain(..HEAD_BYTES - 1);
        bytes[0] = kind;
        fuzz_decode_message(&bytes);
    }
}
