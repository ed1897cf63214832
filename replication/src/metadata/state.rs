//! The state, and what each command does to it. Pure.
//!
//! Its large parts are behind `Arc`s, so that a copy for the watchers costs little whatever the size.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, NodeId,
    metadata::{Command, CommandError, MemberInfo, VALUE_BYTES_MAX, VALUES_BYTES_MAX},
};

/// What is fixed when the cluster is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// The deployment.
    pub id: ClusterId,
    /// Number of shards. Never changes: series are hashed to them.
    pub shards: u32,
    /// Replicas that each shard should have.
    pub replication: u32,
}

/// Where a member is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Known, not ready for shards yet.
    Joining,
    /// Takes shards.
    Active,
    /// Gives its shards away and takes none.
    Draining,
    /// Holds nothing and is gone, or is given up: its shards are replaced.
    Left,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// What it says of itself.
    #[serde(flatten)]
    pub info: MemberInfo,
    /// Where it is in its life.
    pub state: MemberState,
}

/// Who holds a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Its voters. The first is preferred as the leader. Empty until the shard is made.
    pub replicas: Vec<NodeId>,
}

/// A value of the key-value part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// [`State::revision`] at its last change.
    pub revision: u64,
    /// The value; the roles agree on its form.
    pub text: Arc<str>,
}

/// A claim with an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who has it.
    pub holder: String,
    /// It ends at this time, in milliseconds since 1970 by the proposers' clocks.
    pub expires_ms: u64,
    /// [`State::revision`] when this holder got it: grows with each holder, so it serves as a fencing token.
    pub token: u64,
}

/// The metadata at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Counts the changes.
    pub revision: u64,
    /// Nothing until [`Command::Init`].
    pub cluster: Option<ClusterInfo>,
    /// Members by id, those that left included.
    pub members: Arc<BTreeMap<NodeId, MemberRecord>>,
    /// All shards of the cluster.
    pub shards: Arc<BTreeMap<u32, ShardRecord>>,
    /// Values by namespace and key.
    pub values: BTreeMap<String, Arc<BTreeMap<String, Value>>>,
    /// Bytes of all keys and values.
    pub values_bytes: u64,
    /// Leases by name. Those that have ended are removed by later claims.
    pub leases: Arc<BTreeMap<String, Lease>>,
    /// The latest time that a command brought, in milliseconds since 1970. It never goes back, whatever the proposers' clocks do.
    pub now_ms: u64,
}

/// Leases looked at by one claim to be removed when they have ended: enough to keep pace with claims.
const LEASES_SWEPT: usize = 64;

impl State {
    /// Applies a command. After an error nothing has changed; the result is the new revision, or that of the lease.
    pub fn apply(&mut self, command: &Command) -> Result<u64, CommandError> {
        let next = self.revision + 1;
        let result = match command {
            Command::Init { cluster, shards, replication } => self.init(*cluster, *shards, *replication)?,
            Command::SetReplication { replication } => self.set_replication(*replication)?,
            Command::Register { node, info } => self.register(*node, info)?,
            Command::SetMemberState { node, state } => self.set_member_state(*node, *state)?,
            Command::SetReplicas { shard, expected, replicas } => {
                self.set_replicas(*shard, expected, replicas)?
            }
            Command::Put { namespace, key, expected, value } => {
                self.put(namespace, key, *expected, value.as_deref(), next)?
            }
            Command::Claim { name, holder, ttl_ms, now_ms } => {
                self.claim(name, holder, *ttl_ms, *now_ms, next)?
            }
            Command::Release { name, holder } => self.release(name, holder)?,
        };
        Ok(match result {
            Change::None => self.revision,
            Change::Made => {
                self.revision = next;
                next
            }
            Change::Lease(token) => {
                self.revision = next;
                token
            }
        })
    }

    /// A value by namespace and key.
    pub fn value(&self, namespace: &str, key: &str) -> Option<&Value> {
        self.values.get(namespace)?.get(key)
    }

    fn init(&mut self, id: ClusterId, shards: u32, replication: u32) -> Result<Change, CommandError> {
        match self.cluster {
            Some(known) if known.id == id && known.shards == shards => return Ok(Change::None),
            Some(known) => return Err(CommandError::AlreadyMade { id: known.id, shards: known.shards }),
            None => {}
        }
        if shards == 0 || replication == 0 {
            return Err(CommandError::Invalid("shards and replication must be at least 1".to_owned()));
        }
        self.cluster = Some(ClusterInfo { id, shards, replication });
        self.shards = Arc::new((0..shards).map(|shard| (shard, ShardRecord::default())).collect());
        Ok(Change::Made)
    }

    fn set_replication(&mut self, replication: u32) -> Result<Change, CommandError> {
        let cluster = self.cluster.as_mut().ok_or(CommandError::NotMade)?;
        if replication == 0 {
            return Err(CommandError::Invalid("replication must be at least 1".to_owned()));
        }
        let changed = std::mem::replace(&mut cluster.replication, replication) != replication;
        Ok(if changed { Change::Made } else { Change::None })
    }

