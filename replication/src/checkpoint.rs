//! The file that says up to where a group's state is safe elsewhere: `checkpoint-<group>` in the log's folder.
//!
//! # Constraints
//!
//! * The file is replaced as a whole: written under another name, synced, renamed, the folder synced. Only then may the log be
//!   purged up to its index.
//! * A crash between the rename and the purge leaves entries below the index in the log. They are not applied again.
//! * A checkpoint that came from the leader may lie beyond the end of the log, or in the place of an entry that was never
//!   committed. Purging up to it then takes the whole log away (`GroupState::purge`).
//!
//! # Format
//!
//! Little endian: magic (8), version (`u32`), CRC32C over all that follows (`u32`), group, index, term, node (`u64` each),
//! whether the membership has a log id (`u32`) and that id's index, term, node, bytes of the membership (`u32`), the membership
//! ([`crate::membership`]), the app's bytes up to the end of the file.
//!
//! # Recovery
//!
//! A missing file is an empty state, legal only while the log is complete. A file with a wrong checksum is an error: the log
//! before it is gone, so there is no second source.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use openraft::CommittedLeaderId;

use crate::{
    FaultHook, GroupId, NodeId, OpenError,
    membership::{self, take_u32, take_u64},
    types::{LogId, StoredMembership},
};

const MAGIC: &[u8; 8] = b"SXCHECKP";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;

/// What a checkpoint says of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) log_id: LogId,
    pub(crate) membership: StoredMembership,
}

pub(crate) fn path(dir: &Path, group: GroupId) -> PathBuf {
    dir.join(format!("checkpoint-{group}"))
}

/// Replaces the group's checkpoint. When it returns an error, the old one or the new one is in place, both valid.
pub(crate) fn write(
    dir: &Path,
    group: GroupId,
    position: &Position,
    app: &[u8],
    hook: &FaultHook,
) -> io::Result<()> {
    let mut head = Vec::with_capacity(256);
    encode(group, position, &mut head);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[HEAD_BYTES..]), app);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    replace(dir, group, &[&head, app], hook)
}

/// Replaces the group's checkpoint file by these parts, durably and as a whole.
pub(crate) fn replace(dir: &Path, group: GroupId, parts: &[&[u8]], hook: &FaultHook) -> io::Result<()> {
    let to = path(dir, group);
    let temporary = dir.join(format!("checkpoint-{group}.tmp"));
    let mut file = File::create(&temporary)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    hook("checkpoint.before_rename")?;
    fs::rename(&temporary, &to)?;
    File::open(dir)?.sync_all()?;
    hook("checkpoint.after_rename")
}

fn encode(group: GroupId, position: &Position, out: &mut Vec<u8>) {
    let put_log_id = |out: &mut Vec<u8>, id: LogId| {
        for n in [id.index, id.leader_id.term, id.leader_id.node_id.0] {
            out.extend_from_slice(&n.to_le_bytes());
        }
    };
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&group.0.to_le_bytes());
    put_log_id(out, position.log_id);
    let membership_id = *position.membership.log_id();
    out.extend_from_slice(&u32::from(membership_id.is_some()).to_le_bytes());
    put_log_id(out, membership_id.unwrap_or_default());
    let mut members = Vec::new();
    membership::encode(position.membership.membership(), &mut members);
    // A membership is a few hundred bytes.
    out.extend_from_slice(&(members.len() as u32).to_le_bytes());
    out.extend_from_slice(&members);
}

/// Reads the group's checkpoint; `None` when there is none.
pub(crate) fn read(dir: &Path, group: GroupId) -> Result<Option<(Position, Bytes)>, OpenError> {
    Ok(read_file(dir, group)?.map(|(position, app, _)| (position, app)))
}

/// Reads the group's checkpoint: position, the app's bytes, and the whole content of the file.
pub(crate) fn read_file(dir: &Path, group: GroupId) -> Result<Option<(Position, Bytes, Bytes)>, OpenError> {
    let file = path(dir, group);
    let bytes = match fs::read(&file) {
        Ok(bytes) => Bytes::from(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(OpenError::Checkpoint { file, reason: e.to_string() }),
    };
    match decode(&bytes, group) {
        Ok((position, app)) => Ok(Some((position, app, bytes))),
        Err(reason) => Err(OpenError::Checkpoint { file, reason }),
    }
}

/// Decodes any bytes as a checkpoint, as they are and behind a head that fits; for fuzzing.
pub(crate) fn fuzz_decode_checkpoint(bytes: &[u8]) {
    let group = bytes.first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
    let checksum = crc32c::crc32c(bytes).to_le_bytes();
    let whole = [MAGIC, &VERSION.to_le_bytes()[..], &checksum, bytes].concat();
    for bytes in [bytes, &whole] {
        let _ = decode(&Bytes::copy_from_slice(bytes), GroupId(group));
    }
}

/// The content of a checkpoint file.
pub(crate) fn decode(bytes: &Bytes, group: GroupId) -> Result<(Position, Bytes), String> {
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or("shorter than its head")?;
    let mut after_magic = head.strip_prefix(MAGIC).ok_or("not a checkpoint")?;
    let version = take_u32(&mut after_magic).ok_or("shorter than its head")?;
    if version != VERSION {
        return Err(format!("format version {version}, this program reads version {VERSION}"));
    }
    if take_u32(&mut after_magic) != Some(crc32c::crc32c(body)) {
        return Err("checksum mismatch".to_owned());
    }
    let mut rest = body;
    let parsed = parse(&mut rest).ok_or("its parts do not fit")?;
    let (found, position) = parsed;
    if found != group.0 {
        return Err(format!("it is of group {found}"));
    }
    Ok((position, bytes.slice(bytes.len() - rest.len()..)))
}

fn parse(b: &mut &[u8]) -> Option<(u64, Position)> {
    let log_id = |b: &mut &[u8]| {
        let (index, term, node) = (take_u64(b)?, take_u64(b)?, take_u64(b)?);
        Some(LogId::new(CommittedLeaderId::new(term, NodeId(node)), index))
    };
    let group = take_u64(b)?;
    let at = log_id(b)?;
    let has_id = take_u32(b)? != 0;
    let membership_id = log_id(b)?;
    let n = take_u32(b)? as usize;
    let (members, rest) = b.split_at_checked(n)?;
    *b = rest;
    let members = membership::decode(members)?;
    let membership = StoredMembership::new(has_id.then_some(membership_id), members);
    Some((group, Position { log_id: at, membership }))
}
