//! Values of one series to integers and back.
//!
//! A value is `m / 10^e` with the smallest `e` that gives every value of the series back bit for bit, by one IEEE
//! division, so that every engine agrees. Stored is what remains of `m` after taking away what is regular:
//!
//! ```text
//! order 0:  m[k] = base + mult * r[k]
//! order 1:  m[k] = first + k * base + mult * (r[0] + … + r[k]) + (sum of drops at positions <= k),   r[0] = 0
//! ```
//!
//! `base` is the smallest value (or step), so r is never negative and narrow: byte planes of it compress well. A drop
//! is a counter reset; without it one reset would make every step of the series wide. Values without an integer (NaN,
//! infinities, -0.0) are kept aside with their position; r goes on with the value before.

/// `10^e`.
const POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Beyond it a double does not hold every integer.
const MANTISSA_MAX: i64 = 1 << 53;

/// Where the numbers of a series are stored; the order is the order of rows in the sample table. The classes of `r`
/// are one column: rows of one width lie together, because a byte plane of zeros costs nothing and a mixed one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Nothing is stored: constant value or step.
    None = 0,
    /// `r`, one byte wide.
    R1 = 1,
    /// `r`, two bytes wide.
    R2 = 2,
    /// `r`, up to four bytes wide.
    R4 = 3,
    /// `w`, more than 31 bits wide.
    W = 4,
    /// `v`, doubles as they came.
    V = 5,
}

impl Class {
    /// The classes that have rows.
    pub const STORED: [Class; 5] = [Class::R1, Class::R2, Class::R4, Class::W, Class::V];

    /// The `enc` column: 0 nothing, 1 `r`, 2 `w`, 3 `v`.
    pub fn enc(self) -> i32 {
        match self {
            Self::None => 0,
            Self::R1 | Self::R2 | Self::R4 => 1,
            Self::W => 2,
            Self::V => 3,
        }
    }
}

/// What the series row holds of the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// 0 or 1, see the module's documentation.
    pub order: i32,
    /// See the module's documentation.
    pub first: i64,
    /// See the module's documentation.
    pub base: i64,
    /// See the module's documentation.
    pub mult: i64,
    /// `10^e`.
    pub div: i64,
    /// Positions of values without an integer.
    pub odd_at: Vec<i32>,
    /// Those values.
    pub odd: Vec<f64>,
    /// Positions of drops.
    pub drop_at: Vec<i32>,
    /// By how much the integer drops there (negative).
    pub drop: Vec<i64>,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            order: 0,
            first: 0,
            base: 0,
            mult: 1,
            div: 1,
            odd_at: Vec::new(),
            odd: Vec::new(),
            drop_at: Vec::new(),
            drop: Vec::new(),
        }
    }
}

/// Scales series one after the other; keeps its buffers.
#[derive(Default)]
pub struct Scaler {
    /// Integers, then what is stored of them.
    m: Vec<i64>,
}

impl Scaler {
    /// Scales the values of a series. For [`Class::V`] the values are to be stored as they are; for the classes of `r`
    /// and `w` the slice is, and for [`Class::None`] nothing.
    pub fn scale(&mut self, v: &[f64]) -> (Class, Scale, &[i64]) {
        let mut scale = Scale::default();
        if !self.integers(v, &mut scale) {
            return (Class::V, Scale::default(), &[]);
        }
        let widest = self.reduce(&mut scale);
        let class = match widest {
            0 => Class::None,
            1..=0xff => Class::R1,
            0x100..=0xffff => Class::R2,
            0x1_0000..=0x7fff_ffff => Class::R4,
            _ => Class::W,
        };
        let stored = if class == Class::None { &[][..] } else { &self.m[..] };
        (class, scale, stored)
    }

    /// Fills `m` and the odd values; `false` where the series has to stay as it is.
    fn integers(&mut self, v: &[f64], scale: &mut Scale) -> bool {
        self.m.clear();
        self.m.reserve(v.len());
        let odd_max = (v.len() / 4).max(1);
        let mut e = 0usize;
        for (k, &x) in v.iter().enumerate() {
            if !x.is_finite() || (x == 0.0 && x.is_sign_negative()) {
                if scale.odd_at.len() == odd_max {
                    return false;
                }
                scale.odd_at.push(k as i32);
                scale.odd.push(x);
                let carried = self.m.last().copied().unwrap_or(0);
                self.m.push(carried);
                continue;
            }
            let Some((m, at)) = integer(x, e) else { return false };
            if at > e {
                // Exact: the quotient of both forms is the same real number, as long as the integer is.
                let factor = POWERS[at - e] as i64;
                for older in &mut self.m {
                    match older.checked_mul(factor) {
                        Some(p) if p.abs() <= MANTISSA_MAX => *older = p,
                        _ => return false,
                    }
                }
                e = at;
            }
            self.m.push(m);
        }
        // Odd values at the beginning have no value before them: they take the one after.
        let lead = scale.odd_at.iter().enumerate().take_while(|(i, at)| *i as i32 == **at).count();
        if lead > 0 && lead < self.m.len() {
            let next = self.m[lead];
            self.m[..lead].fill(next);
        }
        scale.div = POWERS[e] as i64;
        true
    }

