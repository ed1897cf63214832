//! Targets that speak TLS: whom a job trusts, as whom it asks, and certificates that are renewed.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sextant_agent::{Agent, AgentConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
};

use crate::{running::Running, target_double::Recorder};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A certificate for this host, and its key.
fn certified(by: &Authority) -> (rcgen::Certificate, KeyPair) {
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(names).expect("names");
    (params.signed_by(&key, by).expect("a certificate"), key)
}

/// A target that speaks TLS 1.2 only where `old`, and asks for a certificate of `clients` where given.
async fn tls_target(authority: &Authority, clients: Option<&Authority>, old: bool) -> String {
    let (certificate, key) = certified(authority);
    let versions = if old { [&TLS12].to_vec() } else { [&TLS12, &TLS13].to_vec() };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&versions).expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).expect("a certificate");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("roots"))
        }
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match connection.read_u8().await {
                    Ok(b) => head.push(b),
                    Err(_) => break,
                }
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\nConnection: close\r\n\r\na 1\n";
            let _ = connection.write_all(answer.as_bytes()).await;
            let _ = connection.shutdown().await;
        }
    });
    address
}

fn job(address: &str, tls: &str) -> String {
    format!(
        "scrape_configs:\n- job_name: j\n  scheme: https\n  scrape_interval: 200ms\n  \
         static_configs: [{{targets: [\"{address}\"]}}]\n  tls_config: {tls}\n"
    )
}

fn up(address: &str) -> String {
    format!("up{{instance=\"{address}\", job=\"j\"}}")
}

async fn takes(address: &str, tls: &str) {
    let running = Running::start(&job(address, tls));
    running.sink.wait(&format!("a{{instance=\"{address}\", job=\"j\"}}"), 1).await;
    running.end().await;
}

/// The handshake fails, with such a reason.
async fn refuses(address: &str, tls: &str, what: &str) {
    let running = Running::start(&job(address, tls));
    running.error(|error| error.contains(what) && error != "context deadline exceeded").await;
    assert!(running.end().await.of(&format!("a{{instance=\"{address}\", job=\"j\"}}")).is_empty());
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[tokio::test]
async fn whom_a_job_trusts() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = authority();
    let ca = write(folder.path(), "ca.pem", &trusted.pem());
    let other = write(folder.path(), "other.pem", &authority().pem());
    let address = tls_target(&trusted, None, false).await;
    takes(&address, &format!("{{ca_file: \"{ca}\"}}")).await;
    takes(&address, &format!("{{ca: {:?}}}", trusted.pem())).await;
    takes(&address, "{insecure_skip_verify: true}").await;
    for tls in [String::from("{}"), format!("{{ca_file: \"{other}\"}}")] {
        refuses(&address, &tls, "certificate").await;
    }
    let old = tls_target(&trusted, None, true).await;
    takes(&old, &format!("{{ca_file: \"{ca}\", max_version: TLS12}}")).await;
    refuses(&old, &format!("{{ca_file: \"{ca}\", min_version: TLS13}}"), "error").await;
}

#[tokio::test]
async fn as_whom_a_job_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let (servers, clients) = (authority(), authority());
    let ca = write(folder.path(), "ca.pem", &servers.pem());
    let (certificate, key) = certified(&clients);
    let cert = write(folder.path(), "cert.pem", &certificate.pem());
    let key = write(folder.path(), "key.pem", &key.serialize_pem());
    let address = tls_target(&servers, Some(&clients), false).await;
    let with = format!("{{ca_file: \"{ca}\", cert_file: \"{cert}\", key_file: \"{key}\"}}");
    takes(&address, &with).await;
    refuses(&address, &format!("{{ca_file: \"{ca}\"}}"), "error").await;
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = authority();
    let address = tls_target(&authority, None, false).await;
    let ca = write(folder.path(), "ca.pem", &self::authority().pem());
    let path = write(folder.path(), "scrape.yml", &job(&address, &format!("{{ca_file: \"{ca}\"}}")));
    let config = AgentConfig {
        host_metrics: false,
        scrape_config_file: Some(path.into()),
        scrape_config_poll: Duration::from_millis(20),
        ..AgentConfig::default()
    };
    let sink = Arc::new(Recorder::default());
    let agent = Agent::open(config, sink.clone()).await.expect("a valid file");
    let running = Running::of(agent, sink);
    running.sink.wait(&up(&address), 1).await;
    running.error(|error| error.contains("certificate")).await;
    write(folder.path(), "ca.pem", &authority.pem());
    running.sink.wait(&format!("a{{instance=\"{address}\", job=\"j\"}}"), 1).await;
    running.end().await;
}
