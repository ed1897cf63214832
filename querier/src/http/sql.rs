//! `POST /api/v1/sql`: a statement in, rows out as JSON, CSV or Arrow IPC.
//!
//! The statement is the body itself, `{"query": "…", "format": "…"}`, or a form's `query`. The form of the answer is `format`
//! (`json`, `csv`, `arrow`), else what `Accept` asks for, else JSON: an array of objects, one a row.

use arrow_array::RecordBatch;
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
    routing::get,
};
use serde::Deserialize;
use sextant_proto::ErrorClass;

use super::{Tenants, answers::ApiError, params::Params};
use crate::{engine::Querier, sql::SqlAnswer};

/// The route.
pub fn routes(querier: Querier) -> Router {
    Router::new().route("/sql", get(answer).post(answer)).with_state(querier)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonQuestion {
    #[serde(alias = "sql", alias = "q")]
    query: String,
    format: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    Arrow,
}

impl Format {
    fn from_name(name: &str) -> Result<Self, ApiError> {
        match name {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "arrow" => Ok(Self::Arrow),
            other => Err(ApiError::bad_data(format!(
                "invalid parameter \"format\": {other:?} is not json, csv or arrow"
            ))),
        }
    }

    fn from_accept(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let mut kinds =
            accept.split(',').filter_map(|part| match part.split(';').next().unwrap_or("").trim() {
                "text/csv" => Some(Self::Csv),
                "application/vnd.apache.arrow.stream" | "application/vnd.apache.arrow.file" => {
                    Some(Self::Arrow)
                }
                "application/json" => Some(Self::Json),
                _ => None,
            });
        kinds.next().unwrap_or(Self::Json)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

async fn answer(
    State(querier): State<Querier>,
    Extension(Tenants(tenants)): Extension<Tenants>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (sql, format) = question(query.as_deref(), &headers, &body)?;
    let answer = querier.sql(&tenants, &sql).await?;
    let bytes = encode(&answer, format).map_err(|e| ApiError::new(ErrorClass::Internal, e.to_string()))?;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(response)
}

fn question(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<(String, Format), ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_data("the body is not UTF-8"))?.trim();
    let params = Params::parse(query, b"");
    let mut format = params.get("format").map(str::to_owned);
    let sql = if content_type.starts_with("application/json") || text.starts_with('{') {
        let question: JsonQuestion =
            serde_json::from_str(text).map_err(|e| ApiError::bad_data(format!("the JSON body: {e}")))?;
        format = question.format.or(format);
        question.query
    } else {
        let form = Params::parse(None, body);
        match form.get("query").or(form.get("q")).or(form.get("sql")) {
            Some(sql) if content_type.starts_with("application/x-www-form-urlencoded") => {
                format = form.get("format").map(str::to_owned).or(format);
                sql.to_owned()
            }
            _ if !text.is_empty() => text.to_owned(),
            _ => params.get("query").or(params.get("q")).or(params.get("sql")).unwrap_or("").to_owned(),
        }
    };
    if sql.trim().is_empty() {
        return Err(ApiError::bad_data("no statement: send it as the body, or as \"query\""));
    }
    let format = match format {
        Some(name) => Format::from_name(&name)?,
        None => Format::from_accept(headers),
    };
    Ok((sql, format))
}

fn encode(answer: &SqlAnswer, format: Format) -> Result<Vec<u8>, arrow_schema::ArrowError> {
    let batches: Vec<&RecordBatch> = answer.batches.iter().collect();
    match format {
        Format::Json => {
            let mut writer = arrow_json::writer::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow_json::writer::JsonArray>(Vec::new());
            writer.write_batches(&batches)?;
            writer.finish()?;
            let bytes = writer.into_inner();
            Ok(if bytes.is_empty() { b"[]".to_vec() } else { bytes })
        }
        Format::Csv => {
            let mut bytes = Vec::new();
            let mut writer = arrow_csv::WriterBuilder::new().with_header(true).build(&mut bytes);
            let mut wrote = false;
            for batch in batches {
                writer.write(&csv_columns(batch)?)?;
                wrote = true;
            }
            if !wrote {
                writer.write(&csv_columns(&RecordBatch::new_empty(answer.schema.clone()))?)?;
            }
            drop(writer);
            Ok(bytes)
        }
        Format::Arrow => {
            let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &answer.schema)?;
            for batch in batches {
                writer.write(batch)?;
            }
            writer.finish()?;
            writer.into_inner()
        }
    }
}

/// CSV has no nested values: maps, lists and structures are written as their text.
fn csv_columns(batch: &RecordBatch) -> Result<RecordBatch, arrow_schema::ArrowError> {
    use arrow_array::{ArrayRef, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            let options = arrow_cast::display::FormatOptions::default();
            let formatter = arrow_cast::display::ArrayFormatter::try_new(column, &options)?;
            let texts: StringArray = (0..column.len())
                .map(|i| (!column.is_null(i)).then(|| formatter.value(i).to_string()))
                .collect();
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(std::sync::Arc::new(texts));
        } else {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
        }
    }
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(std::sync::Arc::new(Schema::new(fields)), columns, &options)
}
