//! Answers as streams of JSON text: each piece is written when the one before it has been sent.

use axum::{body::Body, http::StatusCode, response::Response};
use bytes::Bytes;
use futures::StreamExt;
use sextant_promql_eval::{Cell, QueryResult};

use super::{
    super::json::{
        push_float, push_histogram_point, push_labels, push_point, push_scalar, push_string, push_time,
    },
    json_response,
};

/// How large a piece of a streamed answer is, in bytes.
const PIECE: usize = 64 * 1024;

/// Points that are written between two looks at the size of a piece.
const POINTS: usize = 512;

/// A JSON answer of what `write` appends; `write` is called until it returns false. What fits into one piece is sent with
/// its length; the rest as a stream.
pub fn streamed(mut write: impl FnMut(&mut String) -> bool + Send + 'static) -> Response {
    let (first, more) = piece(String::new(), &mut write);
    let body = if more {
        let rest = futures::stream::unfold(Some(write), |state| async move {
            let mut write = state?;
            // A part that is written at once may go beyond the size.
            let (bytes, more) = piece(String::with_capacity(PIECE * 5 / 4), &mut write);
            Some((bytes, more.then_some(write)))
        });
        let all = futures::stream::once(std::future::ready(first)).chain(rest);
        // What compresses bodies asks again after the end.
        Body::from_stream(all.map(Ok::<_, std::convert::Infallible>).fuse())
    } else {
        Body::from(first)
    };
    json_response(StatusCode::OK, body)
}

fn piece(mut text: String, write: &mut impl FnMut(&mut String) -> bool) -> (Bytes, bool) {
    while text.len() < PIECE {
        if !write(&mut text) {
            return (Bytes::from(text), false);
        }
    }
    (Bytes::from(text), true)
}

/// Writes a query's result some points at a time.
pub struct ResultWriter {
    result: QueryResult,
    /// Rows of the result, and those of them that are shown.
    rows: usize,
    shown: usize,
    row: usize,
    place: Place,
}

/// Where in a row the writer is.
#[derive(Clone, Copy)]
enum Place {
    Begin,
    /// The next float, and whether there was one before it.
    Floats(usize, bool),
    /// The next histogram, and whether there was one before it.
    Histograms(usize, bool),
    End,
}

impl ResultWriter {
    /// A writer of a result's first `limit` series.
    pub fn new(result: QueryResult, limit: Option<usize>) -> Self {
        let rows = match &result {
            QueryResult::Vector(b) | QueryResult::Matrix(b) => b.len(),
            QueryResult::Raw(set) => set.len(),
            QueryResult::Scalar { .. } | QueryResult::String { .. } => 0,
        };
        let shown = limit.unwrap_or(usize::MAX).min(rows);
        Self { result, rows, shown, row: 0, place: Place::Begin }
    }

    /// The result.
    pub fn result(&self) -> &QueryResult {
        &self.result
    }

    /// Whether series are left out.
    pub fn is_cut(&self) -> bool {
        self.shown < self.rows
    }

    /// Appends the next part; false at the end.
    pub fn write(&mut self, out: &mut String) -> bool {
        match &self.result {
            QueryResult::Scalar { t_ms, v } => {
                begin_seconds(out, *t_ms);
                push_scalar(out, *v);
                out.push(']');
                return false;
            }
            QueryResult::String { t_ms, s } => {
                begin_seconds(out, *t_ms);
                push_string(out, s);
                out.push(']');
                return false;
            }
            _ => {}
        }
        if let Place::Begin = self.place {
            if self.row == 0 {
                out.push('[');
            }
            if self.row >= self.shown {
                out.push(']');
                return false;
            }
            out.push_str(if self.row > 0 { ",{\"metric\":" } else { "{\"metric\":" });
        }
        self.place = match &self.result {
            QueryResult::Matrix(_) => self.matrix_part(out),
            QueryResult::Raw(_) => self.raw_part(out),
            _ => self.vector_row(out),
        };
        if let Place::End = self.place {
            out.push('}');
            self.row += 1;
            self.place = Place::Begin;
        }
        true
    }

    fn vector_row(&self, out: &mut String) -> Place {
        let QueryResult::Vector(block) = &self.result else { return Place::End };
        push_labels(out, &block.labels[self.row]);
        let t = block.steps.at(0);
        match block.row(self.row).get(0) {
            Some(Cell::Float(v)) => {
                out.push_str(",\"value\":");
                push_point(out, t, v);
            }
            Some(Cell::Histogram(h)) => {
                out.push_str(",\"histogram\":");
                push_histogram_point(out, t, &h);
            }
            None => {}
        }
        Place::End
    }

