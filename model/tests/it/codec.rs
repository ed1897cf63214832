//! The byte codec: any histogram comes back bit by bit, and no bytes make it panic or allocate without bound.

use proptest::prelude::*;
use sextant_model::{CUSTOM_BUCKETS_SCHEMA, DecodeError, Histogram, ResetHint, Span};

fn bits(h: &Histogram) -> Vec<u64> {
    let scalars = [h.zero_threshold, h.zero_count, h.count, h.sum];
    let lists = h.positive_buckets.iter().chain(&h.negative_buckets).chain(&h.custom_values);
    scalars.iter().chain(lists).map(|value| value.to_bits()).collect()
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (0_u64..1 << 53).prop_map(|value| value as f64),
        (0_u32..50).prop_map(f64::from),
        Just(-0.0),
        Just(9_007_199_254_740_994.0),
    ]
}

fn any_counts(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        prop::collection::vec((0_u32..1000).prop_map(f64::from), n),
        prop::collection::vec(any_float(), n),
    ]
}

fn any_side() -> impl Strategy<Value = (Vec<Span>, Vec<f64>)> {
    prop::collection::vec((any::<i32>(), 0_u32..6), 0..5).prop_flat_map(|spans| {
        let spans: Vec<_> = spans.into_iter().map(|(offset, length)| Span { offset, length }).collect();
        let n = spans.iter().map(|span| span.length as usize).sum();
        (Just(spans), any_counts(n))
    })
}

prop_compose! {
    fn any_histogram()(
        hint in 0_u8..4,
        schema in prop_oneof![-4_i32..=8, Just(CUSTOM_BUCKETS_SCHEMA), any::<i32>()],
        integer in any::<bool>(),
        scalars in (any_float(), any_float(), any_float(), any_float()),
        positive in any_side(),
        negative in any_side(),
        custom_values in (0_usize..6).prop_flat_map(any_counts),
    ) -> Histogram {
        Histogram {
            reset_hint: [ResetHint::Unknown, ResetHint::Reset, ResetHint::NoReset, ResetHint::Gauge][usize::from(hint)],
            schema,
            integer,
            zero_threshold: scalars.0,
            zero_count: scalars.1,
            count: scalars.2,
            sum: scalars.3,
            positive_spans: positive.0,
            positive_buckets: positive.1,
            negative_spans: negative.0,
            negative_buckets: negative.1,
            custom_values,
        }
    }
}

