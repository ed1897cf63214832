//! The head: a shard's rows that are not in blocks yet, and the state machine that makes them out of the log.
//!
//! Constraints
//! - `apply` is a function of the payloads and of the state before them; no clock, no chance, no configuration.
//! - A row is in exactly one generation, and a generation's rows are those of the log entries in `(start, end]`. Queries name
//!   a position and get the generations after it; blocks cover everything up to a position. So nothing is read twice.
//! - A position is a log index plus a base, which the first entry of a log sets. Positions are what manifests and queries name,
//!   and they never go back for a shard, even if its log begins anew on another disk.
//! - Series refs are dense from 0 **per tenant and generation**, in order of arrival, and valid in one epoch (the generation's
//!   number). Each generation's entries bring all labels that they need, so replay needs no registry.
//! - One timestamp of a series has one sample, whatever its kind: equal bits are one sample, otherwise the last write wins,
//!   in the order of the log, across generations too.
//! - Readers hold locks for short slices and decode outside them.
//!
//! - A deletion concerns the generations before it; see `delete`.
//!
//! Format: [`Command`] in the log; `column`, `chunk`, `group` and `side` for samples in memory; `carry` for the checkpoint.
//!
//! Recovery: a checkpoint at the position of a seal holds what outlives a generation ([`Head::restore`]); the entries after
//! it are applied again. Sealed generations that the manifests cover are then dropped ([`Head::release`]).

mod append;
mod arena;
mod bits;
mod carry;
mod chunk;
mod column;
mod command;
mod delete;
mod exemplars;
mod flush;
mod generation;
mod group;
mod histograms;
mod matching;
mod merge;
mod order;
mod postings;
mod read;
mod recent;
mod select;
mod series;
mod side;
mod snapshot;
mod starts;
mod tenant;
mod totals;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use sextant_model::TenantId;
use sextant_proto::{AppendOutcome, DeleteOutcome, ShardError, WriteBatchView};

use append::AppendBuf;
use carry::Carry;

pub use carry::CarryError;
pub use command::Command;
pub use delete::{decode_delete, encode_delete};
pub use flush::{TenantFlush, block_order};
pub use generation::Generation;
pub use tenant::TenantHead;

/// What applying a payload gave.
#[derive(Clone, Debug)]
pub enum Applied {
    /// A batch's outcome.
    Written(Result<AppendOutcome, ShardError>),
    /// A generation ended at this position; the epoch is that of the next one.
    Sealed {
        /// Position of the seal.
        position: u64,
        /// Epoch that begins.
        epoch: u64,
    },
    /// Where a deletion was applied.
    Deleted(Result<DeleteOutcome, ShardError>),
    /// Generations up to a position were released.
    Flushed,
    /// Positions begin behind the one given.
    Begun,
    /// The payload is no command of this version. Nothing was done.
    Unknown,
}

struct Generations {
    /// Oldest first.
    sealed: Vec<Arc<Generation>>,
    active: Arc<Generation>,
}

#[derive(Default)]
struct Writer {
    carry: Carry,
    buf: AppendBuf,
}

/// See the module's documentation.
pub struct Head {
    generations: RwLock<Generations>,
    writer: Mutex<Writer>,
    epoch: AtomicU64,
    /// Position of log index 0.
    base: AtomicU64,
    /// Position of the last payload.
    position: AtomicU64,
    carry_memory: AtomicUsize,
    /// For each tenant the end of the last generation with rows of it that was dropped.
    dropped: RwLock<HashMap<Box<str>, u64, RandomState>>,
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

impl Head {
    /// An empty head: epoch 1, from the log's beginning.
    pub fn new() -> Self {
        Self {
            generations: RwLock::new(Generations {
                sealed: Vec::new(),
                active: Arc::new(Generation::new(1, 0)),
            }),
            writer: Mutex::default(),
            epoch: AtomicU64::new(1),
            base: AtomicU64::new(0),
            position: AtomicU64::new(0),
            carry_memory: AtomicUsize::new(0),
            dropped: RwLock::default(),
        }
    }

