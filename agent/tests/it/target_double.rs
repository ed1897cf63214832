//! A scrape target that answers as a test says, and a sink that remembers what it was given.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use sextant_model::TenantId;
use sextant_proto::{SeriesWrite, WriteError, WriteRequest, WriteSink, WriteSummary};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// An answer of the target.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status and its text.
    pub status: &'static str,
    /// Headers, each with its line end.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A body of a type.
    pub fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", headers: format!("Content-Type: {content_type}\r\n"), body: body.into() }
    }

    /// A body in the text format.
    pub fn text(body: &str) -> Self {
        Self::ok("text/plain; version=0.0.4", body)
    }
}

/// A target; `answer` is given the head of each request and its number from 0.
pub async fn target(
    answer: impl Fn(&str, usize) -> Answer + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let answer = Arc::new(Mutex::new(answer));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // A client may open a connection that it does not use; the others must not wait for it.
            tokio::spawn(answer_one(connection, Arc::clone(&answer), Arc::clone(&seen)));
        }
    });
    (address, requests)
}

async fn answer_one(
    mut connection: TcpStream,
    answer: Arc<Mutex<impl Fn(&str, usize) -> Answer>>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(b) => head.push(b),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let a = {
        let answer = answer.lock().expect("not poisoned");
        let mut seen = seen.lock().expect("not poisoned");
        seen.push(head.clone());
        answer(&head, seen.len() - 1)
    };
    let length = a.body.len();
    let start = format!(
        "HTTP/1.1 {}\r\n{}Content-Length: {length}\r\nConnection: close\r\n\r\n",
        a.status, a.headers
    );
    let _ = connection.write_all(start.as_bytes()).await;
    let _ = connection.write_all(&a.body).await;
}

/// Remembers every series in order.
#[derive(Debug, Default)]
pub struct Recorder {
    /// What was written.
    pub series: Mutex<Vec<SeriesWrite>>,
}

#[async_trait]
impl WriteSink for Recorder {
    async fn write(&self, _: &TenantId, request: WriteRequest) -> Result<WriteSummary, WriteError> {
        self.series.lock().expect("not poisoned").extend(request.series);
        Ok(WriteSummary::default())
    }
}

impl Recorder {
    /// The writes of one series, by its labels as text.
    pub fn of(&self, labels: &str) -> Vec<SeriesWrite> {
        let all = self.series.lock().expect("not poisoned");
        all.iter().filter(|s| s.labels.to_string() == labels).cloned().collect()
    }

    /// The values of one series.
    pub fn values(&self, labels: &str) -> Vec<f64> {
        self.of(labels).iter().flat_map(|s| s.samples.iter().map(|s| s.v)).collect()
    }

    /// Every series as text, for messages.
    pub fn names(&self) -> Vec<String> {
        let all = self.series.lock().expect("not poisoned");
        let mut names: Vec<String> = all.iter().map(|s| s.labels.to_string()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Waits until a series has this many writes.
    pub async fn wait(&self, labels: &str, writes: usize) {
        for _ in 0..400 {
            if self.of(labels).len() >= writes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{labels} was not written {writes} times; written: {:#?}", self.names());
    }
}

/// A target that begins an answer and then says nothing more, and the number of its connections.
pub async fn hung_target(beginning: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            seen.fetch_add(1, Relaxed);
            let _ = connection.write_all(beginning.as_bytes()).await;
            open.push(connection);
        }
    });
    (address, connections)
}
