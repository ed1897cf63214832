//! The suites of native histogram operations, one test a file.

use serde_json::Value;
use sextant_model::{Bucket, Combined, Histogram, HistogramError, almost_equal};

use crate::suite::{Counts, histogram, number, run, schema};

fn absolute(value: &Value) -> Histogram {
    histogram(value, Counts::Absolute)
}

/// The same histogram in every field. Sums of floats may differ in the last places.
fn expect_same(got: &Histogram, expected: &Histogram) -> Result<(), String> {
    let close = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| almost_equal(a, b, 1e-12))
    };
    let scalars = |h: &Histogram| [h.count, h.sum, h.zero_count, h.zero_threshold];
    let same = got.schema == expected.schema
        && got.reset_hint == expected.reset_hint
        && got.positive_spans == expected.positive_spans
        && got.negative_spans == expected.negative_spans
        && got.custom_values == expected.custom_values
        && close(&scalars(got), &scalars(expected))
        && close(&got.positive_buckets, &expected.positive_buckets)
        && close(&got.negative_buckets, &expected.negative_buckets);
    if same { Ok(()) } else { Err(format!("got {got:?}\nexpected {expected:?}")) }
}

fn expect_error(result: Result<(), HistogramError>, expected: &Value) -> Result<(), String> {
    let got = result.err().map(|error| error.to_string()).unwrap_or_default();
    let expected = expected.as_str().unwrap_or_default();
    if got == expected { Ok(()) } else { Err(format!("got error {got:?}, expected {expected:?}")) }
}

fn expect_combined(
    case: &Value,
    operation: impl Fn(&mut Histogram, &Histogram) -> Result<Combined, HistogramError>,
) -> Result<(), String> {
    let mut got = absolute(&case["in1"]);
    let other = absolute(&case["in2"]);
    let result = operation(&mut got, &other);
    let flag = |key: &str| case[key].as_bool().unwrap_or(false);
    let report = Combined {
        counter_reset_collision: flag("expCounterResetCollision"),
        nhcb_bounds_reconciled: flag("expNHCBBoundsReconciled"),
    };
    expect_error(result.clone().map(|_| ()), &case["expErrMsg"])?;
    if result.as_ref().is_ok_and(|got| *got != report) {
        return Err(format!("got {result:?}, expected {report:?}"));
    }
    if let Some(expected) = case.get("expected") {
        // The suite's layouts are up to compaction.
        let mut expected = absolute(expected);
        got.compact(0);
        expected.compact(0);
        expect_same(&got, &expected)?;
    }
    Ok(())
}

#[test]
fn add() {
    run("native-histograms/add.json", &[], |case| {
        expect_combined(case, Histogram::add)?;
        expect_combined(case, |h, other| {
            let mut compensation = None;
            let report = h.kahan_add(other, &mut compensation)?;
            let layout_kept = compensation.as_ref().is_some_and(|c| {
                c.positive_buckets.len() == h.positive_buckets.len() && c.negative_spans == h.negative_spans
            });
            assert!(layout_kept, "the compensation follows the layout: {compensation:?}");
            Ok(report)
        })
    });
}

#[test]
fn sub() {
    run("native-histograms/sub.json", &[], |case| expect_combined(case, Histogram::sub));
}

#[test]
fn mul() {
    run("native-histograms/mul.json", &[], |case| {
        let mut h = absolute(&case["in"]);
        h.mul(number(&case["scale"]));
        expect_same(&h, &absolute(&case["expected"]))
    });
}

#[test]
fn div() {
    run("native-histograms/div.json", &[], |case| {
        let mut h = absolute(&case["fh"]);
        h.div(number(&case["s"]));
        expect_same(&h, &absolute(&case["expected"]))
    });
}

#[test]
fn detect_reset() {
    run("native-histograms/detect_reset.json", &[], |case| {
        let got = absolute(&case["current"]).detect_reset(&absolute(&case["previous"]));
        if case["resetExpected"] == got { Ok(()) } else { Err(format!("got {got}")) }
    });
}

fn expect_compacted(case: &Value, counts: Counts) -> Result<(), String> {
    let mut h = histogram(&case["in"], counts);
    h.compact(number(&case["maxEmptyBuckets"]) as usize);
    expect_same(&h, &histogram(&case["expected"], counts))
}

