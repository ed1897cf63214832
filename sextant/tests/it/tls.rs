//! TLS on every listener: who gets in, what is refused, and certificates that are replaced while the process runs.

use std::{path::Path, process::Command, sync::Arc};

use arrow_flight::{
    FlightDescriptor,
    flight_service_client::FlightServiceClient,
    sql::{CommandStatementQuery, ProstMessageExt},
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use sextant_security::{ClientTls, ClientTlsFiles, Connector, Protocol, Role, SecurityMetrics};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tonic::transport::Endpoint;

use crate::{
    binary::{Sextant, binary},
    ledger::eventually,
    security::{PASSWORD, credentials, password_hash},
};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one; its certificate is `name.pem` in the folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // A certificate of the same name as its authority would be taken for one that is its own.
        params.distinguished_name.push(DnType::CommonName, format!("authority {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let this = Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap());
        std::fs::write(folder.join(format!("{name}.pem")), this.0.pem()).unwrap();
        this
    }

    /// Certificate and key for this host: `name.crt` and `name.key` in the folder, there at every instant.
    fn certify(&self, folder: &Path, name: &str) {
        self.certify_as(folder, name, None);
    }

    /// The same of a process with this role.
    pub fn certify_as(&self, folder: &Path, name: &str, role: Option<Role>) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let uri = role.map(|r| SanType::URI(r.uri().try_into().unwrap()));
        params.subject_alt_names.extend(uri);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        for (ending, text) in [("crt", certificate), ("key", key.serialize_pem())] {
            let aside = folder.join("aside");
            std::fs::write(&aside, text).unwrap();
            std::fs::rename(&aside, folder.join(format!("{name}.{ending}"))).unwrap();
        }
    }
}

fn start(folder: &Path, more: &[&str]) -> Sextant {
    let path = |name: &str| folder.join(name).display().to_string();
    let (cert, key) =
        (format!("--tls.cert-file={}", path("server.crt")), format!("--tls.key-file={}", path("server.key")));
    let mut args = vec!["--agent.host-metrics=false", "--security.reload-interval=50ms", &cert, &key];
    args.extend(more);
    Sextant::spawn(folder, &args, None).expect("the process listens")
}

/// What a client trusts, and the certificate that it shows.
fn client(folder: &Path, ca: &str, own: Option<&str>) -> ClientTls {
    let identity = own.map(|n| (folder.join(format!("{n}.crt")), folder.join(format!("{n}.key"))));
    let files = ClientTlsFiles { ca: folder.join(ca), identity, server_name: None };
    ClientTls::open(files, Arc::new(SecurityMetrics::default())).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn handshake(tls: &ClientTls, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = (*tls.config(Protocol::Http)).clone();
    // What a client speaks that offers nothing by ALPN.
    config.alpn_protocols.clear();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn read_all(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // A server that ends a connection without a word is an answer here.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// GET by HTTP/1.1 over TLS: the answer, and the server's certificate.
async fn get(tls: &ClientTls, address: &str, path: &str) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = handshake(tls, TcpStream::connect(address).await?).await?;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    stream.flush().await?;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    Ok((read_all(stream).await, certificate))
}

fn address_of(sextant: &Sextant) -> String {
    sextant.url.trim_start_matches("http://").to_owned()
}

#[test]
fn every_listener_speaks_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    Authority::new(folder, "ca").certify(folder, "server");
    Authority::new(folder, "other");
    let sextant = start(folder, &[]);
    let (tls, stranger) = (client(folder, "ca.pem", None), client(folder, "other.pem", None));
    runtime().block_on(async {
        for address in [&address_of(&sextant), &sextant.otlp_http] {
            let (answer, _) = get(&tls, address, "/ready").await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ready\n"), "{answer}");
            assert!(get(&stranger, address, "/ready").await.is_err(), "another authority");
            let mut plain = TcpStream::connect(address).await.unwrap();
            plain.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let answer = read_all(plain).await;
            assert!(!answer.contains("HTTP"), "{answer}");
        }
        for (tls, works) in [(Some(&tls), true), (Some(&stranger), false), (None, false)] {
            let connect = |to: &str| {
                let endpoint = Endpoint::new(format!("http://{to}")).unwrap();
                endpoint.connect_with_connector_lazy(Connector::new(tls.cloned()))
            };
            let mut flight = FlightServiceClient::new(connect(&sextant.grpc));
            let statement = CommandStatementQuery { query: "select 1".to_owned(), transaction_id: None };
            let descriptor = FlightDescriptor::new_cmd(statement.as_any().encode_to_vec());
            let answer = flight.get_flight_info(descriptor).await;
            assert_eq!(answer.is_ok(), works, "{answer:?}");
            let mut otlp = MetricsServiceClient::new(connect(&sextant.otlp_grpc));
            assert_eq!(otlp.export(ExportMetricsServiceRequest::default()).await.is_ok(), works);
        }
        let secured = postgres(&sextant, &tls, b"").await.unwrap();
        let mut config = tokio_postgres::Config::new();
        config.user("tester").dbname("anonymous");
        let (session, connection) = config.connect_raw(secured, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        // More than a TLS record and than a socket takes at once.
        let text: String = session.query_one("select repeat('x', 3000000)", &[]).await.unwrap().get(0);
        assert_eq!(text.len(), 3_000_000);
        assert!(postgres(&sextant, &stranger, b"").await.is_err(), "another authority");
        let answer = postgres(&sextant, &tls, b"\0\0\0\x10\0\x03\0\0").await.unwrap_err().to_string();
        assert!(answer.contains("unencrypted data after SSL request"), "{answer}");
        let (host, port) = sextant.postgres.split_once(':').unwrap();
        config.host(host).port(port.parse().unwrap()).ssl_mode(tokio_postgres::config::SslMode::Disable);
        let error = config.connect(tokio_postgres::NoTls).await.err().unwrap();
        assert_eq!(error.code().map(|c| c.code()), Some("28000"), "{error}");
    });
}

/// A connection to the PostgreSQL listener in TLS; `early` is sent with the question for it.
async fn postgres(sextant: &Sextant, tls: &ClientTls, early: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(&sextant.postgres).await?;
    stream.write_all(&[&SSL_REQUEST, early].concat()).await?;
    match stream.read_u8().await? {
        b'S' => handshake(tls, stream).await,
        _ => Err(std::io::Error::other(read_all(stream).await)),
    }
}

#[test]
fn certificates_are_replaced_while_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new(folder, "ca");
    authority.certify(folder, "server");
    let sextant = start(folder, &[]);
    let (tls, address) = (client(folder, "ca.pem", None), address_of(&sextant));
    let runtime = runtime();
    let ask = |path: &str| runtime.block_on(get(&tls, &address, path)).unwrap();
    let metric = |value: u8| format!("sextant_security_reload_successful{{part=\"listener_tls\"}} {value}");
    let first = ask("/ready").1;
    assert_eq!(ask("/ready").1, first);
    std::fs::write(folder.join("server.crt"), "no certificate").unwrap();
    eventually("the wrong file is refused", || match ask("/metrics") {
        (text, same) if text.contains(&metric(0)) && same == first => Ok(()),
        (text, _) => Err(text),
    });
    authority.certify(folder, "server");
    eventually("the new certificate is in force", || match ask("/metrics") {
        (text, new) if text.contains(&metric(1)) && new != first => Ok(()),
        (text, _) => Err(text),
    });
}

#[test]
fn clients_need_a_certificate_where_it_is_required() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    Authority::new(folder, "ca").certify(folder, "server");
    Authority::new(folder, "people").certify(folder, "person");
    Authority::new(folder, "other").certify(folder, "other");
    let ca = format!("--tls.client-ca-file={}", folder.join("people.pem").display());
    let sextant = start(folder, &[&ca, "--tls.require-client-cert"]);
    for (own, works) in [(Some("person"), true), (Some("other"), false), (None, false)] {
        let tls = client(folder, "ca.pem", own);
        let answer = runtime().block_on(get(&tls, &address_of(&sextant), "/ready"));
        assert_eq!(answer.is_ok_and(|(text, _)| text.contains("200 OK")), works, "{own:?}");
        let session = runtime().block_on(async {
            let secured = postgres(&sextant, &tls, b"").await.ok()?;
            let mut config = tokio_postgres::Config::new();
            config.user("tester").dbname("anonymous");
            config.connect_raw(secured, tokio_postgres::NoTls).await.ok().map(drop)
        });
        assert_eq!(session.is_some(), works, "{own:?}");
    }
}

