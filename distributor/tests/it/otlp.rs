//! The translation of OpenTelemetry metrics against Prometheus' own cases.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use serde_json::Value;
use sextant_distributor::otlp::{
    Joined, OtlpOptions, Strategy, SuffixType, label_name, metric_name, parts, translate, unit_name,
};
use sextant_model::{CUSTOM_BUCKETS_SCHEMA, Histogram, Span, deltas_to_counts};

use crate::{
    cases::{Outcome, run, same, text},
    otlp_input::{attribute, attributes, exponential, histogram, metric, request},
};

const SUITE: &str = "otlp-to-prometheus/";

fn suite(file: &str, exceptions: &[(&str, &str)], check: fn(&Value) -> Outcome) {
    run(&format!("{SUITE}{file}.json"), exceptions, check);
}

fn flag(case: &Value, field: &str) -> bool {
    case[field].as_bool().unwrap_or(false)
}

#[test]
fn metric_names() {
    suite("metric_names", &[], |case| {
        let (namer, metric) = (&case["namer"], &case["metric"]);
        let strategy = match (flag(namer, "UTF8Allowed"), flag(namer, "WithMetricSuffixes")) {
            (false, true) => Strategy::UnderscoreEscapingWithSuffixes,
            (false, false) => Strategy::UnderscoreEscapingWithoutSuffixes,
            (true, true) => Strategy::NoUtf8EscapingWithSuffixes,
            (true, false) => Strategy::NoTranslation,
        };
        let kind = match text(metric, "Type") {
            "MetricTypeMonotonicCounter" => SuffixType::MonotonicCounter,
            "MetricTypeGauge" => SuffixType::Gauge,
            _ => SuffixType::Other,
        };
        let unit = text(metric, "Unit");
        let built = metric_name(text(metric, "Name"), unit, kind, text(namer, "Namespace"), strategy);
        let error = text(case, "wantError");
        let expected =
            if error.is_empty() { Ok(text(case, "wantMetricName")) } else { Err(error.to_owned()) };
        same("name", &built.as_deref().map_err(ToString::to_string), &expected)?;
        same("unit", &unit_name(unit, strategy).as_str(), &text(case, "wantUnitName"))
    });
}

#[test]
fn label_names() {
    suite("label_names", &[], |case| {
        let field = |names: &[&'static str]| {
            names.iter().copied().find(|n| case.get(*n).is_some()).unwrap_or("sanitized")
        };
        let forms = [
            (false, false, "sanitized", "wantSanitizationError"),
            (
                true,
                false,
                field(&["sanitizedMultipleUnderscores"]),
                "wantSanitizationMultipleUnderscoresError",
            ),
            (false, true, field(&["sanitizedUnderscoreLabelSanitization"]), "wantSanitizationError"),
            (
                true,
                true,
                field(&[
                    "sanitizedMultipleUnderscoresAndUnderscoreLabelSanitization",
                    "sanitizedMultipleUnderscores",
                ]),
                "wantSanitizationMultipleUnderscoresError",
            ),
        ];
        for (keep_runs, key_prefix, expected, error) in forms {
            let got = label_name(text(case, "label"), Strategy::default(), keep_runs, key_prefix);
            let what = format!("keep runs {keep_runs}, key {key_prefix}");
            match (got, text(case, error)) {
                (Ok(got), "") => same(&what, &got.as_str(), &text(case, expected))?,
                // With the prefix the name has something besides underscores; the cases do not say what then.
                (Ok(_), _) if key_prefix && !keep_runs => {}
                (got, wanted) => same(&what, &got.map_err(|e| e.to_string()), &Err(wanted.to_owned()))?,
            }
        }
        let kept = label_name(text(case, "label"), Strategy::NoTranslation, false, false);
        same("untranslated", &kept.as_deref(), &Ok(text(case, "label")))
    });
}

fn spans(v: &Value) -> Vec<Span> {
    let span = |s: &Value| Span {
        offset: s["Offset"].as_i64().unwrap_or(0) as i32,
        length: s["Length"].as_u64().unwrap_or(0) as u32,
    };
    v.as_array().into_iter().flatten().map(span).collect()
}

fn counts(v: &Value) -> Vec<f64> {
    let deltas: Vec<i64> = v.as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    deltas_to_counts(&deltas)
}

fn same_layout(got: (Vec<Span>, Vec<f64>), want: &Value) -> Outcome {
    same("layout", &got, &(spans(&want["wantSpans"]), counts(&want["wantDeltas"])))
}