#[test]
fn compact() {
    run("native-histograms/compact.json", &[], |case| expect_compacted(case, Counts::Absolute));
    run("native-histograms/int_histogramcompact.json", &[], |case| expect_compacted(case, Counts::Deltas));
}

#[test]
fn copy_to_schema() {
    run("native-histograms/copy_to_schema.json", &[], |case| {
        let got = absolute(&case["in"]).copy_to_schema(schema(&case["targetSchema"]));
        expect_same(&got.map_err(|error| error.to_string())?, &absolute(&case["expected"]))
    });
}

fn expect_reduced(case: &Value, counts: Counts) -> Result<(), String> {
    let mut h = histogram(&case["origin"], counts);
    expect_error(h.reduce_resolution(schema(&case["targetSchema"])), &case["errorMsg"])?;
    match case.get("target") {
        Some(target) => expect_same(&h, &histogram(target, counts)),
        None => Ok(()),
    }
}

#[test]
fn reduce_resolution() {
    run("native-histograms/reduce_resolution.json", &[], |case| expect_reduced(case, Counts::Absolute));
    run("native-histograms/int_histogramreduceresolution.json", &[], |case| {
        expect_reduced(case, Counts::Deltas)
    });
}

#[test]
fn validate() {
    run("native-histograms/int_histogramvalidation.json", &[], |case| {
        let mut h = histogram(&case["h"], Counts::Deltas);
        expect_error(h.validate(), &case["errMsg"])?;
        if case["skipFloat"] == true {
            return Ok(());
        }
        h.integer = false;
        expect_error(h.validate(), &case["errMsg"])
    });
}

/// Exact but for the bounds, which the JSON reader may round to the neighbouring number.
fn expect_buckets(got: impl Iterator<Item = Bucket>, expected: &Value) -> Result<(), String> {
    let expected = expected.as_array().into_iter().flatten().map(|bucket| Bucket {
        lower: number(&bucket["Lower"]),
        upper: number(&bucket["Upper"]),
        lower_inclusive: bucket["LowerInclusive"] == true,
        upper_inclusive: bucket["UpperInclusive"] == true,
        count: number(&bucket["Count"]),
        index: number(&bucket["Index"]) as i32,
    });
    let (got, expected): (Vec<_>, Vec<_>) = (got.collect(), expected.collect());
    let neighbours = |a: f64, b: f64| a == b || a.to_bits().abs_diff(b.to_bits()) <= 1;
    let same = |(a, b): (&Bucket, &Bucket)| {
        neighbours(a.lower, b.lower)
            && neighbours(a.upper, b.upper)
            && Bucket { lower: b.lower, upper: b.upper, ..*a } == *b
    };
    if got.len() == expected.len() && got.iter().zip(&expected).all(same) {
        return Ok(());
    }
    Err(format!("got {got:?}\nexpected {expected:?}"))
}

#[test]
fn bucket_iterators() {
    run("native-histograms/int_regularbucketiterator.json", &[], |case| {
        let h = histogram(&case["histogram"], Counts::Deltas);
        expect_buckets(h.positive_buckets_iter(), &case["expectedPositiveBuckets"])?;
        expect_buckets(h.negative_buckets_iter(), &case["expectedNegativeBuckets"])
    });
    run("native-histograms/int_cumulativebucketiterator.json", &[], |case| {
        expect_buckets(
            histogram(&case["histogram"], Counts::Deltas).cumulative_buckets(),
            &case["expectedBuckets"],
        )
    });
}

#[test]
fn string() {
    run("native-histograms/int_histogramstring.json", &[], |case| {
        let got = histogram(&case["histogram"], Counts::Deltas).to_string();
        if case["expectedString"] == got { Ok(()) } else { Err(format!("got {got}")) }
    });
}

#[test]
fn to_float() {
    // The cases have a destination only, with spans and buckets that do not fit: what counts is that reusing the
    // destination leaves nothing of it behind, which a copy cannot.
    run("native-histograms/int_histogramtofloat.json", &[], |case| {
        let source = Histogram { count: 1.0, integer: true, ..Histogram::default() };
        let mut destination = absolute(&case["fh"]);
        destination.clone_from(&source);
        if destination.equals(&source) { Ok(()) } else { Err(format!("got {destination:?}")) }
    });
}
