//! The file of credentials: what is refused, what reloading changes, and that secrets stay where they are.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use sextant_model::TenantId;
use sextant_security::{AuthError, Authenticator, HttpAuthLayer, Part, Right, hash_password};

use tower::Service;

use crate::files::{Folder, metrics};

const TOKEN: &str = "a-token-that-nobody-guesses";
/// SHA-256 of [`TOKEN`].
const TOKEN_SHA256: &str = "6ca0626e34057737137b201c140e29d040cdedef06e5a48ddf6ef2c19132ecba";

fn bearer(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    HeaderMap::from_iter([(header::AUTHORIZATION, value)])
}

async fn name_of(auth: &Authenticator, token: &str) -> Option<String> {
    auth.authenticate(&bearer(token)).await.ok().map(|i| i.name().to_owned())
}

#[test]
fn bad_files_say_which_entry_is_wrong_and_never_its_secret() {
    let folder = Folder::new();
    folder.write("short", "secret");
    folder.write("odd", "secret with spaces in it, so no token");
    folder.write("token", TOKEN);
    let good = format!("name: g, token_sha256: {TOKEN_SHA256}, tenants: [a], rights: [read]");
    let hash = hash_password("secret").unwrap();
    let without = |part: &str| format!("credentials: [{{{}}}]", good.replace(part, ""));
    let with = |part: &str, other: &str| format!("credentials: [{{{}}}]", good.replace(part, other));
    let secret = format!("token_sha256: {TOKEN_SHA256}");
    for (text, reason) in [
        (String::new(), "the file: expected the key"),
        ("[]".into(), "the file: expected the key"),
        ("credentials: []".into(), "credentials: expected a list"),
        ("credentials: {}".into(), "credentials: expected a list"),
        ("credential: []".into(), "unknown key \"credential\"; did you mean \"credentials\"?"),
        ("credentials: [secret]".into(), "credentials[0]: expected keys"),
        (format!("credentials:\n- {{{good}}}\n- {{{good}"), "not valid YAML at line"),
        ("credentials: [{name: 'secret}]".into(), "not valid YAML"),
        (format!("credentials: [{{{good}, {good}}}]"), "not valid YAML"),
        (format!("credentials: [{{{good}, token_sah256: secret}}]"), "unknown key \"token_sah256\""),
        (
            format!("credentials: [{{{good}, hunter2secret: x}}]"),
            "credentials[0] \"g\": a key that is not one of",
        ),
        (format!("credentials: [{{{good}, 7: x}}]"), "a key is not a text"),
        (without("name: g, "), "credentials[0]: name is missing"),
        (with("name: g", "name: 'a\"b'"), "name is not 1 to 100"),
        (with("name: g", "name: 7"), "name is not a text"),
        (without(&format!("{secret}, ")), "exactly one of"),
        (format!("credentials: [{{{good}, token_file: token}}]"), "exactly one of"),
        (with(TOKEN_SHA256, "secret"), "token_sha256 is not 64"),
        (with(TOKEN_SHA256, "123456"), "token_sha256 is not a text"),
        (with(TOKEN_SHA256, &TOKEN_SHA256[1..]), "token_sha256 is not 64"),
        (with(&secret, "token_file: none"), "none: No such file"),
        (with(&secret, "token_file: short"), "credentials[0] \"g\":"),
        (with(&secret, "token_file: short"), "shorter than 20"),
        (with(&secret, "token_file: odd"), "characters that a bearer token"),
        (with(&secret, "user: u, password_hash: secret"), "not an Argon2id hash"),
        (with(&secret, &format!("password_hash: '{hash}'")), "needs a user"),
        (with(&secret, "user: u, password: secret"), "did you mean \"password_hash\""),
        (with(&secret, &format!("user: '', password_hash: '{hash}'")), "user is empty"),
        (with(&secret, &format!("user: 'a:b', password_hash: '{hash}'")), "colon"),
        (without("tenants: [a], "), "tenants is neither"),
        (with("[a]", "[]"), "tenants is neither"),
        (with("[a]", "a"), "tenants is neither"),
        (with("[a]", "['*']"), "tenants is neither"),
        (with("[a]", "[../a]"), "unsupported character"),
        (with("[a]", "['..']"), "reserved"),
        (without(", rights: [read]"), "rights is not a list"),
        (with("[read]", "[]"), "rights is not a list"),
        (with("[read]", "read"), "rights is not a list"),
        (with("[read]", "[read, all]"), "rights is not a list"),
        (
            format!("credentials: [{{{good}}}, {{{good}}}]"),
            "credentials[1] \"g\": credentials[0] \"g\" has the same name",
        ),
        (
            format!("credentials: [{{{good}}}, {{{}}}]", good.replace("name: g", "name: h")),
            "credentials[1] \"h\": \"g\" has the same token",
        ),
        (
            format!(
                "credentials: [{{{}}}, {{{}}}]",
                good.replace(&secret, &format!("user: u, password_hash: '{hash}'")),
                good.replace("name: g", "name: h")
                    .replace(&secret, &format!("user: u, password_hash: '{hash}'")),
            ),
            "\"g\" has the same user",
        ),
    ] {
        let path = folder.write("auth.yaml", &text);
        let error = Authenticator::open(path, metrics()).map(|_| ()).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.to_string().contains(reason), "{text}\n{error}");
        for secret in ["secret", TOKEN, TOKEN_SHA256, &hash, &TOKEN_SHA256[1..]] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    let path = folder.write("auth.yaml", &format!("credentials: [{{{good}}}]"));
    assert!(Authenticator::open(path, metrics()).is_ok());
    assert!(Authenticator::open(folder.path("none.yaml"), metrics()).is_err());
}