#[test]
fn bucket_layouts() {
    suite("convert_buckets_layout", &[], |case| {
        let bucket_counts: Vec<u64> = case["buckets"]["bucket_counts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        let offset = case["buckets"]["offset"].as_i64().unwrap_or(0) as i32;
        for (scale_down, want) in case["wantLayout"].as_object().into_iter().flatten() {
            let scale_down = scale_down.parse().map_err(|e| format!("{e}"))?;
            same_layout(parts::bucket_layout(&bucket_counts, offset, scale_down, true), want)?;
        }
        Ok(())
    });
    suite("convert_explicit_histogram_buckets_to_nhcblayout", &[], |case| {
        let buckets: Vec<u64> =
            case["buckets"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        same_layout(parts::bucket_layout(&buckets, 0, 0, false), &case["wantLayout"])
    });
}

/// The content of a histogram, without reset hint.
fn same_histogram(got: &Histogram, want: &Value) -> Outcome {
    let number = |field: &str| want[field].as_f64().unwrap_or(0.0);
    let schema = want["Schema"].as_i64().unwrap_or(0) as i32;
    let values = want["CustomValues"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let expected = Histogram {
        integer: true,
        reset_hint: got.reset_hint,
        schema,
        count: number("Count"),
        sum: number("Sum"),
        zero_threshold: number("ZeroThreshold"),
        zero_count: number("ZeroCount"),
        positive_spans: spans(&want["PositiveSpans"]),
        positive_buckets: counts(&want["PositiveBuckets"]),
        negative_spans: spans(&want["NegativeSpans"]),
        negative_buckets: counts(&want["NegativeBuckets"]),
        custom_values: values,
    };
    same("histogram", got, &expected)
}

#[test]
fn histograms() {
    suite("exponential_to_native_histogram", &[], |case| {
        match (parts::exponential(&exponential(&case["exponentialHist"]), false), case.get("wantErrMessage"))
        {
            (Ok(got), None) => same_histogram(&got, &case["wantNativeHist"]),
            (got, _) => {
                same("error", &got.map_err(|e| e.to_string()), &Err(text(case, "wantErrMessage").to_owned()))
            }
        }
    });
    suite("histogram_to_custom_buckets_histogram", &[], |case| {
        same_histogram(&parts::custom_buckets(&histogram(&case["hist"]), false), &case["wantNativeHist"])
    });
}

/// One series of a translation, in a form that can be compared: labels, time, start, value or histogram, exemplars.
#[derive(Debug)]
struct Point {
    labels: Vec<(String, String)>,
    t: i64,
    start: i64,
    value: Option<f64>,
    histogram: Option<Histogram>,
    exemplars: Vec<f64>,
}

fn points(translated: &sextant_distributor::otlp::Translated) -> Vec<Point> {
    let mut out = Vec::new();
    for s in &translated.request.series {
        let labels: Vec<_> = s.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let exemplars: Vec<f64> = s.exemplars.iter().map(|e| e.v).collect();
        let mut push = |t, start, value, histogram| {
            let (labels, exemplars) = (labels.clone(), exemplars.clone());
            out.push(Point { labels, t, start, value, histogram, exemplars });
        };
        for x in &s.samples {
            push(x.t, x.start, Some(x.v), None);
        }
        for h in &s.histograms {
            push(h.t, h.start, None, Some(h.h.clone()));
        }
    }
    out
}

fn wanted_labels(want: &Value) -> Vec<(String, String)> {
    let object = want["L"].as_object();
    let name = |n: &String| if n == "BucketLabel" { "le".to_owned() } else { n.clone() };
    let mut out: Vec<_> =
        object.into_iter().flatten().map(|(n, v)| (name(n), v.as_str().unwrap_or("").to_owned())).collect();
    out.sort();
    out
}

/// Compares in the order of the translation, which is that of the cases.
fn same_points(got: &[Point], want: &Value) -> Outcome {
    // A part that several cases share is a list in the list.
    let flat = |v: &'_ Value| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]);
    let want: Vec<Value> = want.as_array().into_iter().flatten().flat_map(flat).collect();
    same("number of points", &got.len(), &want.len())?;
    for (got, want) in got.iter().zip(&want) {
        same("labels", &got.labels, &wanted_labels(want))?;
        same("time", &got.t, &want["T"].as_i64().unwrap_or(0))?;
        same("start", &got.start, &want["ST"].as_i64().unwrap_or(0))?;
        same("value", &got.value, &want["V"].as_f64())?;
        match (&got.histogram, want.get("H")) {
            (Some(h), Some(want)) => same_histogram(h, want)?,
            (h, want) => same("has a histogram", &h.is_some(), &want.is_some())?,
        }
        let exemplars: Vec<f64> =
            want["ES"].as_array().into_iter().flatten().filter_map(|e| e["Value"].as_f64()).collect();
        same("exemplars", &got.exemplars, &exemplars)?;
    }
    Ok(())
}

fn check_points(case: &Value) -> Outcome {
    let custom = text(case, "id").contains("CustomBuckets");
    let options = OtlpOptions {
        strategy: Strategy::UnderscoreEscapingWithoutSuffixes,
        promote_scope: flag(case, "promoteScope"),
        convert_histograms_to_nhcb: custom,
        ..OtlpOptions::default()
    };
    let translated = translate(&request(vec![], &case["scope"], vec![metric(&case["metric"])]), &options);
    same("reasons", &translated.reasons, &vec![])?;
    same_points(&points(&translated), case.get("want").unwrap_or(&case["wantSeries"]))
}

#[test]
fn data_points() {
    for file in [
        "add_sum_number_data_points",
        "add_summary_data_points",
        "add_histogram_data_points",
        "add_exponential_histogram_data_points",
        "add_custom_buckets_histogram_data_points",
    ] {
        suite(file, &[], check_points);
    }
    suite("convert_time_stamp", &[], |case| {
        let points = serde_json::json!([{ "timestamp": case["arg"], "double_value": 1 }]);
        let gauge = serde_json::json!({ "name": "m", "gauge": { "data_points": points } });
        let translated =
            translate(&request(vec![], &Value::Null, vec![metric(&gauge)]), &OtlpOptions::default());
        same("time", &Some(translated.request.series[0].samples[0].t), &case["want"].as_i64())
    });
}

/// Prometheus either refuses increments or stores them as they are; here they are added up where they are stored.
const DELTAS_REFUSED: &str = "increments are taken and added up by the ingester, not refused";

const TEMPORALITY_EXCEPTIONS: &[(&str, &str)] =
    &[("TestTemporality/10", DELTAS_REFUSED), ("TestTemporality/11", DELTAS_REFUSED)];

#[test]
fn temporality() {
    suite("temporality", TEMPORALITY_EXCEPTIONS, |case| {
        let options = OtlpOptions {
            strategy: Strategy::UnderscoreEscapingWithoutSuffixes,
            convert_histograms_to_nhcb: flag(case, "convertToNHCB"),
            ..OtlpOptions::default()
        };
        let metrics = case["inputSeries"].as_array().into_iter().flatten().map(metric).collect();
        let translated = translate(&request(vec![], &Value::Null, metrics), &options);
        let error = text(case, "expectedError");
        let reasons: Vec<String> = if error.is_empty() { vec![] } else { vec![error.to_owned()] };
        same("reasons", &translated.reasons, &reasons)?;
        same_points(&points(&translated), &case["expectedSamples"])
    });
}

#[test]
fn attributes_as_labels() {
    const INTERNAL: &str = "to leave out attributes is an argument of Prometheus' function, not an option";
    let exceptions = [("TestPrometheusConverter_createAttributes/3", INTERNAL)];
    suite("create_attributes", &exceptions, |case| {
        let reserved = case.get("resource").is_some();
        let mut resource =
            vec![attribute("service.name", "service name"), attribute("service.instance.id", "service ID")];
        if reserved {
            resource.push(attribute("_private", "private value"));
            resource.push(attribute("label___multi", "multi value"));
            resource.push(attribute("__reserved__", "reserved value"));
        } else {
            resource.push(attribute("existent-attr", "resource value"));
        }
        let of_point = match case.get("attrs") {
            Some(v) => attributes(v),
            None => vec![
                attribute("metric-attr", "metric value"),
                attribute("metric-attr-other", "metric value other"),
            ],
        };
        let texts = |field: &str| -> Vec<String> {
            case[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        let options = OtlpOptions {
            keep_underscore_runs: flag(case, "labelNamePreserveMultipleUnderscores"),
            label_key_prefix: flag(case, "labelNameUnderscoreSanitization"),
            promote_resource_attributes: texts("promoteResourceAttributes"),
            promote_all_resource_attributes: flag(case, "promoteAllResourceAttributes"),
            ignore_resource_attributes: texts("ignoreResourceAttributes"),
            promote_scope: flag(case, "promoteScope"),
            ..OtlpOptions::default()
        };
        let scope = &case["scope"];
        let of_scope = scope.is_object().then(|| InstrumentationScope {
            name: text(scope, "name").to_owned(),
            version: text(scope, "version").to_owned(),
            attributes: attributes(&scope["attributes"]),
            dropped_attributes_count: 0,
        });
        let base = parts::base_labels(&resource, of_scope.as_ref(), text(scope, "schemaURL"), &options);
        let mut labels = parts::point_labels(&base, &of_point, &options, &mut Joined::default());
        labels.set("__name__", "test_metric");
        let got: Vec<_> = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let wanted = serde_json::json!({ "L": case["expectedLabels"] });
        same("labels", &got, &wanted_labels(&wanted))
    });
}

#[test]
fn type_and_unit_labels() {
    suite("add_type_and_unit_labels", &[], |case| {
        let pairs = |field: &str| -> Vec<(String, String)> {
            let pair = |l: &Value| (text(l, "Name").to_owned(), text(l, "Value").to_owned());
            case[field].as_array().into_iter().flatten().map(pair).collect()
        };
        let point: serde_json::Map<String, Value> =
            pairs("inputLabels").into_iter().map(|(n, v)| (n, Value::String(v))).collect();
        let data = serde_json::json!({ "is_monotonic": true, "data_points": [{ "attributes": point }] });
        let field = if text(&case["metadata"], "Type").ends_with("COUNTER") { "sum" } else { "gauge" };
        let sent = serde_json::json!({ "name": "m", "unit": case["metadata"]["Unit"], field: data });
        let options = OtlpOptions {
            type_and_unit_labels: true,
            strategy: Strategy::UnderscoreEscapingWithoutSuffixes,
            ..OtlpOptions::default()
        };
        let translated = translate(&request(vec![], &Value::Null, vec![metric(&sent)]), &options);
        let labels = &translated.request.series[0].labels;
        let got: Vec<_> = labels
            .iter()
            .filter(|(n, _)| *n != "__name__")
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        let mut expected = pairs("expectedLabels");
        expected.sort();
        same("labels", &got, &expected)
    });
}

/// The cases name OpenTelemetry's types; what they decide here is the suffix and the family's type.
#[test]
fn types() {
    suite("translator_metric_from_otel_metric", &[], |case| {
        let (input, wanted) = (&case["inputMetric"], &case["expectedMetric"]);
        let (field, suffix, metric_type) = match text(wanted, "Type") {
            "MetricTypeGauge" => ("gauge", "_ratio", "gauge"),
            "MetricTypeNonMonotonicCounter" => ("sum", "", "gauge"),
            "MetricTypeMonotonicCounter" => ("sum", "_total", "counter"),
            "MetricTypeHistogram" => ("histogram", "", "histogram"),
            "MetricTypeExponentialHistogram" => ("exponential_histogram", "", "histogram"),
            "MetricTypeSummary" => ("summary", "", "summary"),
            other => return Err(other.to_owned()),
        };
        let mut sent = input.clone();
        let mut data = input.get(field).cloned().unwrap_or_else(|| serde_json::json!({}));
        data["data_points"] = serde_json::json!([{ "count": 0 }]);
        (sent[field], sent["unit"]) = (data, "1".into());
        let options = OtlpOptions::default();
        let translated = translate(&request(vec![], &Value::Null, vec![metric(&sent)]), &options);
        let name = text(wanted, "Name");
        if name.is_empty() {
            return same("rejected", &translated.rejected_points, &1);
        }
        let (family, m) = &translated.request.metadata[0];
        same("name", family, &format!("{name}{suffix}"))?;
        same("type", &m.metric_type.as_str(), &metric_type)?;
        same("unit", &unit_name(text(input, "unit"), options.strategy).as_str(), &text(wanted, "Unit"))
    });
}

#[test]
fn custom_buckets_are_of_their_schema() {
    assert_eq!(parts::custom_buckets(&histogram(&Value::Null), false).schema, CUSTOM_BUCKETS_SCHEMA);
}

#[test]
fn descriptions_of_a_metric_that_differ_are_all_kept() {
    let described = |help: &str| {
        metric(&serde_json::json!({
            "name": "m", "description": help, "gauge": { "data_points": [{ "double_value": 1.0, "timestamp": 1000 }] },
        }))
    };
    let sent = request(vec![], &Value::Null, ["b", "a", "b"].map(described).into());
    let metadata = translate(&sent, &OtlpOptions::default()).request.metadata;
    let helps: Vec<_> = metadata.iter().map(|(name, m)| (name.as_str(), m.help.as_str())).collect();
    assert_eq!(helps, [("m", "a"), ("m", "b")]);
}
