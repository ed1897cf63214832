//! axum behind the layer: what each credential may ask for, over TLS and without.

use std::sync::Arc;

use axum::{Router, extract::ConnectInfo, routing::any};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use sextant_security::{Authenticator, HttpAuthLayer, Identity, Listener, Peer, Protocol, hash_password};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::Service;

use crate::files::{Authority, Folder, client, metrics, server};

const WRITER: &str = "Bearer writer-of-tenant-a-0001";
const READER: &str = "Bearer reader-of-a-and-b-0002";
const OPERATOR: &str = "Bearer operator-of-all-00003";
const ADMIN_OF_A: &str = "Bearer admin-of-tenant-a-0004";
const PASSWORD: &str = "correct horse battery staple";

fn authenticator(folder: &Folder) -> Authenticator {
    for (name, token) in [("w", WRITER), ("r", READER), ("o", OPERATOR), ("a", ADMIN_OF_A)] {
        folder.write(name, &format!("{}\n", &token["Bearer ".len()..]));
    }
    let hash = hash_password(PASSWORD).unwrap();
    let path = folder.write(
        "auth.yaml",
        &format!(
            "credentials:
- {{name: writer, token_file: w, tenants: [a], rights: [write]}}
- {{name: reader, token_file: r, tenants: [a, b], rights: [read]}}
- {{name: operator, token_file: o, user: ops, tenants: '*', rights: [read, admin]}}
- {{name: admin of a, token_file: a, tenants: [a], rights: [admin, read]}}
- {{name: grafana, user: grafana, password_hash: '{hash}', tenants: [b], rights: [read]}}"
        ),
    );
    Authenticator::open(path, metrics()).unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Answers with identity and tenants, `-` where there are none.
async fn seen(request: axum::extract::Request) -> String {
    let name = request.extensions().get::<Identity>().map_or("-", Identity::name);
    let tenants = request.headers().get("x-scope-orgid").map_or("-", |v| v.to_str().unwrap());
    format!("{name} {tenants}")
}

fn app(auth: &Authenticator, multi_tenancy: bool) -> Router {
    Router::new().fallback(any(seen)).layer(HttpAuthLayer::new(auth.clone(), multi_tenancy))
}

async fn ask(
    app: &Router,
    method: &str,
    path: &str,
    auth: &str,
    tenants: &[&str],
) -> (u16, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    if !auth.is_empty() {
        request = request.header("authorization", auth);
    }
    for tenants in tenants {
        request = request.header("x-scope-orgid", *tenants);
    }
    let request = request.body(axum::body::Body::empty()).unwrap();
    let response = app.clone().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn rights_and_tenants_are_enforced() {
    let folder = Folder::new();
    let app = app(&authenticator(&folder), true);
    let (grafana, ops) = (basic("grafana", PASSWORD), basic("ops", &OPERATOR["Bearer ".len()..]));
    let (query, push) = ("GET /api/v1/query", "POST /api/v1/push");
    for (asked, auth, tenants, status, body) in [
        // The credential's own tenant, named or not.
        (push, WRITER, &[][..], 200, "writer a"),
        (push, WRITER, &["a"], 200, "writer a"),
        (push, WRITER, &[""], 200, "writer a"),
        (query, READER, &["b|a|b"], 200, "reader a|b"),
        (query, &grafana, &[], 200, "grafana b"),
        (query, &grafana, &["b"], 200, "grafana b"),
        (query, OPERATOR, &["any"], 200, "operator any"),
        (query, &ops, &["any"], 200, "operator any"),
        // Another's.
        (push, WRITER, &["b"], 403, "not for tenant b (right write)"),
        (query, READER, &["a|c"], 403, "not for tenant c (right read)"),
        (query, &grafana, &["a"], 403, "not for tenant a (right read)"),
        (query, READER, &["anonymous"], 403, "not for tenant anonymous"),
        // None, where there is a choice.
        (query, READER, &[], 401, "no org id"),
        (query, OPERATOR, &[], 401, "no org id"),
        // Paths, and what is read in two ways.
        (query, OPERATOR, &["../a"], 401, "unsupported character"),
        (query, OPERATOR, &["a/../b"], 401, "unsupported character"),
        (query, OPERATOR, &[".."], 401, "reserved"),
        (query, OPERATOR, &["a|"], 401, "empty"),
        (query, OPERATOR, &["__system"], 401, "reserved"),
        (query, OPERATOR, &["%2e%2e"], 401, "unsupported character"),
        (query, READER, &["a", "c"], 401, "must be there once"),
        // Rights.
        (query, WRITER, &["a"], 403, "do not have the right read"),
        (push, READER, &["a"], 403, "do not have the right write"),
        ("POST /api/v1/admin/flush", READER, &["a"], 403, "do not have the right admin"),
        ("POST /api/v1/admin/flush", ADMIN_OF_A, &["a"], 403, "right admin is needed for all tenants"),
        ("POST /api/v1/admin/flush", OPERATOR, &["a"], 200, "operator a"),
        ("POST /api/v1/admin/tsdb/delete_series", ADMIN_OF_A, &[], 200, "admin of a a"),
        ("POST /api/v1/admin/tsdb/delete_series", ADMIN_OF_A, &["b"], 403, "not for tenant b (right admin)"),
        ("GET /api/v1/overview", READER, &["a"], 403, "right read is needed for all tenants"),
        ("GET /api/v1/overview", OPERATOR, &[], 200, "operator -"),
        ("GET /metrics", READER, &["c"], 200, "reader -"),
        ("GET /metrics", WRITER, &[], 403, "do not have the right read"),
        ("GET /nowhere", OPERATOR, &["a"], 403, "no right allows"),
        ("DELETE /api/v1/query", OPERATOR, &["a"], 403, "no right allows"),
        // Credentials.
        (query, "", &["a"], 401, "valid credentials"),
        (query, "Bearer wrong-token-of-nobody-0", &["a"], 401, "valid credentials"),
        (query, &basic("grafana", "wrong"), &["b"], 401, "valid credentials"),
        (query, &basic("nobody", PASSWORD), &["b"], 401, "valid credentials"),
        (query, &basic("grafana", &OPERATOR["Bearer ".len()..]), &["b"], 401, "valid credentials"),
        (query, &basic("", &OPERATOR["Bearer ".len()..]), &["b"], 401, "valid credentials"),
        (query, "Basic !!", &["a"], 401, "valid credentials"),
        ("GET /nowhere", "", &[], 401, "valid credentials"),
        ("GET /", "", &[], 401, "valid credentials"),
        ("GET /ready", "", &[], 200, "- -"),
        ("GET /ready", "Bearer x", &[], 200, "- -"),
        ("OPTIONS /api/v1/query", "", &[], 200, "- -"),
    ] {
        let (method, path) = asked.split_once(' ').unwrap();
        let (answered, headers, text) = ask(&app, method, path, auth, tenants).await;
        assert_eq!(answered, status, "{asked} {auth} {tenants:?}: {text}");
        assert!(text.contains(body), "{asked} {auth} {tenants:?}: {text}");
        let challenges: Vec<_> = headers.get_all("www-authenticate").iter().collect();
        assert_eq!(
            challenges.len(),
            if body == "valid credentials" { 2 } else { 0 },
            "{asked} {challenges:?}"
        );
    }
    let (_, headers, text) = ask(&app, "GET", "/api/v1/query", "", &[]).await;
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(text, r#"{"error":"valid credentials are required","errorType":"bad_data","status":"error"}"#);
}

#[tokio::test]
async fn without_a_file_nothing_is_asked_and_without_tenants_there_is_one() {
    let folder = Folder::new();
    let open = app(&Authenticator::open_to_all(), true);
    for path in ["/api/v1/admin/flush", "/nowhere", "/api/v1/query"] {
        let (status, _, text) = ask(&open, "GET", path, "Bearer x", &["a|b"]).await;
        assert_eq!((status, text.as_str()), (200, "everyone a|b"), "{path}");
    }
    let one = app(&authenticator(&folder), false);
    for (path, auth, status) in [
        ("/api/v1/query", OPERATOR, 200),
        ("/api/v1/overview", OPERATOR, 200),
        ("/api/v1/query", READER, 403),
        ("/api/v1/overview", READER, 403),
    ] {
        let (answered, _, text) = ask(&one, "GET", path, auth, &["zz"]).await;
        assert_eq!(answered, status, "{path} {text}");
        assert!(status != 200 || !text.contains("zz"), "the header says nothing: {text}");
    }
}

#[tokio::test]
async fn axum_serves_tls_and_plain_through_the_listener() {
    let (ours, folder) = (Authority::new(), Folder::new());
    let tls = server(&folder, &ours.certify(&[]), None, false);
    let auth = authenticator(&folder);
    for tls in [Some(tls), None] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let who = |ConnectInfo(peer): ConnectInfo<Peer>| async move { format!("tls={}", peer.is_tls) };
        let router = Router::new().route("/metrics", any(who)).layer(HttpAuthLayer::new(auth.clone(), true));
        let is_tls = tls.is_some();
        let listener = Listener::new(socket, tls, Protocol::Http);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(async move { _ = stopped.await });
        let serving = tokio::spawn(async move { serving.await });
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {READER}\r\n\r\n"
        );
        let mut text = String::new();
        let mut stream = TcpStream::connect(address).await.unwrap();
        if is_tls {
            // HTTP/1.1 is agreed on where it is all that a client offers.
            let mut config = (*client(&ours, None).config(Protocol::Http)).clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_to_string(&mut text).await.unwrap();
        } else {
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_to_string(&mut text).await.unwrap();
        }
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with(&format!("tls={is_tls}")), "{text}");
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }
}
