//! The leaves of a plan: what each selector asks for, and which of them are read together.

use std::{collections::BTreeMap, sync::Arc};

use sextant_model::Matcher;

use crate::{
    node::{Node, Operator},
    select::{Select, SelectWhat},
    steps::Steps,
};

/// What one selector of a query asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectorRange {
    /// Its matchers.
    pub matchers: Arc<[Matcher]>,
    /// The first millisecond of which samples are needed.
    pub start_ms: i64,
    /// The last millisecond of which samples are needed.
    pub end_ms: i64,
    /// Between evaluation times.
    pub step_ms: i64,
    /// The window of the range function above; 0 for an instant selector.
    pub range_ms: i64,
    /// The function or aggregation right above.
    pub function: &'static str,
}

/// First collects requests, then, once [`Leaves::share`] has merged them, hands out leaves in the same order.
#[derive(Default)]
pub struct Leaves {
    requests: Vec<SelectorRange>,
    /// Per request, its leaf. Empty while collecting.
    leaf_of: Vec<usize>,
    nodes: Vec<Arc<Node>>,
    selects: Vec<Select>,
    next: usize,
}

impl Leaves {
    /// The leaf for a request; the n-th call of both rounds must be for the same request.
    pub fn leaf(&mut self, request: SelectorRange, steps: Steps) -> Arc<Node> {
        if let Some(&id) = self.leaf_of.get(self.next) {
            self.next += 1;
            return self.nodes[id].clone();
        }
        let select = select_of(usize::MAX, &request);
        self.requests.push(request);
        Node::new(Operator::Select(select), vec![], steps)
    }

    /// Merges requests with equal matchers whose times overlap or touch.
    pub fn share(&mut self) {
        let mut by_matchers: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
        for (i, r) in self.requests.iter().enumerate() {
            let mut key: Vec<String> = r.matchers.iter().map(ToString::to_string).collect();
            key.sort();
            key.dedup();
            by_matchers.entry(key).or_default().push(i);
        }
        let mut merged: Vec<(SelectorRange, Vec<usize>)> = Vec::new();
        for mut same in by_matchers.into_values() {
            same.sort_by_key(|&i| self.requests[i].start_ms);
            let first = merged.len();
            for i in same {
                let r = &self.requests[i];
                if let Some((m, of)) = merged[first..].last_mut()
                    && merged_into(m, r)
                {
                    of.push(i);
                } else {
                    merged.push((r.clone(), vec![i]));
                }
            }
        }
        merged.sort_by_key(|(_, of)| of.iter().min().copied());
        self.leaf_of = vec![0; self.requests.len()];
        for (id, (range, of)) in merged.into_iter().enumerate() {
            let select = select_of(id, &range);
            self.nodes.push(Node::new(Operator::Select(select.clone()), vec![], Steps::instant(0)));
            self.selects.push(select);
            for i in of {
                self.leaf_of[i] = id;
            }
        }
        self.next = 0;
    }

    /// The leaves and the requests.
    pub fn into_parts(self) -> (Vec<Select>, Vec<SelectorRange>) {
        (self.selects, self.requests)
    }
}

/// Extends `a` by `b` where their times overlap or touch.
fn merged_into(a: &mut SelectorRange, b: &SelectorRange) -> bool {
    if b.start_ms > a.end_ms.saturating_add(1) {
        return false;
    }
    a.end_ms = a.end_ms.max(b.end_ms);
    a.step_ms = if a.step_ms == 0 { b.step_ms } else { a.step_ms.min(b.step_ms.max(1)) };
    a.range_ms = a.range_ms.max(b.range_ms);
    if a.function != b.function {
        a.function = "";
    }
    true
}

fn select_of(id: usize, r: &SelectorRange) -> Select {
    Select {
        id,
        matchers: r.matchers.clone(),
        start_ms: r.start_ms,
        end_ms: r.end_ms,
        step_ms: r.step_ms,
        range_ms: r.range_ms,
        function: r.function,
        what: SelectWhat::Samples,
    }
}
