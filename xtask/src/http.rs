//! As much HTTP/1.1 as the chores need: whole messages, one per connection.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The first line, the headers and the body of a request or an answer.
#[derive(Debug, Default)]
pub struct Message {
    /// Request line or status line.
    pub first: String,
    /// Header lines as they came.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Status of an answer; 0 where there is none.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// Method and target of a request.
    pub fn request(&self) -> (&str, &str) {
        let mut words = self.first.split(' ');
        (words.next().unwrap_or(""), words.next().unwrap_or(""))
    }

    /// The message's bytes: one that ends its connection. `length`: the body's length is stated anew, which an answer to HEAD
    /// must not have.
    pub fn bytes(&self, length: bool) -> Vec<u8> {
        let mut out = format!("{}\r\n", self.first);
        let dropped =
            |line: &str, name: &str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        for line in &self.headers {
            let is_kept = !dropped(line, "connection") && (!length || !dropped(line, "content-length"));
            if is_kept {
                out.push_str(line);
                out.push_str("\r\n");
            }
        }
        if length {
            out.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        out.push_str("Connection: close\r\n\r\n");
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out
    }
}

/// Reads a message. `to_end`: a body without a stated length lasts until the connection ends. `None` where the peer closed
/// before a message was whole.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), to_end: bool) -> Result<Option<Message>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n").map(str::to_owned);
    let mut message = Message {
        first: lines.next().unwrap_or_default(),
        headers: lines.collect(),
        body: bytes.split_off(head + 4),
    };
    anyhow::ensure!(message.header("transfer-encoding").is_none(), "a body in chunks: {}", message.first);
    let length = match message.header("content-length") {
        Some(n) => Some(n.parse::<usize>().with_context(|| format!("content-length {n}"))?),
        None if to_end => None,
        None => Some(0),
    };
    while length.is_none_or(|n| message.body.len() < n) {
        if stream.read_buf(&mut message.body).await? == 0 {
            return Ok(length.is_none().then_some(message));
        }
    }
    Ok(Some(message))
}

/// Sends one request to `host:port` and reads the answer; waits five seconds at most.
pub async fn call(address: &str, method: &str, path: &str, body: &[u8]) -> Result<Message> {
    let request = Message {
        first: format!("{method} {path} HTTP/1.1"),
        headers: vec![format!("Host: {address}")],
        body: body.to_vec(),
    };
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request.bytes(true)).await?;
        read(&mut stream, true).await?.context("the connection ended before the answer")
    };
    tokio::time::timeout(Duration::from_secs(5), exchange)
        .await
        .with_context(|| format!("{address} does not answer"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(text: &str, to_end: bool) -> Option<Message> {
        read(&mut text.as_bytes(), to_end).await.unwrap()
    }

    #[tokio::test]
    async fn messages_are_read_whole_and_written_with_their_own_length() {
        let m = parsed(
            "PUT /a?b HTTP/1.1\r\nContent-Length: 3\r\nconnection: keep-alive\r\nX: 1\r\n\r\nabc",
            false,
        )
        .await
        .unwrap();
        assert_eq!((m.request(), m.header("x"), &m.body[..]), (("PUT", "/a?b"), Some("1"), &b"abc"[..]));
        assert_eq!(
            String::from_utf8(m.bytes(true)).unwrap(),
            "PUT /a?b HTTP/1.1\r\nX: 1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        );
        let m = parsed("HTTP/1.1 404 Not Found\r\n\r\nno", true).await.unwrap();
        assert_eq!((m.status(), &m.body[..]), (404, &b"no"[..]));
        let m = parsed("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", false).await;
        assert!(m.is_none(), "cut");
        let head = Message {
            first: "HTTP/1.1 200 OK".into(),
            headers: vec!["Content-Length: 7".into()],
            body: vec![],
        };
        assert!(String::from_utf8(head.bytes(false)).unwrap().contains("Content-Length: 7\r\n"));
    }
}
