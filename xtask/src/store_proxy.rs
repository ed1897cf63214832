//! A proxy in front of an S3 server that refuses, resets, delays, loses answers or lists what was there before, when it is told to.
//!
//! Told over HTTP at its control address: `POST /mode` with one of the words of [`Mode`]; `GET /mode` answers with it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::http::{self, Message};

/// Arguments of `store-proxy`.
#[derive(clap::Args)]
pub struct Args {
    /// Address that takes requests.
    #[arg(long)]
    listen: String,
    /// Address that takes orders.
    #[arg(long)]
    control: String,
    /// Address of the S3 server.
    #[arg(long)]
    upstream: String,
}

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `pass`: they are passed on.
    Pass,
    /// `refuse`: they are answered with 503.
    Refuse,
    /// `reset`: their connection is reset.
    Reset,
    /// `hang`: they are not answered while this mode lasts.
    Hang,
    /// `delay MILLISECONDS`: they are passed on after a while.
    Delay(Duration),
    /// `lose`: they are passed on, and instead of an answer the connection is reset.
    Lose,
    /// `stale`: listings lack what was created since this mode began.
    Stale,
}

impl std::str::FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.trim().split_once(' ').unwrap_or((text.trim(), "")) {
            ("pass", "") => Self::Pass,
            ("refuse", "") => Self::Refuse,
            ("reset", "") => Self::Reset,
            ("hang", "") => Self::Hang,
            ("delay", ms) => Self::Delay(Duration::from_millis(ms.parse().context("milliseconds")?)),
            ("lose", "") => Self::Lose,
            ("stale", "") => Self::Stale,
            _ => bail!("no mode {text:?}"),
        })
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Refuse => f.write_str("refuse"),
            Self::Reset => f.write_str("reset"),
            Self::Hang => f.write_str("hang"),
            Self::Delay(d) => write!(f, "delay {}", d.as_millis()),
            Self::Lose => f.write_str("lose"),
            Self::Stale => f.write_str("stale"),
        }
    }
}

/// Runs until the process ends.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&args.listen).await.with_context(|| args.listen.clone())?;
        let control = TcpListener::bind(&args.control).await.with_context(|| args.control.clone())?;
        Proxy::new(args.upstream.clone()).serve(listener, control).await
    })
}

struct Proxy {
    upstream: String,
    mode: watch::Sender<Mode>,
    /// Paths that were created since the mode became `stale`.
    created: Mutex<BTreeSet<String>>,
}

impl Proxy {
    fn new(upstream: String) -> Arc<Self> {
        Arc::new(Self { upstream, mode: watch::channel(Mode::Pass).0, created: Mutex::default() })
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, control: TcpListener) -> Result<()> {
        loop {
            tokio::select! {
                client = listener.accept() => {
                    let (proxy, (client, _)) = (self.clone(), client?);
                    // A connection that breaks is what the proxy is for.
                    tokio::spawn(async move { proxy.answer(client).await.ok() });
                }
                client = control.accept() => {
                    let (proxy, (client, _)) = (self.clone(), client?);
                    tokio::spawn(async move { proxy.obey(client).await.ok() });
                }
            }
        }
    }

    fn created(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn obey(&self, mut client: TcpStream) -> Result<()> {
        let Some(request) = http::read(&mut client, false).await? else { return Ok(()) };
        let answer = match (request.request(), String::from_utf8_lossy(&request.body).parse::<Mode>()) {
            (("GET", "/mode"), _) => text(200, &self.mode.borrow().to_string()),
            (("POST", "/mode"), Ok(mode)) => {
                if self.mode.send_replace(mode) != mode {
                    self.created().clear();
                }
                text(200, &mode.to_string())
            }
            (("POST", "/mode"), Err(e)) => text(400, &e.to_string()),
            _ => text(404, "GET or POST /mode"),
        };
        client.write_all(&answer.bytes(true)).await?;
        Ok(client.shutdown().await?)
    }

    /// One request of a connection, which is closed behind its answer, so that every request meets the current mode.
    async fn answer(&self, mut client: TcpStream) -> Result<()> {
        let Some(request) = http::read(&mut client, false).await? else { return Ok(()) };
        let mut modes = self.mode.subscribe();
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Refuse => {
                let body = "<Error><Code>SlowDown</Code><Message>as was asked for</Message></Error>";
                let mut answer = text(503, body);
                answer.headers = vec!["Content-Type: application/xml".to_owned()];
                client.write_all(&answer.bytes(true)).await?;
                return Ok(client.shutdown().await?);
            }
            Mode::Reset => return reset(client),
            Mode::Hang => {
                let _ = modes.wait_for(|m| *m != Mode::Hang).await;
                return reset(client);
            }
            Mode::Delay(time) => tokio::time::sleep(time).await,
            Mode::Pass | Mode::Lose | Mode::Stale => {}
        }
        let (method, target) = request.request();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let creates = method == "PUT" || method == "POST" && query.contains("uploadId=");
        let lists = method == "GET" && query.split('&').any(|p| p == "list-type=2");
        if mode == Mode::Stale && creates {
            self.created().insert(decoded(path));
        }
        let mut server = TcpStream::connect(&self.upstream).await?;
        server.write_all(&request.bytes(request.header("content-length").is_some())).await?;
        if mode == Mode::Lose {
            // The request is done when its answer is there.
            http::read(&mut server, method != "HEAD").await?;
            return reset(client);
        }
        if mode == Mode::Stale && lists {
            let mut answer = http::read(&mut server, true).await?.context("no answer")?;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            answer.body = without(&body, &decoded(path), &self.created()).into_bytes();
            client.write_all(&answer.bytes(true)).await?;
        } else {
            tokio::io::copy(&mut server, &mut client).await?;
        }
        Ok(client.shutdown().await?)
    }
}