    fn matrix_part(&self, out: &mut String) -> Place {
        let QueryResult::Matrix(block) = &self.result else { return Place::End };
        let cells = block.row(self.row);
        let has_histograms = cells.has_histogram();
        let steps = block.steps.count;
        match self.place {
            Place::Floats(from, mut any) => {
                let to = (from + POINTS).min(steps);
                for step in from..to {
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
                let after = if has_histograms { Place::Histograms(0, false) } else { Place::End };
                go_on(out, to < steps, any, Place::Floats(to, any), after)
            }
            Place::Histograms(from, mut any) => {
                let to = (from + POINTS).min(steps);
                for step in from..to {
                    if let Some(h) = cells.histogram(step) {
                        out.push_str(if any { "," } else { ",\"histograms\":[" });
                        any = true;
                        push_histogram_point(out, block.steps.at(step), h);
                    }
                }
                go_on(out, to < steps, any, Place::Histograms(to, any), Place::End)
            }
            Place::Begin | Place::End => {
                push_labels(out, &block.labels[self.row]);
                Place::Floats(0, false)
            }
        }
    }

    fn raw_part(&self, out: &mut String) -> Place {
        let QueryResult::Raw(set) = &self.result else { return Place::End };
        match self.place {
            Place::Floats(from, mut any) => {
                let (t, v) = set.floats(self.row);
                let to = (from + POINTS).min(t.len());
                for (&t, &v) in t[from..to].iter().zip(&v[from..to]) {
                    out.push_str(if any { "," } else { ",\"values\":[" });
                    any = true;
                    push_point(out, t, v);
                }
                go_on(out, to < t.len(), any, Place::Floats(to, any), Place::Histograms(0, false))
            }
            Place::Histograms(from, mut any) => {
                let all = set.histograms(self.row);
                let to = (from + POINTS).min(all.len());
                for h in &all[from..to] {
                    out.push_str(if any { "," } else { ",\"histograms\":[" });
                    any = true;
                    push_histogram_point(out, h.t, &h.h);
                }
                go_on(out, to < all.len(), any, Place::Histograms(to, any), Place::End)
            }
            Place::Begin | Place::End => {
                push_labels(out, &set.labels[self.row]);
                Place::Floats(0, false)
            }
        }
    }
}

/// The place after some points: the same list goes on, or it is closed where it had been begun.
fn go_on(out: &mut String, more: bool, any: bool, same: Place, next: Place) -> Place {
    if more {
        return same;
    }
    if any {
        out.push(']');
    }
    next
}

/// `[seconds,`: scalars and strings have their time as a number of JSON, without the trailing zeros of points.
fn begin_seconds(out: &mut String, t_ms: i64) {
    out.push('[');
    push_float(out, t_ms as f64 / 1000.0);
    out.push(',');
}

#[cfg(test)]
mod tests {
    use sextant_model::{Labels, SeriesBuf, SeriesSet};

    use super::*;

    async fn text(mut response: Response) -> (usize, String) {
        let mut stream = std::mem::take(response.body_mut()).into_data_stream();
        let (mut pieces, mut text) = (0, String::new());
        while let Some(piece) = stream.next().await {
            pieces += 1;
            text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
        assert!(stream.next().await.is_none());
        (pieces, text)
    }

    #[tokio::test]
    async fn a_long_series_is_sent_in_pieces() {
        let n = 20_000;
        let mut set = SeriesSet::new();
        for name in ["a", "b"] {
            let t: Vec<i64> = (0..n).map(|i| i * 1000).collect();
            let v = t.iter().map(|&t| t as f64).collect();
            let labels = Labels::from_pairs([("__name__", name)]).unwrap();
            set.push(labels, &SeriesBuf { t, v, ..SeriesBuf::default() });
        }
        let mut writer = ResultWriter::new(QueryResult::Raw(std::sync::Arc::new(set)), Some(1));
        assert!(writer.is_cut());
        let (pieces, text) = text(streamed(move |out| writer.write(out))).await;
        assert!(pieces > 4, "{pieces}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((json.as_array().unwrap().len(), &json[0]["metric"]["__name__"]), (1, &"a".into()));
        let values = json[0]["values"].as_array().unwrap();
        assert_eq!((values.len(), &values[19_999][1]), (n as usize, &"19999000".into()));
    }

    #[tokio::test]
    async fn an_empty_answer_is_a_list() {
        let mut writer = ResultWriter::new(QueryResult::Raw(std::sync::Arc::new(SeriesSet::new())), None);
        assert_eq!(text(streamed(move |out| writer.write(out))).await, (1, "[]".to_owned()));
    }
}