    /// Replaces `m` by what is stored and returns the largest.
    fn reduce(&mut self, scale: &mut Scale) -> u64 {
        let Some((&first, rest)) = self.m.split_first() else { return 0 };
        let n = self.m.len();
        let (mut low, mut high) = (first, first);
        let (mut step_low, mut step_high, mut rise_low) = (i64::MAX, i64::MIN, i64::MAX);
        let mut falls = 0usize;
        let mut before = first;
        for &m in rest {
            let step = m - before;
            before = m;
            low = low.min(m);
            high = high.max(m);
            step_low = step_low.min(step);
            step_high = step_high.max(step);
            if step < 0 {
                falls += 1;
            } else {
                rise_low = rise_low.min(step);
            }
        }
        if low == high {
            scale.base = first;
            return 0;
        }
        let product_fits = |base: i64| base.unsigned_abs().leading_zeros() > (n as u64).ilog2() + 2;
        let resets = falls > 0 && falls <= (n / 16).max(1) && rise_low != i64::MAX && product_fits(rise_low);
        let (mut bits0, mut bits1, mut bits_reset) = (0u64, 0u64, falls as u64 * 160);
        before = first;
        for &m in rest {
            let step = m - before;
            before = m;
            bits0 += bits(m - low);
            bits1 += bits(step - step_low);
            bits_reset += if step < 0 { 0 } else { bits(step.wrapping_sub(rise_low)) };
        }
        if resets && bits_reset < bits1 && bits_reset < bits0 {
            scale.base = rise_low;
        } else if bits1 < bits0 && product_fits(step_low) {
            scale.base = step_low;
        } else {
            scale.base = low;
            for m in &mut self.m {
                *m -= low;
            }
            return self.divide(scale);
        }
        scale.order = 1;
        scale.first = first;
        before = first;
        for (k, m) in self.m.iter_mut().enumerate() {
            let step = *m - before;
            before = *m;
            *m = if k == 0 {
                0
            } else if step < scale.base {
                scale.drop_at.push(k as i32);
                scale.drop.push(step - scale.base);
                0
            } else {
                step - scale.base
            };
        }
        self.divide(scale)
    }

    /// Divides what is stored by its greatest common divisor and returns the largest.
    fn divide(&mut self, scale: &mut Scale) -> u64 {
        let mut divisor = 0u64;
        let mut widest = 0u64;
        for &m in &self.m {
            widest = widest.max(m.unsigned_abs());
            if divisor != 1 && m != 0 {
                divisor = gcd(m.unsigned_abs(), divisor);
            }
        }
        if divisor > 1 {
            scale.mult = divisor as i64;
            for m in &mut self.m {
                *m /= scale.mult;
            }
            widest /= divisor;
        }
        widest
    }
}

/// The integer of a value and its exponent, at least `e`.
fn integer(x: f64, e: usize) -> Option<(i64, usize)> {
    for (at, &power) in POWERS.iter().enumerate().skip(e) {
        let scaled = x * power;
        if scaled.abs() > MANTISSA_MAX as f64 {
            return None;
        }
        let m = if at == 0 { scaled as i64 } else { (scaled + 0.5f64.copysign(scaled)) as i64 };
        if m as f64 / power == x && m.abs() <= MANTISSA_MAX {
            return Some((m, at));
        }
    }
    None
}

