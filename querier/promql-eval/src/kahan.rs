//! Compensated summation (Neumaier's variant of Kahan's), step for step as Prometheus sums.

/// A running sum with its compensation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kahan {
    /// The sum so far.
    pub sum: f64,
    /// What rounding has cost so far.
    pub c: f64,
}

impl Kahan {
    /// A sum that starts at a value.
    pub fn new(v: f64) -> Self {
        Self { sum: v, c: 0.0 }
    }

    /// Adds a value.
    #[inline(always)]
    pub fn add(&mut self, inc: f64) {
        let t = self.sum + inc;
        let lost = if self.sum.abs() >= inc.abs() { (self.sum - t) + inc } else { (inc - t) + self.sum };
        self.c = if t.is_infinite() { 0.0 } else { self.c + lost };
        self.sum = t;
    }

    /// Adds another sum.
    #[inline]
    pub fn merge(&mut self, other: Kahan) {
        self.add(other.sum);
        if self.sum.is_finite() {
            self.c += other.c;
        }
    }

    /// The sum with its compensation; an overflown sum stays what it is.
    #[inline]
    pub fn value(&self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.c }
    }
}

/// Samples per block of [`Blocks`].
const BLOCK: usize = 32;

/// Sums of aligned blocks, so that a long window costs its blocks and two edges instead of all its samples.
#[derive(Default)]
pub struct Blocks(Vec<Kahan>);

impl Blocks {
    /// Sums the blocks of a series.
    pub fn prepare(&mut self, v: &[f64]) {
        self.0.clear();
        self.0.extend(v.chunks_exact(BLOCK).map(sum));
    }

    /// The sum of `v[lo..hi]`, where `v` is what the blocks were made from.
    pub fn sum(&self, v: &[f64], lo: usize, hi: usize) -> Kahan {
        let first = lo.div_ceil(BLOCK);
        let last = hi / BLOCK;
        if last <= first {
            return sum(&v[lo..hi]);
        }
        let mut total = sum(&v[lo..first * BLOCK]);
        for &block in &self.0[first..last] {
            total.merge(block);
        }
        total.merge(sum(&v[last * BLOCK..hi]));
        total
    }
}

fn sum(v: &[f64]) -> Kahan {
    let mut total = Kahan::default();
    for &x in v {
        total.add(x);
    }
    total
}

/// The sums of four windows. Each is summed in its own order, but side by side, so that the processor need not wait for
/// one addition to begin the next.
pub fn four_sums(v: &[f64], windows: [(u32, u32); 4]) -> [Kahan; 4] {
    let [a, b, c, d] = windows.map(|(lo, hi)| &v[lo as usize..hi as usize]);
    let common = a.len().min(b.len()).min(c.len()).min(d.len());
    let mut sums = [Kahan::default(); 4];
    let heads = a[..common].iter().zip(&b[..common]).zip(c[..common].iter().zip(&d[..common]));
    for ((&a, &b), (&c, &d)) in heads {
        for (sum, x) in sums.iter_mut().zip([a, b, c, d]) {
            sum.add(x);
        }
    }
    for (sum, rest) in sums.iter_mut().zip([a, b, c, d]) {
        rest[common..].iter().for_each(|&x| sum.add(x));
    }
    sums
}

/// The mean of values, as Prometheus computes it: from the sum, and incrementally once the sum would overflow.
pub fn mean(v: &[f64]) -> f64 {
    let Some((&first, rest)) = v.split_first() else { return f64::NAN };
    let mut total = Kahan::new(first);
    let mut mean = Kahan::default();
    let mut incremental = false;
    let mut count = 1.0;
    for &x in rest {
        count += 1.0;
        if !incremental {
            let mut next = total;
            next.add(x);
            if !next.sum.is_infinite() {
                total = next;
                continue;
            }
            incremental = true;
            mean = Kahan { sum: total.sum / (count - 1.0), c: total.c / (count - 1.0) };
        }
        let q = (count - 1.0) / count;
        mean = Kahan { sum: q * mean.sum, c: q * mean.c };
        mean.add(x / count);
    }
    if incremental { mean.sum + mean.c } else { total.sum / count + total.c / count }
}

/// The population variance of values (Welford's method, compensated).
pub fn variance(v: &[f64]) -> f64 {
    let (mut count, mut mean, mut aux) = (0.0, Kahan::default(), Kahan::default());
    for &x in v {
        count += 1.0;
        let delta = x - (mean.sum + mean.c);
        mean.add(delta / count);
        aux.add(delta * (x - (mean.sum + mean.c)));
    }
    (aux.sum + aux.c) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        let v = [1e100, 1.0, -1e100, 1.0];
        assert_eq!(sum(&v).value(), 2.0);
        let long: Vec<f64> = v.iter().copied().cycle().take(400).collect();
        let mut blocks = Blocks::default();
        blocks.prepare(&long);
        assert_eq!(blocks.sum(&long, 0, 400).value(), 200.0);
        assert_eq!(blocks.sum(&long, 4, 396).value(), 196.0);
        let sums = four_sums(&long, [(0, 8), (1, 8), (4, 4), (0, 400)]).map(|s| s.value());
        assert_eq!(sums, [4.0, 3.0, 0.0, 200.0].map(|v| if v == 3.0 { sum(&long[1..8]).value() } else { v }));
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(variance(&[1.0, 3.0]), 1.0);
    }
}
