//! An HTTP proxy that misbehaves when told to: between the process and its object store.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// They are passed on.
    Pass,
    /// They are answered with this status.
    Status(u16),
    /// They are not answered while this mode lasts.
    Hang,
    /// Their connection is reset.
    Reset,
    /// They are passed on after a while.
    Delay(Duration),
}

/// A running proxy; ends with the value.
pub struct Proxy {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    requests: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// A proxy of the server at a port of this machine.
    pub fn start(port: u16) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Pass);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (modes, count) = (modes.clone(), count.clone());
                // A connection that breaks is what the test is about.
                tokio::spawn(async move {
                    let _ = serve(client, port, modes, &count).await;
                });
            }
        });
        Self { address, mode, requests, _runtime: runtime }
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
}

/// One request of a connection, which is closed behind its answer, so that every request meets the current mode.
async fn serve(
    mut client: TcpStream,
    port: u16,
    mut modes: watch::Receiver<Mode>,
    count: &AtomicUsize,
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut client).await? else { return Ok(()) };
    count.fetch_add(1, Relaxed);
    let mode = *modes.borrow_and_update();
    match mode {
        Mode::Status(status) => {
            let body = "<Error><Code>Told</Code><Message>as the test asked for</Message></Error>";
            let head = format!(
                "HTTP/1.1 {status} Told\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            client.write_all((head + body).as_bytes()).await?;
            return client.shutdown().await;
        }
        Mode::Reset => {
            // No time to linger: the peer gets RST instead of FIN.
            #[allow(deprecated)]
            client.set_linger(Some(Duration::ZERO))?;
            return Ok(());
        }
        Mode::Hang => {
            let _ = modes.changed().await;
            return Ok(());
        }
        Mode::Delay(time) => tokio::time::sleep(time).await,
        Mode::Pass => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server.write_all(&request).await?;
    tokio::io::copy(&mut server, &mut client).await?;
    client.shutdown().await
}

/// A whole request, told to close its connection; `None` where the client closed first.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let header = |name: &str| {
        text.lines().find_map(|l| {
            let (n, v) = l.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim().to_owned())
        })
    };
    assert!(header("transfer-encoding").is_none(), "{text}");
    let length: usize = header("content-length").map_or(0, |l| l.parse().unwrap());
    while bytes.len() < head + 4 + length {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    let kept = text.lines().filter(|l| !l.to_ascii_lowercase().starts_with("connection:"));
    let head_text: String = kept.map(|l| format!("{l}\r\n")).collect();
    let mut out = format!("{head_text}Connection: close\r\n\r\n").into_bytes();
    out.extend_from_slice(&bytes[head + 4..]);
    Ok(Some(out))
}
