//! How the series of two vectors pair up.

use std::collections::HashMap;

use sextant_model::{Labels, LabelsBuilder, METRIC_NAME};
use sextant_promql::{Cardinality, VectorMatching};

use crate::{context::EvalContext, error::EvalError, names::is_metadata};

/// Work for a label set that is filtered and looked up.
pub const UNITS_PER_LABELS: usize = 64;

/// The signatures of both sides' series: series with one signature match.
pub struct Signatures {
    /// Per series of the left side, its signature.
    pub lhs: Vec<usize>,
    /// Per series of the right side.
    pub rhs: Vec<usize>,
    /// How many signatures there are.
    pub count: usize,
}

impl Signatures {
    /// Compares each label set once.
    pub fn new(
        matching: &VectorMatching,
        lhs: &[Labels],
        rhs: &[Labels],
        ctx: &EvalContext,
    ) -> Result<Self, EvalError> {
        let pace = ctx.cancel.pace();
        let mut ids: HashMap<Labels, usize> = HashMap::with_capacity(lhs.len());
        let mut of = |all: &[Labels]| -> Result<Vec<usize>, EvalError> {
            all.iter()
                .map(|labels| {
                    pace.spend(UNITS_PER_LABELS)?;
                    let next = ids.len();
                    Ok(*ids.entry(match_labels(matching, labels)).or_insert(next))
                })
                .collect()
        };
        let (lhs, rhs) = (of(lhs)?, of(rhs)?);
        Ok(Self { lhs, rhs, count: ids.len() })
    }
}

/// The labels that a series is matched by.
pub fn match_labels(matching: &VectorMatching, labels: &Labels) -> Labels {
    let listed = |n: &str| matching.labels.iter().any(|l| l == n);
    if matching.on { labels.filter(listed) } else { labels.filter(|n| n != METRIC_NAME && !listed(n)) }
}

/// The labels of the result of a match; `many` is the side that may have several series per signature.
pub fn result_labels(
    matching: &VectorMatching,
    changes_meaning: bool,
    many: &Labels,
    one: &Labels,
) -> Labels {
    let listed = |n: &str| matching.labels.iter().any(|l| l == n);
    let one_to_one = matching.card == Cardinality::OneToOne;
    let base =
        many.filter(|n| !(changes_meaning && is_metadata(n)) && (!one_to_one || listed(n) == matching.on));
    if matching.include.is_empty() {
        return base;
    }
    let mut builder: LabelsBuilder = base.to_builder();
    for name in &matching.include {
        builder.set(name, one.get(name).unwrap_or(""));
    }
    builder.build()
}