    /// Takes up the checkpoint of a seal at a log index in place of everything there was: at a start, or while running, where this
    /// member fell so far behind that the log before the checkpoint is gone elsewhere. What was read before stays as it was;
    /// reads that need rows before the checkpoint get an error from now on, because these are in blocks.
    pub fn restore(&self, index: u64, checkpoint: &[u8]) -> Result<(), CarryError> {
        let (carry, epoch, base) = Carry::decode(checkpoint)?;
        let position = base.checked_add(index).ok_or(CarryError::Damaged)?;
        let mut writer = self.writer.lock();
        self.base.store(base, Ordering::Release);
        self.position.store(position, Ordering::Release);
        self.carry_memory.store(carry.memory(), Ordering::Relaxed);
        // Before the generations go: a reader that finds them gone finds this.
        let ends = carry.tenants.iter().filter(|(_, t)| t.end > 0).map(|(id, t)| (id.clone(), t.end));
        *self.dropped.write() = ends.collect();
        writer.carry = carry;
        let mut generations = self.generations.write();
        generations.sealed.clear();
        generations.active = Arc::new(Generation::new(epoch, position));
        self.epoch.store(epoch, Ordering::Release);
        Ok(())
    }

    /// Applies a payload of the log entry at an index. Called by one thread at a time, in the order of the log.
    pub fn apply(&self, index: u64, payload: &[u8]) -> Applied {
        let position = self.base.load(Ordering::Acquire).saturating_add(index);
        let before = self.position.swap(position, Ordering::AcqRel);
        match Command::decode(payload) {
            Some(Command::Write(batch)) => Applied::Written(self.write(batch, position)),
            Some(Command::Seal) => self.seal(position, index),
            Some(Command::Flushed(covered)) => {
                self.release(covered);
                Applied::Flushed
            }
            // Two leaders may each have begun the log: the first one counts.
            Some(Command::Begin(_)) if before > 0 => Applied::Begun,
            Some(Command::Begin(base)) => {
                self.base.store(base, Ordering::Release);
                self.position.store(base.saturating_add(index), Ordering::Release);
                Applied::Begun
            }
            Some(Command::Delete(body)) => self.delete(position, index, body),
            None => Applied::Unknown,
        }
    }

    /// The position of the payload applied last; 0 where nothing was.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    fn write(&self, batch: &[u8], position: u64) -> Result<AppendOutcome, ShardError> {
        let batch = WriteBatchView::parse(batch).map_err(|e| ShardError::Malformed(e.to_string()))?;
        let header = &batch.header;
        let mut writer = self.writer.lock();
        let Writer { carry, buf } = &mut *writer;
        let active = self.active();
        let epoch = active.epoch();
        let tenant = active.tenant(header.tenant);
        let write_id = {
            let rows = tenant.as_ref().map(|t| t.rows.read());
            let increments =
                || append::has_increments(&batch, rows.as_deref().filter(|_| header.epoch == epoch));
            let write_id = carry.write_id(header.tenant, header.write_id, increments);
            if carry.recent.contains(write_id) {
                return Ok(append::answer_duplicate(&batch, rows.as_deref(), epoch));
            }
            write_id
        };
        if header.epoch != epoch && append::uses_refs(&batch) {
            return Err(ShardError::StaleEpoch { current: epoch });
        }
        append::check(&batch, tenant.as_ref().map(|t| t.rows.read()).as_deref(), buf)?;
        let tenant = match tenant {
            Some(t) => t,
            None => {
                let id = TenantId::new(header.tenant).map_err(|e| ShardError::Malformed(e.to_string()))?;
                active.add_tenant(id, position)
            }
        };
        let mut rows = tenant.rows.write();
        let (memory, samples) = (rows.memory, rows.samples);
        let outcome = append::apply(&batch, &mut rows, carry.tenant(header.tenant), buf, epoch);
        let added = rows.samples.saturating_sub(samples);
        active.count(rows.memory, memory, added, header.now_ms);
        drop(rows);
        // A batch of which nothing was stored is not remembered: its repetition (a limit was raised, say) must count.
        let items = (batch.value_count() + batch.histograms.len() + batch.exemplars.len()) as u64;
        let refused: u64 = outcome.refused.iter().map(|r| u64::from(r.samples)).sum();
        if items == 0 || refused < items {
            carry.recent.insert(write_id, header.now_ms);
        }
        Ok(outcome)
    }