    fn register(&mut self, node: NodeId, info: &MemberInfo) -> Result<Change, CommandError> {
        let same_name = |(id, m): (&NodeId, &MemberRecord)| {
            (*id != node && m.info.name == info.name && m.state != MemberState::Left).then_some(*id)
        };
        if let Some(other) = self.members.iter().find_map(same_name) {
            return Err(CommandError::Invalid(format!("node {other} is called {:?} already", info.name)));
        }
        let state = match self.members.get(&node) {
            Some(known) if known.info == *info && known.state != MemberState::Left => {
                return Ok(Change::None);
            }
            Some(known) if known.state != MemberState::Left => known.state,
            _ => MemberState::Joining,
        };
        Arc::make_mut(&mut self.members).insert(node, MemberRecord { info: info.clone(), state });
        Ok(Change::Made)
    }

    fn set_member_state(&mut self, node: NodeId, state: MemberState) -> Result<Change, CommandError> {
        let known = self.members.get(&node).ok_or(CommandError::NotFound)?;
        if known.state == state {
            return Ok(Change::None);
        }
        if let Some(member) = Arc::make_mut(&mut self.members).get_mut(&node) {
            member.state = state;
        }
        Ok(Change::Made)
    }

    fn set_replicas(
        &mut self,
        shard: u32,
        expected: &[NodeId],
        replicas: &[NodeId],
    ) -> Result<Change, CommandError> {
        let found = &self.shards.get(&shard).ok_or(CommandError::NotFound)?.replicas;
        if found == replicas {
            return Ok(Change::None);
        }
        if found != expected {
            return Err(CommandError::Conflict { found: self.revision });
        }
        let is_double = |(i, node): (usize, &NodeId)| replicas[..i].contains(node);
        if replicas.is_empty() || replicas.iter().enumerate().any(is_double) {
            return Err(CommandError::Invalid("a shard needs replicas, each of them once".to_owned()));
        }
        if let Some(record) = Arc::make_mut(&mut self.shards).get_mut(&shard) {
            record.replicas = replicas.to_vec();
        }
        Ok(Change::Made)
    }

    fn put(
        &mut self,
        namespace: &str,
        key: &str,
        expected: Option<u64>,
        value: Option<&str>,
        next: u64,
    ) -> Result<Change, CommandError> {
        let found = self.value(namespace, key);
        let found_revision = found.map_or(0, |v| v.revision);
        if expected.is_some_and(|e| e != found_revision) {
            return Err(CommandError::Conflict { found: found_revision });
        }
        let size = |text: &str| (key.len() + text.len()) as u64;
        let before = found.map_or(0, |v| size(&v.text));
        let after = value.map_or(0, size);
        if value.is_none() && found.is_none() {
            return Ok(Change::None);
        }
        if value.is_some_and(|v| v.len() > VALUE_BYTES_MAX) || namespace.len() + key.len() > 4096 {
            return Err(CommandError::TooLarge { bytes: after, max: VALUE_BYTES_MAX as u64 });
        }
        let total = self.values_bytes - before + after;
        if after > before && total > VALUES_BYTES_MAX {
            return Err(CommandError::TooLarge { bytes: total, max: VALUES_BYTES_MAX });
        }
        self.values_bytes = total;
        let space = self.values.entry(namespace.to_owned()).or_default();
        match value {
            Some(text) => {
                let value = Value { revision: next, text: text.into() };
                Arc::make_mut(space).insert(key.to_owned(), value);
            }
            None => drop(Arc::make_mut(space).remove(key)),
        }
        if space.is_empty() {
            self.values.remove(namespace);
        }
        Ok(Change::Made)
    }

    fn claim(
        &mut self,
        name: &str,
        holder: &str,
        ttl_ms: u64,
        now_ms: u64,
        next: u64,
    ) -> Result<Change, CommandError> {
        let now_ms = self.now_ms.max(now_ms);
        let found = self.leases.get(name).filter(|l| l.expires_ms > now_ms);
        let token = match found {
            Some(lease) if lease.holder != holder => {
                let Lease { holder, expires_ms, .. } = lease.clone();
                return Err(CommandError::Held { holder, expires_ms });
            }
            Some(lease) => lease.token,
            None => next,
        };
        self.now_ms = now_ms;
        let leases = Arc::make_mut(&mut self.leases);
        let ended = |(name, l): (&String, &Lease)| (l.expires_ms <= now_ms).then(|| name.clone());
        let ended: Vec<_> = leases.iter().filter_map(ended).take(LEASES_SWEPT).collect();
        ended.iter().for_each(|name| drop(leases.remove(name)));
        let lease = Lease { holder: holder.to_owned(), expires_ms: now_ms.saturating_add(ttl_ms), token };
        leases.insert(name.to_owned(), lease);
        Ok(Change::Lease(token))
    }

    fn release(&mut self, name: &str, holder: &str) -> Result<Change, CommandError> {
        match self.leases.get(name) {
            Some(lease) if lease.holder == holder => {
                Arc::make_mut(&mut self.leases).remove(name);
                Ok(Change::Made)
            }
            _ => Ok(Change::None),
        }
    }
}

enum Change {
    None,
    Made,
    Lease(u64),
}
