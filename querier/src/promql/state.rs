//! What the operators of one running query share.

use std::{collections::HashMap, sync::Arc};

use arrow_array::RecordBatch;
use parking_lot::Mutex;
use sextant_promql_eval::{EvalContext, RawSeries, Select, Value};
use sextant_proto::SelectLimits;
use tokio::sync::OnceCell;

use super::{
    batch::{LabelTable, to_batch},
    hints::set_reset_hints,
};
use crate::{
    dataset::{Dataset, Selection},
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
    leaves: Mutex<HashMap<usize, Arc<OnceCell<RecordBatch>>>>,
}

impl QueryState {
    /// The state of a new query.
    pub fn new(dataset: Arc<Dataset>, context: EvalContext, limits: SelectLimits) -> Self {
        Self { dataset, context, limits, labels: LabelTable::default(), leaves: Mutex::default() }
    }

    /// The samples of a leaf, read once however many operators use it.
    pub async fn leaf(&self, select: &Select) -> Result<RecordBatch, QueryError> {
        let cell = self.leaves.lock().entry(select.id).or_default().clone();
        let read = async {
            let selection = Selection {
                matchers: select.matchers.to_vec(),
                start: select.start_ms,
                end: select.end_ms,
                limits: self.limits,
            };
            let mut set = self.dataset.select(&selection).await?;
            set_reset_hints(&mut set);
            self.context.hold(set.sample_count())?;
            to_batch(Value::Series(RawSeries::new(set)), &self.labels)
        };
        cell.get_or_try_init(|| read).await.cloned()
    }
}

impl std::fmt::Debug for QueryState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueryState")
    }
}
