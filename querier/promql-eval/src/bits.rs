//! Presence bits: one row of 64-bit words per series, bit `s` set where step `s` has a value.

/// Sets the bit of a step.
#[inline]
pub fn set(words: &mut [u64], step: usize) {
    words[step / 64] |= 1 << (step % 64);
}

/// Clears the bit of a step.
#[inline]
pub fn clear(words: &mut [u64], step: usize) {
    words[step / 64] &= !(1 << (step % 64));
}

/// Whether the bit of a step is set.
#[inline]
pub fn get(words: &[u64], step: usize) -> bool {
    words[step / 64] >> (step % 64) & 1 == 1
}

/// How many bits are set.
pub fn count(words: &[u64]) -> usize {
    words.iter().map(|w| w.count_ones() as usize).sum()
}

/// Whether any bit is set.
pub fn any(words: &[u64]) -> bool {
    words.iter().any(|&w| w != 0)
}

/// The words of a row of `count` steps that are all present.
pub fn full(count: usize) -> Vec<u64> {
    let mut words = vec![u64::MAX; count.div_ceil(64)];
    if !count.is_multiple_of(64)
        && let Some(last) = words.last_mut()
    {
        *last = (1 << (count % 64)) - 1;
    }
    words
}

/// Whether each of `count` steps is present.
pub fn is_full(words: &[u64], count: usize) -> bool {
    let whole = count / 64;
    words[..whole].iter().all(|&w| w == u64::MAX)
        && (count.is_multiple_of(64) || words[whole] == (1 << (count % 64)) - 1)
}

/// `a |= b`.
pub fn or_into(a: &mut [u64], b: &[u64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a |= b;
    }
}

/// `a & b`.
pub fn and(a: &[u64], b: &[u64]) -> Vec<u64> {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

/// `a & !b`.
pub fn and_not(a: &[u64], b: &[u64]) -> Vec<u64> {
    a.iter().zip(b).map(|(a, b)| a & !b).collect()
}

/// Whether `a` and `b` share a bit.
pub fn intersects(a: &[u64], b: &[u64]) -> bool {
    a.iter().zip(b).any(|(a, b)| a & b != 0)
}

/// The steps whose bit is set, in order.
pub fn ones(words: &[u64]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(i, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                i * 64 + bit
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_length() {
        for n in [1, 63, 64, 65, 130] {
            let mut w = full(n);
            assert!(is_full(&w, n));
            assert_eq!((count(&w), ones(&w).count()), (n, n));
            clear(&mut w, n - 1);
            assert!(!is_full(&w, n) && !get(&w, n - 1));
            set(&mut w, n - 1);
            assert_eq!(ones(&w).last(), Some(n - 1));
        }
    }
}