fn text(status: u16, body: &str) -> Message {
    Message { first: format!("HTTP/1.1 {status} Told"), headers: Vec::new(), body: body.as_bytes().to_vec() }
}

/// No time to linger: the peer gets RST instead of FIN.
fn reset(client: TcpStream) -> Result<()> {
    Ok(client.set_zero_linger()?)
}

/// A path without percent encoding.
fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match code.and_then(|c| u8::from_str_radix(c, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A listing of a bucket without the objects whose paths are given.
fn without(listing: &str, bucket: &str, created: &BTreeSet<String>) -> String {
    let mut out = String::with_capacity(listing.len());
    let mut rest = listing;
    let bucket = bucket.trim_end_matches('/');
    while let Some((before, after)) = rest.split_once("<Contents>") {
        let Some((object, behind)) = after.split_once("</Contents>") else { break };
        let key = object.split_once("<Key>").and_then(|(_, k)| k.split_once("</Key>")).map_or("", |(k, _)| k);
        out.push_str(before);
        if !created.contains(&format!("{bucket}/{}", decoded(key))) {
            out.push_str(&format!("<Contents>{object}</Contents>"));
        }
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "<?xml version=\"1.0\"?><R><KeyCount>2</KeyCount><Contents><Key>a/1</Key><Size>1</Size></Contents>\
                           <Contents><Key>a/b%3D2</Key><Size>1</Size></Contents></R>";

    /// An S3 server that lists the same at any time; and a proxy of it: address and control address.
    async fn proxied() -> (String, String, Arc<Mutex<Vec<String>>>) {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (of_task, address) = (seen.clone(), upstream.local_addr().unwrap().to_string());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = upstream.accept().await {
                let request = http::read(&mut client, false).await.unwrap().unwrap();
                of_task.lock().unwrap().push(format!("{} {}", request.first, request.body.len()));
                client.write_all(&text(200, LISTING).bytes(true)).await.unwrap();
            }
        });
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (listener, control) = (bind().await.unwrap(), bind().await.unwrap());
        let addresses =
            (listener.local_addr().unwrap().to_string(), control.local_addr().unwrap().to_string());
        tokio::spawn(Proxy::new(address).serve(listener, control));
        (addresses.0, addresses.1, seen)
    }

    async fn order(control: &str, mode: &str) -> u16 {
        http::call(control, "POST", "/mode", mode.as_bytes()).await.unwrap().status()
    }

    #[tokio::test]
    async fn every_mode_does_what_it_says() {
        let (proxy, control, seen) = proxied().await;
        let list = || http::call(&proxy, "GET", "/bucket?list-type=2&prefix=a", b"");
        let requests = || seen.lock().unwrap().len();
        assert_eq!(list().await.unwrap().body, LISTING.as_bytes());
        assert_eq!(http::call(&proxy, "PUT", "/bucket/a/1", b"abc").await.unwrap().status(), 200);
        assert_eq!(seen.lock().unwrap()[1], "PUT /bucket/a/1 HTTP/1.1 3");

        for (mode, passed_on) in [("refuse", 0), ("reset", 0), ("lose", 1)] {
            assert_eq!(order(&control, mode).await, 200);
            let before = requests();
            match list().await {
                Ok(answer) => assert_eq!((mode, answer.status()), ("refuse", 503)),
                Err(_) => assert_ne!(mode, "refuse"),
            }
            assert_eq!(requests() - before, passed_on, "{mode}");
        }
        assert_eq!(order(&control, "delay 1").await, 200);
        assert_eq!(list().await.unwrap().status(), 200);

        assert_eq!(order(&control, "stale").await, 200);
        assert_eq!(list().await.unwrap().body, LISTING.as_bytes());
        http::call(&proxy, "PUT", "/bucket/a/b%3D2", b"abc").await.unwrap();
        let stale = String::from_utf8(list().await.unwrap().body).unwrap();
        assert!(stale.contains("a/1") && !stale.contains("a/b%3D2") && stale.ends_with("</R>"), "{stale}");
        assert_eq!(order(&control, "pass").await, 200);
        assert_eq!(list().await.unwrap().body, LISTING.as_bytes());

        assert_eq!(order(&control, "hang").await, 200);
        let before = requests();
        let (answer, ordered) = tokio::join!(list(), async {
            // The order may come before the request: then it passes.
            order(&control, "pass").await
        });
        assert!(ordered == 200 && (answer.is_err() || requests() > before));
        assert_eq!(order(&control, "whatever").await, 400);
        let mode = http::call(&control, "GET", "/mode", b"").await.unwrap();
        assert_eq!(mode.body, b"pass");
    }

    #[test]
    fn modes_are_written_as_they_are_read() {
        for word in ["pass", "refuse", "reset", "hang", "delay 250", "lose", "stale"] {
            assert_eq!(word.parse::<Mode>().unwrap().to_string(), word);
        }
        for bad in ["", "delay", "delay x", "pass 1"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
    }
}
