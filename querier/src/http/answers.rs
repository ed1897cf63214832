//! Answers in Prometheus' envelope, and errors in its form.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use sextant_promql_eval::{Cell, QueryResult, StepBlock};
use sextant_proto::ErrorClass;

use super::{
    json::{
        push_float, push_histogram_point, push_labels, push_point, push_quoted_float, push_string,
        push_strings, push_time,
    },
    params::BadParameter,
};
use crate::{engine::PromAnswer, error::QueryError};

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

/// How large a piece of a streamed answer is.
const PIECE: usize = 256 * 1024;

/// A query's answer, streamed piece by piece: the text of a large matrix is never in memory as a whole.
pub fn query_answer(answer: PromAnswer, limit: Option<usize>) -> Response {
    let PromAnswer { result, mut warnings, infos } = answer;
    let rows = match &result {
        QueryResult::Vector(b) | QueryResult::Matrix(b) => b.len(),
        QueryResult::Raw(set) => set.len(),
        QueryResult::Scalar { .. } | QueryResult::String { .. } => 0,
    };
    let shown = limit.unwrap_or(usize::MAX).min(rows);
    if shown < rows {
        warnings.push("results truncated due to limit".to_owned());
    }
    let mut head =
        format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"{}\",\"result\":", result.type_name());
    match &result {
        QueryResult::Scalar { t_ms, v } => push_point(&mut head, *t_ms, *v),
        QueryResult::String { t_ms, s } => {
            head.push('[');
            push_time(&mut head, *t_ms);
            head.push(',');
            push_string(&mut head, s);
            head.push(']');
        }
        _ => head.push('['),
    }
    let is_list = matches!(result, QueryResult::Vector(_) | QueryResult::Matrix(_) | QueryResult::Raw(_));
    let mut next = 0;
    let mut text = head;
    let mut done = false;
    let pieces = std::iter::from_fn(move || {
        if done {
            return None;
        }
        while next < shown && text.len() < PIECE {
            if next > 0 {
                text.push(',');
            }
            push_row(&mut text, &result, next);
            next += 1;
        }
        if next >= shown {
            if is_list {
                text.push(']');
            }
            text.push('}');
            push_notes(&mut text, &warnings, &infos);
            text.push('}');
            done = true;
        }
        Some(Ok::<_, std::convert::Infallible>(bytes::Bytes::from(std::mem::take(&mut text))))
    });
    let mut pieces = pieces.peekable();
    let small = rows <= 64;
    if small {
        let all: Vec<u8> = pieces.by_ref().flat_map(|p| p.unwrap_or_default()).collect();
        return json_response(StatusCode::OK, Body::from(all));
    }
    json_response(StatusCode::OK, Body::from_stream(futures::stream::iter(pieces)))
}

fn push_row(out: &mut String, result: &QueryResult, row: usize) {
    out.push_str("{\"metric\":");
    match result {
        QueryResult::Vector(block) => {
            push_labels(out, &block.labels[row]);
            match block.row(row).get(0) {
                Some(Cell::Float(v)) => {
                    out.push_str(",\"value\":");
                    push_point(out, block.steps.at(0), v);
                }
                Some(Cell::Histogram(h)) => {
                    out.push_str(",\"histogram\":");
                    push_histogram_point(out, block.steps.at(0), &h);
                }
                None => {}
            }
        }
        QueryResult::Matrix(block) => {
            push_labels(out, &block.labels[row]);
            push_matrix_row(out, block, row);
        }
        QueryResult::Raw(set) => {
            push_labels(out, &set.labels[row]);
            let (t, v) = set.floats(row);
            if !t.is_empty() {
                out.push_str(",\"values\":[");
                for (i, (&t, &v)) in t.iter().zip(v).enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    push_point(out, t, v);
                }
                out.push(']');
            }
            let histograms = set.histograms(row);
            if !histograms.is_empty() {
                out.push_str(",\"histograms\":[");
                for (i, h) in histograms.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    push_histogram_point(out, h.t, &h.h);
                }
                out.push(']');
            }
        }
        QueryResult::Scalar { .. } | QueryResult::String { .. } => {}
    }
    out.push('}');
}

fn push_matrix_row(out: &mut String, block: &StepBlock, row: usize) {
    let cells = block.row(row);
    let has_histograms = cells.has_histogram();
    let mut any = false;
    for step in 0..block.steps.count {
        let present = cells.present[step / 64] >> (step % 64) & 1 == 1;
        if !present || (has_histograms && cells.histogram(step).is_some()) {
            continue;
        }
        out.push_str(if any { ",[" } else { ",\"values\":[[" });
        any = true;
        push_time(out, block.steps.at(step));
        out.push_str(",\"");
        push_float(out, cells.values[step]);
        out.push_str("\"]");
    }
    if any {
        out.push(']');
    }
    if !has_histograms {
        return;
    }
    let mut any = false;
    for step in 0..block.steps.count {
        if let Some(h) = cells.histogram(step) {
            out.push_str(if any { "," } else { ",\"histograms\":[" });
            any = true;
            push_histogram_point(out, block.steps.at(step), h);
        }
    }
    if any {
        out.push(']');
    }
}

/// Exemplars of series, in the API's form.
pub fn exemplars_json(series: &[sextant_proto::ExemplarSeries]) -> String {
    let mut out = String::from("[");
    for (i, s) in series.iter().enumerate() {
        out.push_str(if i > 0 { ",{\"seriesLabels\":" } else { "{\"seriesLabels\":" });
        push_labels(&mut out, &s.labels);
        out.push_str(",\"exemplars\":[");
        for (k, e) in s.exemplars.iter().enumerate() {
            out.push_str(if k > 0 { ",{\"labels\":" } else { "{\"labels\":" });
            push_labels(&mut out, &e.labels);
            out.push_str(",\"value\":");
            push_quoted_float(&mut out, e.v);
            out.push_str(",\"timestamp\":");
            push_time(&mut out, e.t);
            out.push('}');
        }
        out.push_str("]}");
    }
    out.push(']');
    out
}
