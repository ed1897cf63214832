//! The columnar operators against the naive twin, over seeded cases. `SEXTANT_TWIN_CASES` sets how many,
//! `SEXTANT_TWIN_SEED` where they begin.

use sextant_promql_eval::testing::{Verdict, fuzz_twin};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Pseudo-random bytes (SplitMix64).
fn bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(n + 8);
    while out.len() < n {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out
}

#[test]
fn columns_give_what_the_twin_gives() {
    let (cases, first) = (number("SEXTANT_TWIN_CASES", 2000), number("SEXTANT_TWIN_SEED", 1));
    let mut failed = Vec::new();
    let (mut answers, mut points, mut errors, mut unsure) = (0, 0, 0, 0);
    for seed in first..first + cases {
        let data = bytes(seed.wrapping_mul(0x1234_5678_9abc_def1), 2500);
        let verdict = std::panic::catch_unwind(|| fuzz_twin(&data)).unwrap_or_else(|_| {
            failed.push(seed);
            Verdict::Unsure
        });
        match verdict {
            Verdict::Same(n) => {
                answers += 1;
                points += n;
            }
            Verdict::Error => errors += 1,
            Verdict::Unsure => unsure += 1,
        }
    }
    println!("{answers} answers with {points} points, {errors} errors, {unsure} without a verdict");
    assert!(failed.is_empty(), "seeds {failed:?}");
    assert!(answers > cases * 6 / 10, "too few cases say something");
}