proptest! {
    #[test]
    fn any_histogram_round_trips(h in any_histogram(), tail in prop::collection::vec(any::<u8>(), 0..4)) {
        let mut bytes = Vec::new();
        h.encode(&mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(&tail);
        let mut input = bytes.as_slice();
        let back = Histogram::decode(&mut input);
        prop_assert_eq!(input, tail.as_slice());
        let back = back.expect("decodes");
        prop_assert_eq!(bits(&back), bits(&h));
        let rest = |h: &Histogram| {
            (h.reset_hint, h.schema, h.integer, h.positive_spans.clone(), h.negative_spans.clone())
        };
        prop_assert_eq!(rest(&back), rest(&h));
        prop_assert!(Histogram::decode(&mut &bytes[..length - 1]).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), valid_start in any::<bool>()) {
        let mut input = bytes;
        if valid_start && input.len() > 1 {
            input[0] = 1;
            input[1] &= 0b111;
        }
        let mut rest = input.as_slice();
        if Histogram::decode(&mut rest).is_err() {
            prop_assert_eq!(rest, input.as_slice());
        }
    }

    #[test]
    fn a_flipped_byte_does_not_panic(h in any_histogram(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = Vec::new();
        h.encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Histogram::decode(&mut bytes.as_slice());
    }

    #[test]
    fn operations_do_not_panic(a in any_histogram(), b in any_histogram(), value in any_float()) {
        let mut sum = a.clone();
        let _ = sum.add(&b);
        let _ = a.clone().sub(&b);
        let mut compensation = None;
        let mut kahan = a.clone();
        let _ = kahan.kahan_add(&b, &mut compensation);
        let _ = kahan.kahan_add(&a, &mut compensation);
        let _ = (a.validate(), a.detect_reset(&b), a.equals(&b), a.same_up_to(&b, 1e-6));
        let _ = (a.quantile(0.3), a.quantile(0.8), a.fraction(-value, value), a.stddev());
        let _ = (a.trim_upper(value), a.trim_lower(value), a.to_string(), a.copy_to_schema(-2));
        let mut compacted = a.clone();
        compacted.compact(3);
    }
}

/// A histogram of schema 0 up to and with the zero count and count: what follows are the positive spans.
const HEAD: [u8; 22] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];

#[test]
fn bad_input() {
    let with_head = |tail: &[u8]| [&HEAD, tail].concat();
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let cases: Vec<(&str, Vec<u8>, DecodeError)> = vec![
        ("nothing", vec![], DecodeError::Truncated),
        ("only a version", vec![1], DecodeError::Truncated),
        ("version", vec![2, 0], DecodeError::UnknownVersion(2)),
        ("flags", vec![1, 0x18], DecodeError::UnknownFlags(0x18)),
        (
            "schema out of range",
            [&[1, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x1f]].concat(),
            DecodeError::OutOfRange,
        ),
        ("endless varint", [&[1, 0][..], &[0x80; 12]].concat(), DecodeError::OutOfRange),
        ("ends in a float", HEAD[..9].to_vec(), DecodeError::Truncated),
        ("form", [&HEAD[..19], &[7]].concat(), DecodeError::UnknownForm(7)),
        ("ends before spans", HEAD.to_vec(), DecodeError::Truncated),
        ("more spans than bytes", with_head(&huge), DecodeError::TooLong(u64::from(u32::MAX))),
        ("two spans in three bytes", with_head(&[2, 0, 0, 0]), DecodeError::TooLong(2)),
        ("span length beyond u32", with_head(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0x1f]), DecodeError::OutOfRange),
        (
            "a span that claims four billion buckets",
            with_head(&[&[1, 0][..], &huge, &[0, 1]].concat()),
            DecodeError::SpansMismatch { claimed: u64::from(u32::MAX), found: 0 },
        ),
        (
            "more buckets than bytes",
            with_head(&[&[0][..], &huge].concat()),
            DecodeError::TooLong(u64::from(u32::MAX)),
        ),
        ("floats that are not there", with_head(&[1, 0, 2, 2, 0, 9, 9]), DecodeError::Truncated),
        (
            "fewer buckets than claimed",
            with_head(&[1, 0, 2, 1, 1, 5]),
            DecodeError::SpansMismatch { claimed: 2, found: 1 },
        ),
        (
            "an inexact integer",
            with_head(&[1, 0, 1, 1, 1, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]),
            DecodeError::OutOfRange,
        ),
    ];
    for (name, bytes, expected) in cases {
        let mut input = bytes.as_slice();
        assert_eq!(Histogram::decode(&mut input), Err(expected), "{name}");
        assert_eq!(input, bytes, "{name}: the input is where it was");
    }
    let whole = with_head(&[0, 0, 1, 0, 0, 1, 0, 1]);
    assert_eq!(Histogram::decode(&mut whole.as_slice()), Ok(Histogram::default()));
}

#[test]
fn lists_are_capped_even_if_the_input_is_long() {
    let n = sextant_model::MAX_LIST_LENGTH as u64 + 1;
    let mut bytes = [&HEAD[..], &[0]].concat();
    let mut varint = n;
    while varint >= 0x80 {
        bytes.push(varint as u8 | 0x80);
        varint >>= 7;
    }
    bytes.push(varint as u8);
    bytes.push(1);
    bytes.resize(bytes.len() + n as usize + 100, 0);
    assert_eq!(Histogram::decode(&mut bytes.as_slice()), Err(DecodeError::TooLong(n)));
}
