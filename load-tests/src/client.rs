//! A small HTTP/1.1 client over one kept connection, so that the client costs as little as it can.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// One connection to a server.
pub struct Client {
    address: String,
    timeout: Duration,
    stream: Option<BufReader<TcpStream>>,
}

/// An answer.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of `host:port` that waits long.
    pub fn new(address: &str) -> Self {
        Self::with_timeout(address, Duration::from_secs(300))
    }

    /// A client of `host:port` that waits so long for a connection, and for each piece of an answer.
    pub fn with_timeout(address: &str, timeout: Duration) -> Self {
        Self { address: address.to_owned(), timeout, stream: None }
    }

    fn stream(&mut self) -> Result<&mut BufReader<TcpStream>> {
        if self.stream.is_none() {
            let about = || format!("connect to {}", self.address);
            let address = self.address.to_socket_addrs().with_context(about)?.next().with_context(about)?;
            let stream = TcpStream::connect_timeout(&address, self.timeout).with_context(about)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.timeout))?;
            stream.set_write_timeout(Some(self.timeout))?;
            self.stream = Some(BufReader::with_capacity(256 * 1024, stream));
        }
        self.stream.as_mut().context("no connection")
    }

    /// Sends a request and reads the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let address = self.address.clone();
        let result = self.try_request(&address, method, path, headers, body);
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    /// Sends a request and closes the connection without waiting for the answer.
    pub fn send_and_leave(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<()> {
        let address = self.address.clone();
        let result = self.write_request(&address, method, path, headers, body);
        self.stream = None;
        result
    }

    fn write_request(
        &mut self,
        address: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<()> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let stream = self.stream()?;
        let socket = stream.get_mut();
        socket.write_all(head.as_bytes())?;
        Ok(socket.write_all(body)?)
    }

    fn try_request(
        &mut self,
        address: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        self.write_request(address, method, path, headers, body)?;
        let stream = self.stream()?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .with_context(|| format!("status line {line:?}"))?;
        let (mut length, mut chunked, mut close) = (None, false, false);
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                bail!("the connection ended within the headers");
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if let Some((name, value)) = text.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = Some(value.trim().parse::<usize>()?),
                    "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
                    "connection" => close = value.trim().eq_ignore_ascii_case("close"),
                    _ => {}
                }
            }
        }
        let mut answer = Vec::new();
        if chunked {
            loop {
                line.clear();
                stream.read_line(&mut line)?;
                let size =
                    usize::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
                let at = answer.len();
                answer.resize(at + size, 0);
                stream.read_exact(&mut answer[at..])?;
                line.clear();
                stream.read_line(&mut line)?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            answer.resize(length, 0);
            stream.read_exact(&mut answer)?;
        } else if status != 204 && status != 304 {
            stream.read_to_end(&mut answer)?;
            close = true;
        }
        if close {
            self.stream = None;
        }
        Ok(Answer { status, body: answer })
    }
}

/// A value for a URL's query.
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}
