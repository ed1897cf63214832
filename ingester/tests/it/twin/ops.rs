//! What is done to the head and its twin.

use proptest::prelude::*;
use sextant_model::{Histogram, Labels, STALE_NAN_BITS};

pub const SERIES: usize = 40;
pub const TENANTS: [&str; 2] = ["a", "b"];

pub fn labels(i: usize) -> Labels {
    let delta = if i >= 36 { "delta" } else { "" };
    let target = if i.is_multiple_of(5) { String::new() } else { format!("host-{}", i / 16) };
    Labels::from_pairs([
        ("__name__", format!("m{}", i % 3)),
        ("job", if target.is_empty() { String::new() } else { "j".to_owned() }),
        ("instance", target),
        ("kind", delta.to_owned()),
        ("i", i.to_string()),
    ])
    .unwrap()
}

pub fn is_delta(i: usize) -> bool {
    i >= 36
}

pub fn histogram(n: u32) -> Histogram {
    Histogram {
        count: f64::from(n),
        sum: f64::from(n) * 1.5,
        zero_threshold: 0.001,
        zero_count: f64::from(n),
        ..Histogram::default()
    }
}

#[derive(Clone, Debug)]
pub enum Value {
    Float(u64),
    Histogram(u32),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub series: usize,
    pub t: i64,
    pub value: Value,
    pub start: i64,
}

#[derive(Clone, Debug)]
pub enum Op {
    Write {
        tenant: usize,
        items: Vec<Item>,
        window: i64,
        max_series: u64,
        by_ref: bool,
    },
    /// Many rows of neighbours, so that rows are sealed.
    Scrapes {
        tenant: usize,
        first: usize,
        count: usize,
        t: i64,
        step: i64,
        rows: usize,
    },
    Repeat(usize),
    Seal,
    /// Deletes by sets of matchers of the test's table.
    Delete {
        tenant: usize,
        selectors: Vec<usize>,
        range: (i64, i64),
    },
}

pub fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (0i64..1000).prop_map(|n| Value::Float((n as f64 / 10.0).to_bits())),
        2 => any::<f64>().prop_map(|v| Value::Float(v.to_bits())),
        1 => prop_oneof![
            Just(STALE_NAN_BITS), Just((-0.0f64).to_bits()), Just(0.0f64.to_bits()), Just(f64::INFINITY.to_bits()),
            // The head's own markers.
            Just(0x7ff4_5e78_7461_6e74u64), Just(0x7ff4_5e78_7461_6e75u64), Just(f64::NAN.to_bits()),
        ].prop_map(Value::Float),
        1 => (0u32..5).prop_map(Value::Histogram),
    ]
}

pub fn op() -> impl Strategy<Value = Op> {
    let item = (
        0..SERIES,
        prop_oneof![4 => 0i64..40, 1 => -5i64..3000],
        value(),
        prop_oneof![3 => Just(0i64), 1 => 1i64..4],
    )
        .prop_map(|(series, t, value, start)| Item { series, t: t * 100, value, start });
    let write = (
        0..TENANTS.len(),
        proptest::collection::vec(item, 1..40),
        prop_oneof![5 => Just(-1i64), 1 => 0i64..5000],
        prop_oneof![5 => Just(0u64), 1 => 1u64..40],
        any::<bool>(),
    );
    let scrapes = (
        0..TENANTS.len(),
        0..SERIES - 6,
        1usize..12,
        -10i64..3000,
        prop_oneof![Just(100i64), 1i64..700],
        1usize..200,
    );
    let range = prop_oneof![
        1 => Just((i64::MIN, i64::MAX)),
        4 => (0i64..40, 0i64..30).prop_map(|(from, n)| (from * 100, (from + n) * 100)),
        1 => (-10i64..3000, 0i64..2000).prop_map(|(from, n)| (from * 100 + 1, (from + n) * 100)),
        1 => Just((500, 499)),
    ];
    let delete = (0..TENANTS.len(), proptest::collection::vec(any::<usize>(), 1..3), range);
    prop_oneof![
        6 => write.prop_map(|(tenant, items, window, max_series, by_ref)| Op::Write { tenant, items, window, max_series, by_ref }),
        3 => scrapes.prop_map(|(tenant, first, count, t, step, rows)| Op::Scrapes { tenant, first, count: count.min(36 - first.min(35)), t: t * 100, step, rows }),
        1 => any::<usize>().prop_map(Op::Repeat),
        1 => Just(Op::Seal),
        2 => delete.prop_map(|(tenant, selectors, range)| Op::Delete { tenant, selectors, range }),
    ]
}
