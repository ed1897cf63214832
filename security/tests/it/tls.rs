//! Handshakes of listeners: who gets in, what reloading changes, and what a slow client cannot do.

use std::{net::SocketAddr, time::Duration};

use sextant_security::{
    ClientTls, Connection, Connector, Listener, ListenerOptions, Part, Protocol, Role, SecurityMetrics,
    ServerTls, TlsError, TlsFiles, Watcher,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::files::{Authority, Folder, client, metrics, server};

const INGESTER: &str = "sextant://role/ingester";

/// A listener that answers each byte with the roles of whoever sent it.
async fn serve(tls: Option<ServerTls>, options: ListenerOptions) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = Listener::with_options(socket, tls, Protocol::Grpc, options);
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut connection = listener.next().await;
            tokio::spawn(async move {
                let roles =
                    connection.peer().identity.as_ref().map(|i| format!("{:?}", i.roles)).unwrap_or_default();
                let answer = format!("tls={} {roles}\n", connection.peer().is_tls);
                while connection.read_u8().await.is_ok() {
                    connection.write_all(answer.as_bytes()).await?;
                    connection.flush().await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

async fn ask(connection: &mut Connection) -> std::io::Result<String> {
    connection.write_all(b"?").await?;
    connection.flush().await?;
    let mut answer = Vec::new();
    loop {
        match connection.read_u8().await? {
            b'\n' => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            byte => answer.push(byte),
        }
    }
}

/// In TLS 1.3 a client learns that it is refused when it reads.
async fn connect_and_ask(to: SocketAddr, tls: Option<ClientTls>) -> Result<String, TlsError> {
    let uri = format!("http://{to}").parse().unwrap();
    let mut connection = Connector::new(tls).connect(&uri).await?;
    Ok(ask(&mut connection).await?)
}

#[tokio::test]
async fn only_certificates_of_the_authority_get_in() {
    let (ours, other, folder) = (Authority::new(), Authority::new(), Folder::new());
    let tls = server(&folder, &ours.certify(&[INGESTER]), Some(&ours), true);
    let address = serve(Some(tls), ListenerOptions::default()).await;
    let with = |pair| client(&ours, Some(&pair));
    let dns = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("ingester.sextant".try_into().unwrap()));
    };
    for (what, tls, expected) in [
        ("one role", Some(with(ours.certify(&[INGESTER]))), Some("tls=true [Ingester]")),
        (
            "several roles",
            Some(with(ours.certify(&["sextant://role/querier", "sextant://role/distributor", INGESTER]))),
            Some("tls=true [Distributor, Ingester, Querier]"),
        ),
        (
            "names that give no role, nor does the subject",
            Some(with(ours.certify_with(
                &["sextant://role/x", "sextant://role/", "https://role/ingester", "sextant://role/ingester/"],
                dns,
            ))),
            Some("tls=true []"),
        ),
        ("another authority", Some(with(other.certify(&[INGESTER]))), None),
        ("expired", Some(with(ours.expired(&[INGESTER]))), None),
        ("no certificate", Some(client(&ours, None)), None),
        ("a server of another authority", Some(client(&other, Some(&ours.certify(&[INGESTER])))), None),
        ("no TLS", None, None),
        ("one role, still", Some(with(ours.certify(&[INGESTER]))), Some("tls=true [Ingester]")),
    ] {
        let answer = connect_and_ask(address, tls).await;
        assert_eq!(answer.as_deref().ok(), expected, "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn clients_refuse_servers() {
    let (ours, folder) = (Authority::new(), Folder::new());
    let expired =
        serve(Some(server(&folder, &ours.expired(&[INGESTER]), None, false)), ListenerOptions::default())
            .await;
    assert!(connect_and_ask(expired, Some(client(&ours, None))).await.is_err(), "an expired certificate");
    let plain = serve(None, ListenerOptions::default()).await;
    assert!(connect_and_ask(plain, Some(client(&ours, None))).await.is_err(), "no TLS");
    assert_eq!(connect_and_ask(plain, None).await.unwrap(), "tls=false ");

    let good =
        serve(Some(server(&folder, &ours.certify(&[INGESTER]), None, false)), ListenerOptions::default())
            .await;
    let uri = format!("http://{good}").parse().unwrap();
    let connector = Connector::new(Some(client(&ours, None)));
    assert!(connector.clone().expecting(Role::Ingester).connect(&uri).await.is_ok());
    let wrong = connector.expecting(Role::Querier).connect(&uri).await;
    assert!(matches!(wrong, Err(TlsError::WrongRole(Role::Querier))), "{wrong:?}");
}

#[tokio::test]
async fn what_is_spoken_is_agreed_on() {
    let (ours, folder) = (Authority::new(), Folder::new());
    let tls = server(&folder, &ours.certify(&[]), None, false);
    for (at_server, at_client, is_agreed) in [
        (Protocol::Postgres, Protocol::Postgres, true),
        (Protocol::Grpc, Protocol::Grpc, true),
        (Protocol::Grpc, Protocol::Http, true),
        (Protocol::Grpc, Protocol::Postgres, false),
    ] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let tls = tls.clone();
        let accepted = tokio::spawn(async move { tls.accept(socket.accept().await?.0, at_server).await });
        let stream = TcpStream::connect(address).await.unwrap();
        let connected = client(&ours, None).connect(stream, "localhost", at_client).await;
        assert_eq!(connected.is_ok(), is_agreed, "{at_server:?} {at_client:?}");
        assert_eq!(accepted.await.unwrap().is_ok(), is_agreed, "{at_server:?} {at_client:?}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_while_connections_stay_open() {
    let (old, new, folder) = (Authority::new(), Authority::new(), Folder::new());
    let metrics = metrics();
    let (cert, key) = folder.put("server", &old.certify(&[]));
    let files = TlsFiles { cert, key, client_ca: None, require_client_cert: false };
    let tls = ServerTls::open(Part::ListenerTls, files, metrics.clone()).unwrap();
    let reload = tls.reload();
    let address = serve(Some(tls.clone()), ListenerOptions::default()).await;
    let uri = format!("http://{address}").parse().unwrap();
    let mut open = Connector::new(Some(client(&old, None))).connect(&uri).await.unwrap();
    ask(&mut open).await.unwrap();
    assert_eq!(reload.reload(), Ok(false));

    let pair = new.certify(&[]);
    folder.put("server", &pair);
    assert_eq!(reload.reload(), Ok(true));
    ask(&mut open).await.unwrap();
    assert!(connect_and_ask(address, Some(client(&old, None))).await.is_err());
    assert!(connect_and_ask(address, Some(client(&new, None))).await.is_ok());

    let key_line = pair.key.lines().nth(1).unwrap();
    let half = pair.key[..pair.key.len() / 2].to_owned();
    for (file, text, reason) in [
        ("server.key", "", "no private key"),
        ("server.key", &half, "no private key"),
        ("server.key", &format!("-----BEGIN {key_line}\n{key_line}"), "no private key"),
        ("server.key", &old.certify(&[]).key, "KeyMismatch"),
        ("server.crt", "", "no certificate"),
        ("server.crt", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "not valid PEM"),
    ] {
        folder.write(file, text);
        let error = reload.reload().unwrap_err();
        assert!(error.contains(reason) && !error.contains(key_line), "{error}");
        assert_eq!(tls.last_error(), Some(error));
        assert_eq!(reload.reload(), Ok(false), "an error is said once");
        assert!(!metrics.is_current(Part::ListenerTls));
        assert!(connect_and_ask(address, Some(client(&new, None))).await.is_ok(), "the one before stays");
        folder.put("server", &pair);
        assert_eq!(reload.reload(), Ok(true));
        assert_eq!((tls.last_error(), metrics.is_current(Part::ListenerTls)), (None, true));
    }
    std::fs::remove_file(folder.path("server.crt")).unwrap();
    assert!(reload.reload().unwrap_err().contains("server.crt"));
    assert!(connect_and_ask(address, Some(client(&new, None))).await.is_ok());
    ask(&mut open).await.unwrap();

    let mut text = String::new();
    metrics.render(&mut text);
    for line in [
        "sextant_security_handshakes_total{result=\"failed\"} 1",
        "sextant_security_handshakes_running 0",
        "sextant_security_reload_successful{part=\"listener_tls\"} 0",
        "sextant_security_certificate_expiry_timestamp_seconds{part=\"listener_tls\"} 67090",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!format!("{tls:?}").contains(key_line));
}

#[tokio::test]
async fn the_watcher_takes_a_new_authority_and_clients_a_new_certificate() {
    let (old, new, folder) = (Authority::new(), Authority::new(), Folder::new());
    let tls = server(&folder, &new.certify(&[]), Some(&old), true);
    let address = serve(Some(tls.clone()), ListenerOptions::default()).await;
    let ours = client(&new, Some(&new.certify(&[INGESTER])));
    assert!(connect_and_ask(address, Some(ours.clone())).await.is_err());
    let (stop, stopped) = watch::channel(false);
    let every = Duration::from_millis(5);
    let watching = tokio::spawn(Watcher::new(every).with(tls.reload()).with(ours.reload()).run(stopped));
    folder.write("client-ca.crt", &new.pem());
    while connect_and_ask(address, Some(ours.clone())).await.is_err() {
        tokio::time::sleep(every).await;
    }
    assert!(connect_and_ask(address, Some(client(&new, Some(&old.certify(&[INGESTER]))))).await.is_err());
    stop.send(true).unwrap();
    watching.await.unwrap();
}

#[tokio::test]
async fn a_slow_handshake_delays_no_other() {
    let (ours, folder) = (Authority::new(), Folder::new());
    let tls = server(&folder, &ours.certify(&[]), None, false);
    let options = ListenerOptions { handshakes_max: 4, ..ListenerOptions::default() };
    let address = serve(Some(tls.clone()), options).await;
    // They say nothing, or begin and stop.
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(&[22, 3, 1]).await.unwrap();
    let _other = TcpStream::connect(address).await.unwrap();
    for _ in 0..8 {
        connect_and_ask(address, Some(client(&ours, None))).await.unwrap();
    }

    // With every place taken, the next waits until a time-out frees one; it is not lost.
    let options = ListenerOptions { handshakes_max: 1, handshake_timeout: Duration::from_millis(50) };
    let address = serve(Some(tls), options).await;
    let _silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let uri = format!("http://{address}").parse().unwrap();
    // The client's own handshake may be what the server's time-out ends, on a machine that is busy.
    while Connector::new(Some(client(&ours, None))).connect(&uri).await.is_err() {}
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let (ours, folder) = (Authority::new(), Folder::new());
    let (cert, key) = folder.put("server", &ours.certify(&[]));
    let files = |client_ca, is_required| TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca,
        require_client_cert: is_required,
    };
    let open = |files| ServerTls::open(Part::ListenerTls, files, metrics()).map(|_| ());
    assert!(open(files(None, false)).is_ok());
    assert!(open(files(None, true)).unwrap_err().to_string().contains("required"));
    assert!(open(files(Some(key.clone()), true)).unwrap_err().to_string().contains("no certificate"));
    let swapped =
        TlsFiles { cert: key.clone(), key: cert.clone(), client_ca: None, require_client_cert: false };
    assert!(open(swapped).unwrap_err().to_string().contains("server.key"));
    let missing = TlsFiles { cert: folder.path("none"), ..files(None, false) };
    assert!(open(missing).unwrap_err().to_string().contains("none"));
    let metrics = SecurityMetrics::default();
    assert!(metrics.is_current(Part::Credentials));
}
