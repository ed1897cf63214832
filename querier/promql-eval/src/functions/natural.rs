//! The order of `sort_by_label`: runs of digits compare as numbers.

use std::cmp::Ordering;

/// Compares texts chunk by chunk, where a chunk is a run of digits or of other characters. Two runs of digits compare
/// by value, then by length (`02` after `2`); other chunks compare as bytes.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.is_empty(), b.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        let (x, y) = (chunk(&mut a), chunk(&mut b));
        let digits = |s: &str| s.as_bytes().first().is_some_and(u8::is_ascii_digit);
        let order = if digits(x) && digits(y) { by_value(x, y) } else { x.cmp(y) };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn chunk<'a>(s: &mut &'a str) -> &'a str {
    let digit = s.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let end = s.bytes().position(|b| b.is_ascii_digit() != digit).unwrap_or(s.len());
    let (head, tail) = s.split_at(end);
    *s = tail;
    head
}

fn by_value(a: &str, b: &str) -> Ordering {
    let (x, y) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    x.len().cmp(&y.len()).then_with(|| x.cmp(y)).then_with(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_inside_of_texts() {
        for (a, b) in [("cpu2", "cpu10"), ("a", "b"), ("1.9", "1.10"), ("", "a"), ("x2", "x02")] {
            assert_eq!(compare(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(compare(b, a), Ordering::Greater, "{b} {a}");
        }
    }
}
