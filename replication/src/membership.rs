//! A group's members as bytes: the body of a membership record, and a part of every checkpoint.
//!
//! Format, little endian: number of voter sets (`u32`; two during a change), each as a count and its node ids; number of nodes,
//! each as id, bytes of the address, address.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Member, NodeId, types::Membership};

pub(crate) fn encode(membership: &Membership, out: &mut Vec<u8>) {
    let count = |out: &mut Vec<u8>, n: usize| {
        // A group has a handful of members, and addresses are short.
        out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    };
    count(out, membership.get_joint_config().len());
    for voters in membership.get_joint_config() {
        count(out, voters.len());
        voters.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
    }
    count(out, membership.nodes().count());
    for (id, member) in membership.nodes() {
        out.extend_from_slice(&id.0.to_le_bytes());
        count(out, member.address.len());
        out.extend_from_slice(member.address.as_bytes());
    }
}

/// `None` when the bytes are not exactly one membership.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Membership> {
    let b = &mut bytes;
    let mut configs = Vec::new();
    for _ in 0..take_u32(b)? {
        let mut voters = BTreeSet::new();
        for _ in 0..take_u32(b)? {
            voters.insert(NodeId(take_u64(b)?));
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..take_u32(b)? {
        let id = NodeId(take_u64(b)?);
        let n = take_u32(b)? as usize;
        let address = String::from_utf8(take(b, n)?.to_vec()).ok()?;
        nodes.insert(id, Member { address });
    }
    // openraft would make up an address for a voter without one.
    let all_known = configs.iter().flatten().all(|voter| nodes.contains_key(voter));
    (b.is_empty() && all_known).then(|| Membership::new(configs, nodes))
}

fn take<'a>(b: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, rest) = b.split_at_checked(n)?;
    *b = rest;
    Some(head)
}

pub(crate) fn take_u32(b: &mut &[u8]) -> Option<u32> {
    take(b, 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(crate) fn take_u64(b: &mut &[u8]) -> Option<u64> {
    take(b, 8)?.try_into().ok().map(u64::from_le_bytes)
}
