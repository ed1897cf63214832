//! Answers in Prometheus' envelope, and errors in its form.

mod stream;

use std::fmt::Write;

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use sextant_proto::{ErrorClass, ExemplarSeries};

use self::stream::ResultWriter;
pub use self::stream::streamed;
use super::{
    json::{push_float, push_labels, push_quoted_float, push_string, push_strings, push_time},
    params::BadParameter,
};
use crate::{
    engine::{PromAnswer, QueryStats},
    error::QueryError,
};

/// The warning that `limit` left something out.
pub const TRUNCATED: &str = "results truncated due to limit";

/// An error as Prometheus' API gives it.
#[derive(Debug)]
pub struct ApiError {
    class: ErrorClass,
    message: String,
}

impl ApiError {
    /// An error of a class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// A wrong parameter.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::BadRequest, message)
    }
}

impl From<BadParameter> for ApiError {
    fn from(e: BadParameter) -> Self {
        Self::bad_data(e.0)
    }
}

impl From<QueryError> for ApiError {
    fn from(e: QueryError) -> Self {
        if matches!(e, QueryError::Internal(_) | QueryError::Storage(_)) {
            tracing::warn!(error = %e, "a query failed");
        }
        Self::new(e.class(), e.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = String::from("{\"status\":\"error\",\"errorType\":");
        push_string(&mut body, self.class.prometheus());
        body.push_str(",\"error\":");
        push_string(&mut body, &self.message);
        body.push('}');
        let status = StatusCode::from_u16(self.class.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json_response(status, Body::from(body))
    }
}

/// A JSON answer.
pub fn json_response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// `{"status":"success","data":<data>…}`.
pub fn success(data: &str, warnings: &[String], infos: &[String]) -> Response {
    let mut body = String::with_capacity(data.len() + 64);
    body.push_str("{\"status\":\"success\",\"data\":");
    body.push_str(data);
    push_notes(&mut body, warnings, infos);
    body.push('}');
    json_response(StatusCode::OK, Body::from(body))
}

/// `,"warnings":[…],"infos":[…]`, each where there are any.
fn push_notes(out: &mut String, warnings: &[String], infos: &[String]) {
    for (name, notes) in [("warnings", warnings), ("infos", infos)] {
        if !notes.is_empty() {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            push_strings(out, notes.iter().map(String::as_str));
        }
    }
}

/// `{"status":"success","data":[…]}`, streamed: `push` appends an item.
pub fn success_list<T: Send + 'static>(
    items: Vec<T>,
    push: impl Fn(&mut String, &T) + Send + 'static,
    warnings: Vec<String>,
) -> Response {
    let mut at = 0;
    streamed(move |out| {
        out.push_str(match at {
            0 => "{\"status\":\"success\",\"data\":[",
            _ => ",",
        });
        if let Some(item) = items.get(at) {
            push(out, item);
        }
        at += 1;
        if at < items.len() {
            return true;
        }
        out.push(']');
        push_notes(out, &warnings, &[]);
        out.push('}');
        false
    })
}

/// How an answer's statistics are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsShown {
    /// Not at all.
    None,
    /// Sums.
    Sums,
    /// Sums, and samples for each step.
    All,
    /// The same, and what was read of blocks.
    Detailed,
}

/// A query's answer, streamed piece by piece: the text of a large matrix is never in memory as a whole.
pub fn query_answer(answer: PromAnswer, limit: Option<usize>, shown: StatsShown) -> Response {
    let PromAnswer { result, mut warnings, infos, stats } = answer;
    let mut tail = String::new();
    if shown != StatsShown::None {
        tail.push_str(",\"stats\":");
        push_stats(&mut tail, &stats, shown);
    }
    tail.push('}');
    let mut rows = ResultWriter::new(result, limit);
    if rows.is_cut() {
        warnings.push(TRUNCATED.to_owned());
    }
    push_notes(&mut tail, &warnings, &infos);
    tail.push('}');
    let mut begun = false;
    streamed(move |out| {
        if !begun {
            begun = true;
            let kind = rows.result().type_name();
            out.push_str("{\"status\":\"success\",\"data\":{\"resultType\":\"");
            out.push_str(kind);
            out.push_str("\",\"result\":");
        }
        let more = rows.write(out);
        if !more {
            out.push_str(&tail);
        }
        more
    })
}

/// `{"timings":{…},"samples":{…}}`: seconds, and samples as Prometheus counts them.
fn push_stats(out: &mut String, stats: &QueryStats, shown: StatsShown) {
    let timings = [
        ("evalTotalTime", stats.inner_eval + stats.preparation),
        ("resultSortTime", std::time::Duration::ZERO),
        ("queryPreparationTime", stats.preparation),
        ("innerEvalTime", stats.inner_eval),
        ("execQueueTime", stats.queue),
        ("execTotalTime", stats.total),
    ];
    out.push_str("{\"timings\":{");
    for (i, (name, time)) in timings.into_iter().enumerate() {
        out.push_str(if i > 0 { ",\"" } else { "\"" });
        out.push_str(name);
        out.push_str("\":");
        push_float(out, time.as_nanos() as f64 / 1e9);
    }
    out.push_str("},\"samples\":{");
    if matches!(shown, StatsShown::All | StatsShown::Detailed) {
        out.push_str("\"totalQueryableSamplesPerStep\":[");
        for (i, (t, n)) in stats.samples_per_step.iter().enumerate() {
            out.push_str(if i > 0 { ",[" } else { "[" });
            push_time(out, *t);
            let _ = write!(out, ",{n}]");
        }
        out.push_str("],");
    }
    let _ = write!(
        out,
        "\"totalQueryableSamples\":{},\"peakSamples\":{}}}",
        stats.total_samples, stats.peak_samples
    );
    if shown == StatsShown::Detailed {
        let s = &stats.storage;
        let _ = write!(
            out,
            ",\"storage\":{{\"blocks\":{},\"requests\":{},\"fetchedBytes\":{},\"cachedChunks\":{},\"verifiedChunks\":{},\"decodedPages\":{},\"series\":{},\"samples\":{}}}",
            stats.blocks,
            s.requests,
            s.bytes_fetched,
            s.chunks_cached,
            s.chunks_verified,
            s.pages_decoded,
            s.series,
            s.samples
        );
    }
    out.push('}');
}

/// Appends a series' exemplars in the API's form.
pub fn push_exemplars(out: &mut String, series: &ExemplarSeries) {
    out.push_str("{\"seriesLabels\":");
    push_labels(out, &series.labels);
    out.push_str(",\"exemplars\":[");
    for (k, e) in series.exemplars.iter().enumerate() {
        out.push_str(if k > 0 { ",{\"labels\":" } else { "{\"labels\":" });
        push_labels(out, &e.labels);
        out.push_str(",\"value\":");
        push_quoted_float(out, e.v);
        out.push_str(",\"timestamp\":");
        push_time(out, e.t);
        out.push('}');
    }
    out.push_str("]}");
}
