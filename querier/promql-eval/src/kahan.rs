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

/// Sums from both ends of blocks as long as a window: a window that reaches over the border of two blocks is the end of
/// the one and the beginning of the other, whatever its length. Nothing is subtracted, so that no digit is lost.
#[derive(Default)]
pub struct Halves {
    block: usize,
    /// Per sample, the sum from its block's beginning up to it.
    heads: Vec<Kahan>,
    /// Per sample, the sum from it to its block's end.
    tails: Vec<Kahan>,
}

impl Halves {
    /// Sums a series for windows of up to `block` samples.
    pub fn prepare(&mut self, v: &[f64], block: usize) {
        self.block = block.max(1);
        self.heads.clear();
        self.heads.resize(v.len(), Kahan::default());
        self.tails.clear();
        self.tails.resize(v.len(), Kahan::default());
        let blocks = v.chunks(self.block).zip(self.heads.chunks_mut(self.block));
        for ((v, heads), tails) in blocks.zip(self.tails.chunks_mut(self.block)) {
            let (mut head, mut tail) = (Kahan::default(), Kahan::default());
            // Two chains of additions that do not wait for each other.
            for i in 0..v.len() {
                let k = v.len() - 1 - i;
                head.add(v[i]);
                tail.add(v[k]);
                heads[i] = head;
                tails[k] = tail;
            }
        }
    }

    /// The sum of `v[lo..hi]`, which is not empty, where `v` is what the halves were made from.
    #[inline]
    pub fn sum(&self, v: &[f64], lo: usize, hi: usize) -> Kahan {
        let (first, last) = (lo / self.block, (hi - 1) / self.block);
        if lo == first * self.block && first == last {
            return self.heads[hi - 1];
        }
        if last != first + 1 {
            return sum(&v[lo..hi]);
        }
        let mut total = self.tails[lo];
        total.merge(self.heads[hi - 1]);
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
    let mut running = Variance::default();
    v.iter().enumerate().for_each(|(i, &x)| running.add(x, i as f64 + 1.0));
    running.value(v.len())
}

#[derive(Clone, Copy, Default)]
struct Variance {
    mean: Kahan,
    squares: Kahan,
}

impl Variance {
    /// Adds a value, the `count`-th.
    #[inline(always)]
    fn add(&mut self, x: f64, count: f64) {
        let delta = x - (self.mean.sum + self.mean.c);
        self.mean.add(delta / count);
        self.squares.add(delta * (x - (self.mean.sum + self.mean.c)));
    }

    fn value(&self, n: usize) -> f64 {
        (self.squares.sum + self.squares.c) / n as f64
    }
}

/// The variances of four windows, side by side as in [`four_sums`]; NaN for a window without values.
pub fn four_variances(v: &[f64], windows: [(u32, u32); 4]) -> [f64; 4] {
    let [a, b, c, d] = windows.map(|(lo, hi)| &v[lo as usize..hi as usize]);
    let common = a.len().min(b.len()).min(c.len()).min(d.len());
    let mut four = [Variance::default(); 4];
    let heads = a[..common].iter().zip(&b[..common]).zip(c[..common].iter().zip(&d[..common]));
    for (i, ((&a, &b), (&c, &d))) in heads.enumerate() {
        let count = i as f64 + 1.0;
        for (running, x) in four.iter_mut().zip([a, b, c, d]) {
            running.add(x, count);
        }
    }
    let mut out = [f64::NAN; 4];
    for ((running, rest), out) in four.iter_mut().zip([a, b, c, d]).zip(&mut out) {
        rest.iter().enumerate().skip(common).for_each(|(i, &x)| running.add(x, i as f64 + 1.0));
        *out = running.value(rest.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_terms_survive_large_ones() {
        let v = [1e100, 1.0, -1e100, 1.0];
        assert_eq!(sum(&v).value(), 2.0);
        let long: Vec<f64> = v.iter().copied().cycle().take(400).collect();
        let mut halves = Halves::default();
        halves.prepare(&long, 40);
        for lo in 0..360 {
            let value = halves.sum(&long, lo, lo + 40).value();
            assert_eq!(value, sum(&long[lo..lo + 40]).value(), "from {lo}");
        }
        assert_eq!(halves.sum(&long, 4, 396).value(), 196.0);
        assert_eq!(halves.sum(&long, 41, 49).value(), 4.0);
        let sums = four_sums(&long, [(0, 8), (1, 8), (4, 4), (0, 400)]).map(|s| s.value());
        assert_eq!(sums, [4.0, 3.0, 0.0, 200.0].map(|v| if v == 3.0 { sum(&long[1..8]).value() } else { v }));
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(variance(&[1.0, 3.0]), 1.0);
        let four = [(0, 8), (1, 8), (2, 3), (0, 40)];
        let each = four.map(|(lo, hi)| variance(&long[lo as usize..hi as usize]));
        assert_eq!(four_variances(&long, four), each);
    }
}
