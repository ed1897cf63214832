//! The steps of opening a group: checkpoint, replay, Raft, leadership.

use std::time::Duration;

use openraft::{
    Config, EntryPayload, Raft, ServerState, SnapshotPolicy,
    error::{InitializeError, RaftError},
};

use crate::{
    Bootstrap, GroupId, LogStore, Member, NodeId, OpenError, StateMachine, SyncMode,
    applier::Applier,
    checkpoint::{self, Position},
    store::GroupLog,
    types::{StoredMembership, TypeConfig},
};

/// How long opening a group with one voter may wait for its own election. It takes two syncs; the bound only turns a hanging
/// disk into an error.
const ELECTION_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(f).await.map_err(|e| e.to_string())
}

pub(super) fn raft_config(id: GroupId, heartbeat_interval_ms: u64) -> Result<Config, String> {
    let config = Config {
        cluster_name: format!("group-{id}"),
        heartbeat_interval: heartbeat_interval_ms,
        election_timeout_min: 3 * heartbeat_interval_ms,
        election_timeout_max: 6 * heartbeat_interval_ms,
        // Checkpoints replace snapshots, and the log is purged right behind them.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        // Entries are batches; a request is bounded by bytes in the log reader.
        max_payload_entries: 64,
        ..Config::default()
    };
    config.validate().map_err(|e| e.to_string())
}

/// Gives the state machine the checkpoint, if there is one, and checks that the log goes on from it.
pub(super) fn restore<S: StateMachine>(
    store: &LogStore,
    id: GroupId,
    machine: &S,
) -> Result<Option<Position>, OpenError> {
    let found = checkpoint::read(store.dir(), id)?;
    let covered = found.as_ref().map(|(position, _)| position.log_id.index);
    let purged = store.group(id).state.lock().purged.map(|p| p.index);
    if let Some(purged) = purged
        && covered.is_none_or(|c| c < purged)
    {
        let file = checkpoint::path(store.dir(), id);
        return Err(OpenError::CheckpointMissing { group: id, purged, file, covered });
    }
    let Some((position, app)) = found else { return Ok(None) };
    let restored = machine.restore(position.log_id.index, &app);
    restored.map_err(|source| OpenError::Restore { group: id, source })?;
    Ok(Some(position))
}

/// Applies the committed entries behind the checkpoint, a bounded number of bytes at a time.
pub(super) fn replay(applier: &Applier, node: NodeId, bytes_max: usize) -> Result<(), OpenError> {
    let group = &applier.group;
    let (committed, last) = {
        let state = group.state.lock();
        (state.committed.map(|c| c.index), state.last_log_id().map(|l| l.index))
    };
    let alone = effective_membership(applier)?.membership().voter_ids().eq([node]);
    let Some(end) = (if alone { last } else { committed.min(last) }) else { return Ok(()) };
    let raft_error = |reason: String| OpenError::Raft { group: group.id, reason };
    let mut next = applier.progress.checkpoint().map_or(0, |c| c.index + 1);
    while next <= end {
        let entries = applier.store.read_blocking(group, next..end + 1, bytes_max)?;
        for entry in &entries {
            if entry.log_id.index != next {
                return Err(raft_error(format!("entry {next} is missing, found {}", entry.log_id)));
            }
            applier.apply_entry(entry).map_err(|e| raft_error(e.to_string()))?;
            next += 1;
        }
        if entries.is_empty() {
            return Err(raft_error(format!("entry {next} is missing")));
        }
    }
    Ok(())
}

/// The last membership in the log or, without one, that of the checkpoint.
fn effective_membership(applier: &Applier) -> Result<StoredMembership, OpenError> {
    let last = applier.group.state.lock().memberships_from_last().next();
    if let Some(id) = last {
        let entries = applier.store.read_blocking(&applier.group, id.index..id.index + 1, usize::MAX)?;
        if let Some(EntryPayload::Membership(m)) = entries.into_iter().next().map(|e| e.payload) {
            return Ok(StoredMembership::new(Some(id), m));
        }
    }
    Ok(applier.progress.membership_at(u64::MAX))
}

/// Bootstraps a new group, and makes this node the leader when it is the only voter.
pub(super) async fn lead_if_alone(
    raft: &Raft<TypeConfig>,
    log: &GroupLog,
    node: NodeId,
    bootstrap: &Bootstrap,
    sync: SyncMode,
) -> Result<(), String> {
    let (vote, is_new) = {
        let state = log.state.lock();
        (state.vote, state.vote.is_none() && state.last_log_id().is_none())
    };
    if is_new {
        let members = match bootstrap {
            Bootstrap::Alone => [(node, Member::default())].into(),
            Bootstrap::Members(members) => members.clone(),
            Bootstrap::Join => return Ok(()),
        };
        match raft.initialize(members).await {
            // Another member began with the same list and was faster.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    let alone = raft
        .with_raft_state(move |s| s.membership_state.effective().voter_ids().eq([node]))
        .await
        .map_err(|e| e.to_string())?;
    if !alone {
        if sync != SyncMode::Always {
            tracing::warn!(
                "the log is in relaxed mode: a power loss here may lose what the group's members acknowledged"
            );
        }
        return Ok(());
    }
    // openraft takes up a committed vote of its own at once; see `RaftLog::read_vote` for the relaxed mode.
    let leads = vote.is_some_and(|v| v.committed && v.leader_id.node_id == node) && sync == SyncMode::Always;
    if !is_new && !leads {
        raft.trigger().elect().await.map_err(|e| e.to_string())?;
    }
    let mut metrics = raft.metrics();
    let leading = metrics.wait_for(|m| {
        let caught_up = m.last_applied.map(|l| l.index) >= m.last_log_index;
        m.running_state.is_err() || (m.state == ServerState::Leader && caught_up)
    });
    match tokio::time::timeout(ELECTION_WAIT, leading).await {
        Ok(Ok(m)) => m.running_state.as_ref().map(|_| ()).map_err(|e| e.to_string()),
        Ok(Err(_)) => Err("raft has ended".to_owned()),
        Err(_) => Err(format!("no leader after {ELECTION_WAIT:?}")),
    }
}