    fn seal(&self, position: u64, index: u64) -> Applied {
        let mut writer = self.writer.lock();
        for tenant in self.active().tenants() {
            writer.carry.tenant(tenant.id().as_str()).end = position;
        }
        writer.carry.expire();
        let mut generations = self.generations.write();
        let epoch = generations.active.epoch() + 1;
        let base = self.base.load(Ordering::Acquire);
        let checkpoint = Bytes::from(writer.carry.encode(epoch, base));
        self.carry_memory.store(writer.carry.memory(), Ordering::Relaxed);
        let next = Arc::new(Generation::new(epoch, position));
        let sealed = std::mem::replace(&mut generations.active, next);
        sealed.seal(position, index, checkpoint);
        generations.sealed.push(sealed);
        self.epoch.store(epoch, Ordering::Release);
        Applied::Sealed { position, epoch }
    }

    /// The epoch whose refs are accepted now.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The generation that takes writes.
    pub fn active(&self) -> Arc<Generation> {
        self.generations.read().active.clone()
    }

    /// Sealed generations, oldest first, released ones too.
    pub fn sealed(&self) -> Vec<Arc<Generation>> {
        self.generations.read().sealed.clone()
    }

    /// The position before the first entry that the head knows of: that of the checkpoint it began with.
    pub fn first_position(&self) -> u64 {
        let generations = self.generations.read();
        generations.sealed.first().unwrap_or(&generations.active).start()
    }

    /// Marks generations up to a position as being in blocks; [`Head::reap`] drops them.
    pub fn release(&self, covered: u64) {
        for g in &self.generations.read().sealed {
            if !g.is_after(covered) {
                g.release();
            }
        }
    }

    /// Drops generations up to a position that were released at least `grace` ago; returns how many.
    pub fn reap(&self, upto: u64, grace: Duration) -> usize {
        let done =
            |g: &Arc<Generation>| !g.is_after(upto) && g.released().is_some_and(|at| at.elapsed() >= grace);
        let mut generations = self.generations.write();
        let (gone, kept): (Vec<_>, Vec<_>) = generations.sealed.drain(..).partition(done);
        generations.sealed = kept;
        let mut dropped = self.dropped.write();
        for g in &gone {
            for tenant in g.tenants() {
                dropped.insert(tenant.id().as_str().into(), g.end().unwrap_or(0));
            }
        }
        drop(dropped);
        // The memory is given back outside the locks.
        drop(generations);
        gone.len()
    }

    /// The generations that are after a position, oldest first. An error where one of them that had rows of the tenant is gone:
    /// the caller's manifest is older than the grace time.
    pub(crate) fn after_for(&self, tenant: &str, after: u64) -> Result<Vec<Arc<Generation>>, ShardError> {
        let found = self.after(after);
        match self.dropped.read().get(tenant) {
            Some(&end) if end > after => Err(ShardError::Unavailable(format!(
                "the rows up to log position {end} are in blocks and no longer in memory, and the manifest in use \
                 covers only {after}: load the newest manifest"
            ))),
            _ => Ok(found),
        }
    }

    /// Bytes of memory over all generations.
    pub fn memory(&self) -> usize {
        let generations = self.generations.read();
        let sealed: usize = generations.sealed.iter().map(|g| g.memory()).sum();
        sealed + generations.active.memory() + self.carry_memory.load(Ordering::Relaxed)
    }

    /// The generations that are after a position, oldest first.
    pub(crate) fn after(&self, position: u64) -> Vec<Arc<Generation>> {
        let generations = self.generations.read();
        let all = generations.sealed.iter().chain([&generations.active]);
        all.filter(|g| g.is_after(position)).cloned().collect()
    }
}
