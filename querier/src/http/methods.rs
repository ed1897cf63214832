//! What Prometheus does around its handlers: other methods are refused in its words, `OPTIONS` is answered, and pages of
//! other origins may read.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use sextant_model::{MatchOp, Matcher};

/// Which origins may read answers: a regular expression that must match the whole of `Origin`. The default is none.
#[derive(Clone, Debug, Default)]
pub struct CorsOrigin(Option<Matcher>);

impl CorsOrigin {
    /// Compiles the expression.
    pub fn new(pattern: &str) -> Result<Self, String> {
        Matcher::new("origin", MatchOp::Regex, pattern).map(|m| Self(Some(m))).map_err(|e| e.to_string())
    }

    /// Sets the headers that let a page of an allowed origin read an answer.
    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let Some(allowed) = &self.0 else { return };
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin else { return };
        if !origin.to_str().is_ok_and(|o| allowed.matches(o)) {
            return;
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// Middleware of the whole API.
pub async fn methods(cors: CorsOrigin, mut request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if request.method() == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        cors.allow(origin.as_ref(), response.headers_mut());
        return response;
    }
    if request.method() == Method::HEAD {
        // The router would answer as for GET, and run the query for nothing; this way it names the methods there are.
        *request.method_mut() = Method::TRACE;
    }
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        return not_allowed(response.headers().get(header::ALLOW));
    }
    cors.allow(origin.as_ref(), response.headers_mut());
    response
}

fn not_allowed(allow: Option<&HeaderValue>) -> Response {
    let given = allow.and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut methods: Vec<&str> =
        given.split(',').map(str::trim).filter(|m| !matches!(*m, "" | "HEAD")).collect();
    methods.push("OPTIONS");
    methods.sort_unstable();
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// A line of text, as Go's `http.Error` sends it.
pub fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
