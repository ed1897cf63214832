//! What a target must not be able to do: make the decoders panic, hang, or take memory for what is not there.

use prost::Message;
use sextant_agent::exposition::{
    Entry, FamilyReader, OpenMetricsParser, ParseError, TextParser,
    fuzz::{fuzz_openmetrics, fuzz_protobuf, fuzz_text},
    native_histogram,
};
use sextant_proto::metric_family::{BucketSpan, FamilyType, Histogram, LabelPair, Metric, MetricFamily};

fn place_in_text(body: &[u8]) -> Option<(usize, usize)> {
    let read = || {
        let mut parser = TextParser::new(body)?;
        while let Some(entry) = parser.next_entry()? {
            if let Entry::Sample(line) = entry {
                line.labels()?;
            }
        }
        Ok::<(), ParseError>(())
    };
    match read() {
        Err(ParseError::Text { line, column, .. }) => Some((line, column)),
        _ => None,
    }
}

#[test]
fn errors_of_the_text_format_name_their_place() {
    for (body, place) in [
        (&b"a 1\nb"[..], (2, 2)),
        (b"a 1\n\n  b{c=\"d\"} x\n", (3, 12)),
        (b"a{b=\"c\",b=\"d\"} 1\n", (1, 9)),
        (b"a{b=\"c} 1\n", (1, 5)),
        (b"a 1\na{b=\"\xff\"} 1\n", (2, 6)),
        (b"a 1 99999999999999999999\n", (1, 5)),
        (b"a 1e999\n", (1, 3)),
        (b"# TYPE a no\n", (1, 10)),
    ] {
        assert_eq!(place_in_text(body), Some(place), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn openmetrics_that_is_cut_is_refused() {
    let body = b"# TYPE a counter\na_total 1 2 # {b=\"c\"} 1 2\n# EOF\n";
    for end in 0..body.len() - 1 {
        let read = || {
            let mut parser = OpenMetricsParser::new(&body[..end])?;
            while parser.next_entry()?.is_some() {}
            Ok::<(), ParseError>(())
        };
        assert!(read().is_err(), "{end}");
    }
}

fn family() -> MetricFamily {
    let histogram = Histogram {
        sample_count: Some(3),
        schema: Some(0),
        positive_span: vec![BucketSpan { offset: Some(0), length: Some(1) }],
        positive_delta: vec![3],
        ..Histogram::default()
    };
    let label = vec![LabelPair { name: Some("a".into()), value: Some("b".into()) }];
    MetricFamily {
        name: Some("h".into()),
        r#type: Some(FamilyType::Histogram as i32),
        metric: vec![Metric { label, histogram: Some(histogram), ..Metric::default() }],
        ..MetricFamily::default()
    }
}

#[test]
fn protobuf_that_is_wrong_is_refused() {
    let good = family().encode_length_delimited_to_vec();
    assert_eq!(FamilyReader::new(&good).filter(Result::is_ok).count(), 1);
    let nameless = MetricFamily { name: None, ..family() }.encode_length_delimited_to_vec();
    let mut second_cut = good.clone();
    second_cut.extend(&good[..good.len() - 1]);
    for (what, body) in [
        ("a length without a message", vec![200, 1]),
        ("a length beyond any message", vec![0xff; 9].into_iter().chain([1]).collect()),
        ("a length that does not end", vec![0xff; 11]),
        ("not a message", vec![3, 0xff, 0xff, 0xff]),
        ("a family without a name", nameless),
        ("a second message that is cut", second_cut),
    ] {
        assert!(FamilyReader::new(&body).any(|f| f.is_err()), "{what}");
    }
}

#[test]
fn native_histograms_must_fit_their_spans() {
    let span = |length| vec![BucketSpan { offset: Some(0), length: Some(length) }];
    let base = family().metric[0].histogram.clone().expect("set above");
    for (what, h) in [
        ("more buckets than counts", Histogram { positive_span: span(2), ..base.clone() }),
        ("a span that is too long", Histogram { positive_span: span(u32::MAX), ..base.clone() }),
        ("fewer buckets than counts", Histogram { positive_delta: vec![1, 1], ..base.clone() }),
        ("a schema that no bucket has", Histogram { schema: Some(9), ..base.clone() }),
        ("buckets without spans", Histogram { negative_span: span(1), ..base.clone() }),
    ] {
        assert!(native_histogram(&h, false).is_err(), "{what}");
    }
}

#[test]
fn a_line_of_very_many_labels_ends() {
    let labels: Vec<String> = (0..200_000).map(|i| format!("l{i}=\"v\"")).collect();
    assert_eq!(place_in_text(format!("a{{{}}} 1\n", labels.join(",")).as_bytes()), None);
    assert!(place_in_text(format!("a{{{},l7777=\"v\"}} 1\n", labels.join(",")).as_bytes()).is_some());
}

/// Changes seeds at random, always in the same way.
#[test]
fn changed_bodies_never_panic() {
    let text = b"# HELP a h\\n\n# TYPE a histogram\na_bucket{le=\"1\",x=\"\\\"y\\\\\"} 1 12\n{\"b.c\",\"d e\"=\"\xc3\xa9\"} NaN\na_sum 1e3\n";
    let openmetrics = b"# TYPE a_s counter\n# UNIT a_s s\na_s_total{b=\"c\"} 1 1.5 # {t=\"i\"} 2 3\na_s_created{b=\"c\"} 1\n# EOF\n";
    let protobuf = family().encode_length_delimited_to_vec();
    let seeds: [(&[u8], fn(&[u8])); 3] =
        [(text, fuzz_text), (openmetrics, fuzz_openmetrics), (&protobuf, fuzz_protobuf)];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    const INTERESTING: &[u8] = b"\"\\{}=,# \n\t\0\xff\x801eN_+";
    for (seed, decode) in seeds {
        for _ in 0..20_000 {
            let mut body = seed.to_vec();
            for _ in 0..=next(4) {
                let at = next(body.len());
                match next(4) {
                    0 => body[at] = INTERESTING[next(INTERESTING.len())],
                    1 => drop(body.remove(at)),
                    2 => body.insert(at, INTERESTING[next(INTERESTING.len())]),
                    _ => body[at] ^= 1 << next(8),
                }
            }
            decode(&body);
        }
        (0..seed.len()).for_each(|end| decode(&seed[..end]));
    }
}
