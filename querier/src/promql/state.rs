//! What the operators of one running query share.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use sextant_model::SeriesSet;
use sextant_promql_eval::{EvalContext, Node, RawSeries, Select};
use sextant_proto::SelectLimits;
use tokio::sync::OnceCell;

use super::{batch::LabelTable, hints::set_reset_hints};
use crate::{
    dataset::{Dataset, SelectParts, Selection},
    error::QueryError,
};

/// Shared by the operators of one query.
pub struct QueryState {
    /// What the query sees.
    pub dataset: Arc<Dataset>,
    /// Annotations, cancellation, sample budget.
    pub context: EvalContext,
    /// Label sets by id.
    pub labels: LabelTable,
    /// Bounds on what is read.
    pub limits: SelectLimits,
    /// Leaves that several operators use: read once and kept.
    leaves: Mutex<HashMap<usize, Arc<OnceCell<RawSeries>>>>,
    /// Leaves that one operator uses: read part by part.
    parts: Mutex<HashMap<usize, Arc<OnceCell<Arc<SelectParts>>>>>,
    shared: HashSet<usize>,
}

/// About how many samples a part of a leaf has: 16 bytes each, so that it stays in a core's cache while operators work on it.
const PART_SAMPLES: usize = 65_536;

/// The leaves that occur more than once in a plan.
fn shared_leaves(root: &Node) -> HashSet<usize> {
    let (mut seen, mut shared) = (HashSet::new(), HashSet::new());
    let mut open = vec![root];
    while let Some(node) = open.pop() {
        if let Some(select) = node.as_select()
            && !seen.insert(select.id)
        {
            shared.insert(select.id);
        }
        open.extend(node.children.iter().map(Arc::as_ref));
    }
    shared
}

impl QueryState {
    /// The state of a new query with the plan `root`.
    pub fn new(dataset: Arc<Dataset>, context: EvalContext, limits: SelectLimits, root: &Node) -> Self {
        Self {
            dataset,
            context,
            limits,
            labels: LabelTable::default(),
            leaves: Mutex::default(),
            parts: Mutex::default(),
            shared: shared_leaves(root),
        }
    }

    /// Whether a leaf's samples are kept until the query ends.
    pub fn is_kept(&self, select: &Select) -> bool {
        self.shared.contains(&select.id)
    }

    fn selection(&self, select: &Select) -> Selection {
        Selection {
            matchers: select.matchers.to_vec(),
            start: select.start_ms,
            end: select.end_ms,
            limits: self.limits,
        }
    }

    /// The parts of a leaf that is not kept, for so many partitions.
    pub async fn parts(&self, select: &Select, partitions: usize) -> Result<Arc<SelectParts>, QueryError> {
        let cell = self.parts.lock().entry(select.id).or_default().clone();
        let find = async {
            let parts = self.dataset.select_parts(&self.selection(select), PART_SAMPLES, partitions).await?;
            Ok(Arc::new(parts))
        };
        cell.get_or_try_init(|| find).await.cloned()
    }

    /// One part; its samples are held until whoever takes it releases them.
    pub async fn part(&self, parts: &SelectParts, i: usize) -> Result<RawSeries, QueryError> {
        self.hold(parts.read(i).await?)
    }

    fn hold(&self, mut set: SeriesSet) -> Result<RawSeries, QueryError> {
        set_reset_hints(&mut set);
        let raw = RawSeries::new(set);
        self.context.hold_read(raw.held_samples())?;
        Ok(raw)
    }

    /// The samples of a leaf, read once however many operators use it.
    pub async fn leaf(&self, select: &Select) -> Result<RawSeries, QueryError> {
        let cell = self.leaves.lock().entry(select.id).or_default().clone();
        let read = async { self.hold(self.dataset.select(&self.selection(select)).await?) };
        cell.get_or_try_init(|| read).await.cloned()
    }
}

impl std::fmt::Debug for QueryState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueryState")
    }
}
