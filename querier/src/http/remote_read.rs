//! `POST /read`: Prometheus remote read, as samples and as streamed chunks.

mod bits;
mod chunks;

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
    routing::post,
};
use futures::StreamExt;
use prost::Message;
use sextant_model::{Labels, MatchOp, Matcher, ResetHint, SeriesSet, TenantId};
use sextant_proto::{
    ErrorClass, SelectLimits,
    remote_read::{
        Chunk, ChunkedReadResponse, ChunkedSeries, LabelMatcherType, ReadQuery, ReadRequest, ReadResponse,
        ReadResult, ResponseType,
    },
    remote_write::{
        BucketSpan, Histogram as WireHistogram, HistogramCount, HistogramZeroCount, Label,
        ResetHint as WireHint, SampleV1, TimeSeriesV1,
    },
};

use super::{Tenants, methods::plain};
use crate::{
    dataset::{Dataset, SelectParts, Selection},
    engine::Querier,
    error::QueryError,
    metrics::Language,
};

/// Bytes of a request when it is decompressed, at most.
const REQUEST_MAX: usize = 32 << 20;

/// Bytes of a frame, about: what Prometheus' own limit is.
const FRAME_MAX: usize = 1 << 20;

/// Samples that are read at a time.
const PART_SAMPLES: usize = 1 << 20;

/// The route.
pub fn routes(querier: Querier) -> Router {
    Router::new().route("/read", post(read)).with_state(querier)
}

/// An error as text.
struct ReadError(StatusCode, String);

impl ReadError {
    fn bad(reason: impl ToString) -> Self {
        Self(StatusCode::BAD_REQUEST, reason.to_string())
    }
}