#[test]
fn psql_over_tls_with_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    Authority::new(folder, "ca").certify(folder, "server");
    Authority::new(folder, "other");
    let auth = credentials(folder, &password_hash(PASSWORD));
    let sextant = start(folder, &["--multi-tenancy=true", &auth]);
    let (_, port) = sextant.postgres.split_once(':').unwrap();
    for (more, password, expected) in [
        ("sslmode=require", PASSWORD, Ok("7")),
        ("sslmode=verify-full sslrootcert=ca.pem", PASSWORD, Ok("7")),
        ("sslmode=prefer", PASSWORD, Ok("7")),
        ("sslmode=verify-full sslrootcert=other.pem", PASSWORD, Err("certificate")),
        ("sslmode=disable", PASSWORD, Err("this listener speaks TLS only")),
        ("sslmode=require", "wrong", Err("password authentication failed for user \"grafana\"")),
        ("sslmode=require options='-c tenant=b'", PASSWORD, Err("not for tenant b")),
    ] {
        let target = format!("host=localhost hostaddr=127.0.0.1 port={port} user=grafana dbname=a {more}");
        let out = Command::new("psql")
            .args(["-X", "-A", "-t", "-w", "-d", &target, "-c", "select 3 + 4"])
            .env("PGPASSWORD", password)
            .env("PGCONNECT_TIMEOUT", "30")
            .current_dir(folder)
            .output();
        let Ok(out) = out else {
            println!("skipped: there is no psql on the PATH");
            return;
        };
        let (answer, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        match expected {
            Ok(value) => assert_eq!(answer.trim_end(), value, "{more}: {error}"),
            Err(part) => assert!(error.contains(part) && answer.is_empty(), "{more}: {answer} {error}"),
        }
    }
}

#[test]
fn half_a_configuration_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    Authority::new(folder, "ca").certify(folder, "server");
    let path = |name: &str| folder.join(name).display().to_string();
    for (args, part) in [
        (vec![format!("--tls.cert-file={}", path("server.crt"))], "tls.key_file is missing"),
        (
            vec![
                format!("--tls.cert-file={}", path("none")),
                format!("--tls.key-file={}", path("server.key")),
            ],
            "none: No such file",
        ),
        (
            vec![
                format!("--tls.cert-file={}", path("ca.pem")),
                format!("--tls.key-file={}", path("server.key")),
            ],
            "tls: ",
        ),
        (vec![format!("--auth.file={}", path("none"))], "auth.file: "),
    ] {
        let out =
            Command::new(binary()).arg("--data-dir").arg(folder.join("data")).args(args).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && error.contains(part), "{part}: {error}");
        assert!(!error.contains("PRIVATE KEY"), "{error}");
    }
}