fn bits(x: i64) -> u64 {
    u64::from(64 - x.leading_zeros())
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Values from what is stored. `stored` holds the numbers of positions `0..` up to the last one wanted (nothing for
/// [`Class::None`]); the values of positions `from..from + out.len()` are written.
pub fn rebuild<T: Copy + Into<i64>>(scale: &Scale, stored: Option<&[T]>, from: usize, out: &mut [f64]) {
    if scale.order == 0 {
        match stored {
            None => out.fill(scale.base as f64),
            Some(r) => {
                for (o, &r) in out.iter_mut().zip(r.get(from..).unwrap_or_default()) {
                    *o = scale.base.wrapping_add(scale.mult.wrapping_mul(r.into())) as f64;
                }
            }
        }
    } else {
        let (before, rest) = stored.map_or((&[][..], None), |r| {
            let (before, rest) = r.split_at(from.min(r.len()));
            (before, Some(rest))
        });
        let skipped: i64 = before.iter().fold(0i64, |sum, &r| sum.wrapping_add(r.into()));
        let start = scale
            .first
            .wrapping_add(scale.base.wrapping_mul(from as i64 - 1))
            .wrapping_add(scale.mult.wrapping_mul(skipped));
        add_up(scale, start, rest, from, out);
    }
    if scale.div != 1 {
        let div = scale.div as f64;
        for o in out.iter_mut() {
            *o /= div;
        }
    }
    put_odd(scale, from, out);
}

/// The running sum, from one drop to the next. `m` is the integer before position `from`, drops left out.
fn add_up<T: Copy + Into<i64>>(
    scale: &Scale,
    mut m: i64,
    stored: Option<&[T]>,
    from: usize,
    out: &mut [f64],
) {
    let mut done = 0;
    let drops =
        scale.drop_at.iter().zip(&scale.drop).map(|(&at, &drop)| (usize::try_from(at).unwrap_or(0), drop));
    for (at, drop) in drops.chain([(usize::MAX, 0)]) {
        let end = at.saturating_sub(from).min(out.len());
        if end > done {
            let out = &mut out[done..end];
            match stored {
                None => {
                    for o in out {
                        m = m.wrapping_add(scale.base);
                        *o = m as f64;
                    }
                }
                Some(r) if scale.mult == 1 => {
                    for (o, &r) in out.iter_mut().zip(r.get(done..).unwrap_or_default()) {
                        m = m.wrapping_add(scale.base).wrapping_add(r.into());
                        *o = m as f64;
                    }
                }
                Some(r) => {
                    for (o, &r) in out.iter_mut().zip(r.get(done..).unwrap_or_default()) {
                        m = m.wrapping_add(scale.base).wrapping_add(scale.mult.wrapping_mul(r.into()));
                        *o = m as f64;
                    }
                }
            }
            done = end;
        }
        m = m.wrapping_add(drop);
    }
}

/// Puts the values without an integer where they belong.
pub fn put_odd(scale: &Scale, from: usize, out: &mut [f64]) {
    for (&at, &x) in scale.odd_at.iter().zip(&scale.odd) {
        if let Some(o) =
            usize::try_from(at).ok().and_then(|k| k.checked_sub(from)).and_then(|k| out.get_mut(k))
        {
            *o = x;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(v: &[f64]) -> Class {
        let mut scaler = Scaler::default();
        let (class, scale, stored) = scaler.scale(v);
        if class == Class::V {
            return class;
        }
        let stored = (class != Class::None).then_some(stored);
        assert!(stored.is_none_or(|s| s.iter().all(|&r| r >= 0) && s.len() == v.len()));
        for from in 0..=v.len() {
            for to in [from, v.len(), (from + v.len()) / 2] {
                let mut out = vec![7.5; to.saturating_sub(from)];
                rebuild(&scale, stored.map(|s| &s[..to.max(from)]), from, &mut out);
                let want: Vec<u64> = v[from..from + out.len()].iter().map(|x| x.to_bits()).collect();
                assert_eq!(
                    out.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                    want,
                    "{v:?} {scale:?} {from}"
                );
            }
        }
        class
    }

    #[test]
    fn each_kind_of_series_takes_its_class() {
        assert_eq!(check(&[5.0; 9]), Class::None);
        assert_eq!(check(&[0.1, 0.2, 0.3, 0.4]), Class::None);
        assert_eq!(check(&[f64::NAN]), Class::None);
        assert_eq!(check(&[1.0, 7.0, 9.0, 30.0]), Class::R1);
        assert_eq!(check(&[1.0, 1e9, 2e9 + 1.0, 3e9]), Class::R1);
        assert_eq!(check(&[1.0, 5.0, 1e12, 3.0]), Class::W);
        assert_eq!(check(&[0.123_456_789_012_345_67, 1.0 / 3.0]), Class::V);
        assert_eq!(check(&[9_007_199_254_740_993e3, 1.0]), Class::V);
        assert_eq!(check(&[f64::NAN, f64::NAN, 1.0, 2.0, 3.0]), Class::V);
        assert_eq!(check(&[-0.0, 1.0, f64::INFINITY, 3.0, 4.0, 5.0, 6.0, 7.0]), Class::R1);
    }

    #[test]
    fn a_reset_does_not_make_a_counter_wide() {
        let mut v: Vec<f64> = (0..100).map(|k| 1e6 + f64::from(k * 100 + k % 7)).collect();
        v.extend((0..100).map(|k| f64::from(k * 100 + k % 5)));
        assert_eq!(check(&v), Class::R1);
    }

    proptest! {
        #[test]
        fn values_come_back(
            kind in 0..6,
            v in proptest::collection::vec((any::<i32>(), 0u8..40), 1..60),
        ) {
            let mut sum = 0.0;
            let v: Vec<f64> = v.into_iter().map(|(x, odd)| {
                let x = f64::from(x);
                sum += (x.abs() / 1e5).floor();
                match (kind, odd) {
                    (_, 0) => f64::from_bits(0x7ff0_0000_0000_0002),
                    (_, 1) => -0.0,
                    (_, 2) => f64::NEG_INFINITY,
                    (0, 3) => { sum = 0.0; 0.0 }
                    (0, _) => sum,
                    (1, _) => x,
                    (2, _) => x / 1000.0,
                    (3, _) => x * 1e6,
                    (4, _) => (x / 1e6).round(),
                    _ => x * 1e-7 + 1.0 / 3.0,
                }
            }).collect();
            check(&v);
        }
    }
}