impl From<QueryError> for ReadError {
    fn from(e: QueryError) -> Self {
        let class = match e.class() {
            // The sender's own limits are 400 in Prometheus; the reader must not ask again.
            ErrorClass::Unprocessable => ErrorClass::BadRequest,
            other => other,
        };
        let status = StatusCode::from_u16(class.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(status, e.to_string())
    }
}

async fn read(
    State(querier): State<Querier>,
    Extension(Tenants(tenants)): Extension<Tenants>,
    body: Bytes,
) -> Response {
    let answer = async {
        let request = decode(&body)?;
        let limits = querier.select_limits(&querier.limits(&tenants));
        let selections =
            request.queries.iter().map(|q| selection(q, limits)).collect::<Result<Vec<_>, _>>()?;
        let spoken = |kind: &i32| ResponseType::try_from(*kind).ok();
        match request.accepted_response_types.iter().find_map(spoken) {
            None if !request.accepted_response_types.is_empty() => {
                Err(ReadError::bad("none of the accepted response types is known here"))
            }
            Some(ResponseType::StreamedXorChunks) => streamed(querier, tenants, selections).await,
            Some(ResponseType::Samples) | None => sampled(&querier, tenants, selections).await,
        }
    };
    answer.await.unwrap_or_else(|ReadError(status, reason)| plain(status, &reason))
}

fn decode(body: &[u8]) -> Result<ReadRequest, ReadError> {
    let corrupt = || ReadError::bad("snappy: corrupt input");
    let size = snap::raw::decompress_len(body).ok().filter(|_| !body.is_empty()).ok_or_else(corrupt)?;
    if size > REQUEST_MAX {
        let reason = format!("the request has {size} bytes, more than {REQUEST_MAX}");
        return Err(ReadError(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    let raw = snap::raw::Decoder::new().decompress_vec(body).map_err(|_| corrupt())?;
    ReadRequest::decode(raw.as_slice()).map_err(ReadError::bad)
}

fn selection(query: &ReadQuery, limits: SelectLimits) -> Result<Selection, ReadError> {
    let matchers = query
        .matchers
        .iter()
        .map(|m| {
            let op = match LabelMatcherType::try_from(m.r#type) {
                Ok(LabelMatcherType::Equal) => MatchOp::Equal,
                Ok(LabelMatcherType::NotEqual) => MatchOp::NotEqual,
                Ok(LabelMatcherType::Regex) => MatchOp::Regex,
                Ok(LabelMatcherType::NotRegex) => MatchOp::NotRegex,
                Err(_) => return Err(ReadError::bad(format!("invalid matcher type {}", m.r#type))),
            };
            Matcher::new(m.name.as_str(), op, m.value.as_str()).map_err(ReadError::bad)
        })
        .collect::<Result<_, _>>()?;
    Ok(Selection { matchers, start: query.start_timestamp_ms, end: query.end_timestamp_ms, limits })
}

fn response(kind: &'static str, encoding: Option<&'static str>, body: Body) -> Response {
    let mut response = Response::new(body);
    let mut set =
        |name: HeaderName, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, kind);
    if let Some(encoding) = encoding {
        set(header::CONTENT_ENCODING, encoding);
    }
    response
}

fn wire_labels(labels: &Labels) -> Vec<Label> {
    labels.iter().map(|(n, v)| Label { name: n.to_owned(), value: v.to_owned() }).collect()
}

async fn sampled(
    querier: &Querier,
    tenants: Vec<TenantId>,
    selections: Vec<Selection>,
) -> Result<Response, ReadError> {
    let (this, asking) = (querier.clone(), tenants.clone());
    let work = async move {
        let read = || async {
            let dataset = this.dataset(&tenants).await?;
            let mut results = Vec::with_capacity(selections.len());
            for selection in &selections {
                let set = dataset.select(selection).await?;
                let timeseries = (0..set.len()).map(|i| wire_series(&set, i)).collect();
                results.push(ReadResult { timeseries });
            }
            Ok(ReadResponse { results })
        };
        let raw = this.repeated(&tenants, read).await?.encode_to_vec();
        snap::raw::Encoder::new().compress_vec(&raw).map_err(|e| QueryError::Internal(e.to_string()))
    };
    let body = querier.bounded(&asking, Language::PromQl, querier.config().timeout, work).await?;
    Ok(response("application/x-protobuf", Some("snappy"), Body::from(body)))
}

fn wire_series(set: &SeriesSet, i: usize) -> TimeSeriesV1 {
    let (t, v) = set.floats(i);
    TimeSeriesV1 {
        labels: wire_labels(&set.labels[i]),
        samples: t.iter().zip(v).map(|(&timestamp, &value)| SampleV1 { value, timestamp }).collect(),
        histograms: set.histograms(i).iter().map(|s| wire_histogram(s.t, &s.h)).collect(),
        ..TimeSeriesV1::default()
    }
}

fn wire_histogram(timestamp: i64, h: &sextant_model::Histogram) -> WireHistogram {
    let spans = |spans: &[sextant_model::Span]| {
        spans.iter().map(|s| BucketSpan { offset: s.offset, length: s.length }).collect()
    };
    let mut out = WireHistogram {
        sum: h.sum,
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        negative_spans: spans(&h.negative_spans),
        positive_spans: spans(&h.positive_spans),
        custom_values: h.custom_values.clone(),
        reset_hint: match h.reset_hint {
            ResetHint::Unknown => WireHint::Unspecified,
            ResetHint::Reset => WireHint::Yes,
            ResetHint::NoReset => WireHint::No,
            ResetHint::Gauge => WireHint::Gauge,
        } as i32,
        timestamp,
        ..WireHistogram::default()
    };
    match (h.integer, h.positive_deltas(), h.negative_deltas()) {
        (true, Some(positive), Some(negative)) => {
            out.count = Some(HistogramCount::CountInt(h.count as u64));
            out.zero_count = Some(HistogramZeroCount::ZeroCountInt(h.zero_count as u64));
            (out.positive_deltas, out.negative_deltas) = (positive, negative);
        }
        _ => {
            out.count = Some(HistogramCount::CountFloat(h.count));
            out.zero_count = Some(HistogramZeroCount::ZeroCountFloat(h.zero_count));
            (out.positive_counts, out.negative_counts) =
                (h.positive_buckets.clone(), h.negative_buckets.clone());
        }
    }
    out
}

/// What of a streamed answer is still to be sent.
struct Stream {
    querier: Querier,
    dataset: Arc<Dataset>,
    selections: Vec<Selection>,
    query: usize,
    parts: Option<Arc<SelectParts>>,
    part: usize,
}

async fn streamed(
    querier: Querier,
    tenants: Vec<TenantId>,
    selections: Vec<Selection>,
) -> Result<Response, ReadError> {
    let (this, asking) = (querier.clone(), tenants.clone());
    // The first part is read before the answer begins: what is wrong with a request is then its status.
    let work = async move {
        let read = || async {
            let dataset = this.dataset(&tenants).await?;
            let selections = selections.clone();
            let stream =
                Stream { querier: this.clone(), dataset, selections, query: 0, parts: None, part: 0 };
            stream.advance().await
        };
        this.repeated(&tenants, read).await
    };
    let first = querier.bounded(&asking, Language::PromQl, querier.config().timeout, work).await?;
    let body = futures::stream::try_unfold(first, |state| async move {
        let Some((bytes, stream)) = state else { return Ok(None) };
        let next = match stream {
            Some(stream) => {
                let querier = stream.querier.clone();
                querier.spawned(stream.advance()).await?
            }
            None => None,
        };
        Ok::<_, QueryError>(Some((bytes, next)))
    });
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    Ok(response(kind, None, Body::from_stream(body.fuse())))
}

type Piece = Option<(Bytes, Option<Stream>)>;

impl Stream {
    /// The next frames, and what comes after them; `None` at the end.
    async fn advance(mut self) -> Result<Piece, QueryError> {
        while let Some(selection) = self.selections.get(self.query) {
            let parts = match &self.parts {
                Some(parts) => parts.clone(),
                None => {
                    let parts = Arc::new(self.dataset.select_parts(selection, PART_SAMPLES, 1).await?);
                    self.parts = Some(parts.clone());
                    parts
                }
            };
            if self.part >= parts.len() {
                (self.query, self.parts, self.part) = (self.query + 1, None, 0);
                continue;
            }
            let set = parts.read(self.part).await?;
            self.part += 1;
            let bytes = frames(&set, self.query);
            if !bytes.is_empty() {
                return Ok(Some((bytes.into(), Some(self))));
            }
        }
        Ok(None)
    }
}

/// A set's series as frames: each a length, a CRC-32C and a message.
fn frames(set: &SeriesSet, query: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for series in 0..set.len() {
        let labels = wire_labels(&set.labels[series]);
        let label_bytes: usize = labels.iter().map(|l| l.name.len() + l.value.len() + 8).sum();
        let mut pending: Vec<Chunk> = Vec::new();
        let mut size = label_bytes;
        for chunk in chunks::chunks(set, series) {
            if !pending.is_empty() && size + chunk.data.len() > FRAME_MAX {
                push_frame(&mut out, &labels, std::mem::take(&mut pending), query);
                size = label_bytes;
            }
            size += chunk.data.len() + 24;
            pending.push(chunk);
        }
        if !pending.is_empty() {
            push_frame(&mut out, &labels, pending, query);
        }
    }
    out
}

fn push_frame(out: &mut Vec<u8>, labels: &[Label], chunks: Vec<Chunk>, query: usize) {
    let series = ChunkedSeries { labels: labels.to_vec(), chunks };
    let message =
        ChunkedReadResponse { chunked_series: vec![series], query_index: query as i64 }.encode_to_vec();
    prost::encoding::encode_varint(message.len() as u64, out);
    out.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
    out.extend_from_slice(&message);
}