#[tokio::test]
async fn a_changed_file_is_taken_and_a_bad_one_is_not() {
    let folder = Folder::new();
    folder.write("token", TOKEN);
    let hash = hash_password("before").unwrap();
    let text = format!(
        "credentials:
- {{name: one, token_file: token, user: u, tenants: [7], rights: [read]}}
- {{name: two, user: v, password_hash: '{hash}', tenants: '*', rights: [write, admin]}}"
    );
    let path = folder.write("auth.yaml", &text);
    let metrics = metrics();
    let auth = Authenticator::open(path, metrics.clone()).unwrap();
    let reload = auth.reload().unwrap();
    assert_eq!(name_of(&auth, TOKEN).await.as_deref(), Some("one"));
    assert_eq!(auth.check_password("u", TOKEN).await.unwrap().name(), "one");
    assert_eq!(auth.check_password("v", TOKEN).await, Err(AuthError::Unauthenticated));
    assert_eq!(auth.check_password("v", "before").await.unwrap().name(), "two");
    assert_eq!(auth.check_password("v", &"x".repeat(5000)).await, Err(AuthError::Unauthenticated));
    assert_eq!(reload.reload(), Ok(false));

    folder.write("token", "another-token-for-the-same-entry");
    assert_eq!(reload.reload(), Ok(true));
    assert_eq!(name_of(&auth, TOKEN).await, None);
    assert_eq!(name_of(&auth, "another-token-for-the-same-entry").await.as_deref(), Some("one"));

    folder.write("auth.yaml", &text[..text.len() / 2]);
    let error = reload.reload().unwrap_err();
    assert_eq!((auth.last_error(), metrics.is_current(Part::Credentials)), (Some(error), false));
    assert_eq!(reload.reload(), Ok(false));
    assert_eq!(auth.check_password("v", "before").await.unwrap().name(), "two");

    // A password that was answered from memory a moment ago is not once it has changed.
    folder.write("auth.yaml", &text.replace(&hash, &hash_password("after").unwrap()));
    assert_eq!(reload.reload(), Ok(true));
    assert_eq!(auth.check_password("v", "before").await, Err(AuthError::Unauthenticated));
    let two = auth.check_password("v", "after").await.unwrap();
    assert_eq!((auth.last_error(), metrics.is_current(Part::Credentials)), (None, true));

    let tenant = |t| TenantId::new(t).unwrap();
    assert_eq!(two.authorize(Right::Write, &[tenant("x"), tenant("y")]), Ok(()));
    assert_eq!(two.authorize(Right::Write, &[]), Err(AuthError::NoTenant));
    assert_eq!(two.authorize(Right::Read, &[tenant("x")]), Err(AuthError::NoRight(Right::Read)));
    assert_eq!(two.default_tenant(), None);
    let one = auth.check_password("u", "another-token-for-the-same-entry").await.unwrap();
    assert_eq!(one.default_tenant(), Some(&tenant("7")));
    assert_eq!(one.authorize_all(Right::Read), Err(AuthError::NotAllTenants(Right::Read)));
    let other = AuthError::OtherTenant { right: Right::Read, tenant: tenant("8") };
    assert_eq!(one.authorize(Right::Read, &[tenant("7"), tenant("8")]), Err(other));
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_are_in_no_log_and_no_debug() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // Of the whole test binary: a subscriber of one thread misses what other threads log.
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
    let folder = Folder::new();
    folder.write("token", TOKEN);
    let hash = hash_password("pass-word").unwrap();
    let text = format!(
        "credentials:
- {{name: one, token_file: token, tenants: [a], rights: [read]}}
- {{name: two, user: u, password_hash: '{hash}', tenants: [a], rights: [read]}}"
    );
    let auth = Authenticator::open(folder.write("auth.yaml", &text), metrics()).unwrap();
    let mut app = axum::Router::new()
        .fallback(|headers: HeaderMap| async move { format!("{headers:?}") })
        .layer(HttpAuthLayer::new(auth.clone(), true));
    let basic = format!("Basic {}", STANDARD.encode("u:pass-word"));
    let wrong = format!("Basic {}", STANDARD.encode("u:wrong-word"));
    let mut said = format!("{auth:?}");
    for credential in [&basic, &wrong, &format!("Bearer {TOKEN}"), &format!("Bearer {TOKEN}x")] {
        for path in ["/api/v1/query", "/nowhere"] {
            let request = http::Request::get(path).header("authorization", credential);
            let response = app.call(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
            said.push_str(&format!("{response:?}"));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            said.push_str(&String::from_utf8_lossy(&body));
        }
    }
    said.push_str(&format!("{:?}", auth.check_password("u", "pass-word").await));
    folder.write("auth.yaml", &text.replace("rights", TOKEN));
    said.push_str(&format!("{:?}", auth.reload().unwrap().reload()));
    folder.write("auth.yaml", &text.replace("[a]", "[b]"));
    said.push_str(&format!("{:?}", auth.reload().unwrap().reload()));
    said.push_str(&String::from_utf8_lossy(&log.0.lock()));
    assert!(said.contains("changed files are wrong") && said.contains("a request is refused"), "{said}");
    assert!(said.contains("\"authorization\": Sensitive"), "{said}");
    for secret in [TOKEN, TOKEN_SHA256, "pass-word", "wrong-word", &hash, &basic[6..], &wrong[6..]] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}
