//! Order of label sets on their canonical bytes.

use std::cmp::Ordering;

/// The same as `Labels::cmp`, without checking UTF-8 again.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.is_empty(), b.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            _ => {}
        }
        match take(&mut a).cmp(take(&mut b)) {
            Ordering::Equal => {}
            other => return other,
        }
    }
}

/// The order of series in a block: metric name, then labels.
pub fn block_order(a: &[u8], b: &[u8]) -> Ordering {
    metric_name(a).cmp(metric_name(b)).then_with(|| compare(a, b))
}

/// The value of `__name__` in canonical bytes; empty where there is none.
pub fn metric_name(mut bytes: &[u8]) -> &[u8] {
    while !bytes.is_empty() {
        let name = take(&mut bytes);
        let value = take(&mut bytes);
        if name == sextant_model::METRIC_NAME.as_bytes() {
            return value;
        }
    }
    &[]
}

/// Takes one length-prefixed text; all that is left where the bytes are not canonical.
fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let bytes: &'a [u8] = rest;
    let mut n = 0usize;
    let mut at = 0usize;
    for &byte in bytes.iter().take(5) {
        n |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte < 0x80 {
            break;
        }
    }
    let end = at.saturating_add(n).min(bytes.len());
    *rest = &bytes[end..];
    &bytes[at.min(end)..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sextant_model::Labels;

    proptest! {
        #[test]
        fn the_order_is_that_of_labels(
            a in proptest::collection::btree_map("[A-Za-z_]{1,2}", "[a-cé]{1,3}", 0..4),
            b in proptest::collection::btree_map("[A-Za-z_]{1,2}", "[a-cé]{1,3}", 0..4),
        ) {
            let (a, b) = (Labels::from_pairs(a).unwrap(), Labels::from_pairs(b).unwrap());
            prop_assert_eq!(super::compare(a.as_bytes(), b.as_bytes()), a.cmp(&b));
        }
    }
}
