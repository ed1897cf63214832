//! The messages of PostgreSQL's protocol 3: what clients send, decoded with every length checked, and what they are answered.
//!
//! Layouts: "Message Formats" of PostgreSQL's manual. All numbers are big-endian.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a start-up message at most, as in PostgreSQL.
const STARTUP_MAX: usize = 10_000;
/// Bytes of a password message at most: a client that is not known yet fills no memory.
const PASSWORD_MAX: usize = 10_000;
/// Bytes of any other message at most.
const MESSAGE_MAX: usize = 64 << 20;

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;

/// A client's bytes are no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Malformed(pub String);

fn malformed<T>(what: &str) -> Result<T, Malformed> {
    Err(Malformed(what.to_owned()))
}

/// What a client sends before anything else.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// It asks for TLS: answered with one byte.
    Tls,
    /// It asks for GSSAPI encryption: answered with one byte.
    Gssapi,
    /// It wants the query of another connection stopped.
    Cancel {
        /// The number of that connection.
        pid: i32,
        /// Its secret.
        secret: i32,
    },
    /// It wants a session.
    Startup {
        /// The minor version of protocol 3.
        minor: u16,
        /// `user`, `database`, `options` and settings.
        parameters: BTreeMap<String, String>,
    },
}

/// What a client sends in a session.
#[derive(Debug, PartialEq)]
pub enum Frontend {
    /// Statements, answered at once.
    Query(String),
    /// A statement to prepare.
    Parse {
        /// Its name; empty for the unnamed one.
        name: String,
        /// Its text.
        query: String,
        /// The types of its parameters; 0 where the server is to say.
        types: Vec<u32>,
    },
    /// Values for a prepared statement.
    Bind(Bind),
    /// The question for the types of a statement or portal.
    Describe(Target),
    /// Rows of a portal.
    Execute {
        /// The portal.
        portal: String,
        /// Rows at most; 0 is all.
        max_rows: usize,
    },
    /// The end of a statement or portal.
    Close(Target),
    /// Answers so far are wanted.
    Flush,
    /// The end of a round.
    Sync,
    /// The end of the session.
    Terminate,
    /// A message that no state of a session here expects.
    Other(u8),
}

/// A statement or a portal, by name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// Values for a prepared statement.
#[derive(Debug, PartialEq)]
pub struct Bind {
    /// The portal to make.
    pub portal: String,
    /// The statement.
    pub statement: String,
    /// Formats of the values.
    pub parameter_formats: Formats,
    /// The values; `None` is NULL.
    pub values: Vec<Option<Bytes>>,
    /// Formats that the columns are wanted in.
    pub result_formats: Formats,
}

/// Format codes: none (all text), one for all, or one each. 0 is text, 1 is binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formats(pub Vec<i16>);

impl Formats {
    /// Whether item `i` is binary.
    pub fn binary(&self, i: usize) -> bool {
        match self.0.as_slice() {
            [] => false,
            [all] => *all == 1,
            each => each.get(i) == Some(&1),
        }
    }
}

/// A reader over the body of one message.
struct Body(Bytes);

impl Body {
    fn need(&self, n: usize) -> Result<(), Malformed> {
        if self.0.remaining() < n { malformed("a message is shorter than what it holds") } else { Ok(()) }
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        self.need(2)?;
        Ok(self.0.get_i16())
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.need(4)?;
        Ok(self.0.get_i32())
    }

    /// A count of items of at least `size` bytes each.
    fn count(&mut self, size: usize) -> Result<usize, Malformed> {
        let n = usize::from(self.i16()? as u16);
        self.need(n * size)?;
        Ok(n)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let Some(end) = self.0.iter().position(|b| *b == 0) else {
            return malformed("a text of a message has no end");
        };
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        match String::from_utf8(bytes.into()) {
            Ok(text) => Ok(text),
            Err(_) => malformed("a text of a message is not UTF-8"),
        }
    }

    fn formats(&mut self) -> Result<Formats, Malformed> {
        let n = self.count(2)?;
        (0..n).map(|_| self.i16()).collect::<Result<_, _>>().map(Formats)
    }

    fn target(&mut self) -> Result<Target, Malformed> {
        match self.u8()? {
            b'S' => Ok(Target::Statement(self.text()?)),
            b'P' => Ok(Target::Portal(self.text()?)),
            _ => malformed("neither a statement nor a portal is named"),
        }
    }
}

/// Takes the opening message from the buffer; `None` until all of it is there.
pub fn opening(buffer: &mut BytesMut) -> Result<Option<Opening>, Malformed> {
    let Some(length) = length_at(buffer, 0) else { return Ok(None) };
    if !(8..=STARTUP_MAX).contains(&length) {
        return malformed("invalid length of startup packet");
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = Body(buffer.split_to(length).freeze());
    body.0.advance(4);
    Ok(Some(match body.i32()? {
        SSL_REQUEST => Opening::Tls,
        GSS_REQUEST => Opening::Gssapi,
        CANCEL_REQUEST => Opening::Cancel { pid: body.i32()?, secret: body.i32()? },
        version if version >> 16 == 3 => {
            let mut parameters = BTreeMap::new();
            loop {
                let name = body.text()?;
                if name.is_empty() {
                    break;
                }
                parameters.insert(name, body.text()?);
            }
            Opening::Startup { minor: version as u16, parameters }
        }
        version => {
            return malformed(&format!(
                "unsupported frontend protocol {}.{}: server supports 3.0",
                version >> 16,
                version as u16
            ));
        }
    }))
}

/// Takes the answer to the question for a password from the buffer; `None` until all of it is there.
pub fn password(buffer: &mut BytesMut) -> Result<Option<String>, Malformed> {
    match buffer.first() {
        None => return Ok(None),
        Some(b'p') => {}
        Some(kind) => return malformed(&format!("expected password response, got message type {kind}")),
    }
    let Some(length) = length_at(buffer, 1) else { return Ok(None) };
    if !(5..=PASSWORD_MAX).contains(&length) {
        return malformed("invalid password packet size");
    }
    if buffer.len() <= length {
        return Ok(None);
    }
    let mut body = Body(buffer.split_to(length + 1).freeze().split_off(5));
    let password = body.text()?;
    match body.0.is_empty() {
        true => Ok(Some(password)),
        false => malformed("invalid password packet size"),
    }
}

/// Takes a message from the buffer; `None` until all of it is there.
pub fn message(buffer: &mut BytesMut) -> Result<Option<Frontend>, Malformed> {
    let Some(length) = length_at(buffer, 1) else { return Ok(None) };
    if !(4..=MESSAGE_MAX).contains(&length) {
        return malformed("invalid message length");
    }
    if buffer.len() <= length {
        return Ok(None);
    }
    let mut frame = buffer.split_to(length + 1).freeze();
    let kind = frame.get_u8();
    frame.advance(4);
    let mut body = Body(frame);
    Ok(Some(match kind {
        b'Q' => Frontend::Query(body.text()?),
        b'P' => {
            let (name, query) = (body.text()?, body.text()?);
            let n = body.count(4)?;
            let types = (0..n).map(|_| body.i32().map(|t| t as u32)).collect::<Result<_, _>>()?;
            Frontend::Parse { name, query, types }
        }
        b'B' => {
            let (portal, statement, parameter_formats) = (body.text()?, body.text()?, body.formats()?);
            let n = body.count(4)?;
            let mut values = Vec::with_capacity(n);
            for _ in 0..n {
                values.push(match usize::try_from(body.i32()?) {
                    Ok(length) => {
                        body.need(length)?;
                        Some(body.0.split_to(length))
                    }
                    Err(_) => None,
                });
            }
            let result_formats = body.formats()?;
            Frontend::Bind(Bind { portal, statement, parameter_formats, values, result_formats })
        }
        b'D' => Frontend::Describe(body.target()?),
        b'C' => Frontend::Close(body.target()?),
        b'E' => {
            let portal = body.text()?;
            Frontend::Execute { portal, max_rows: usize::try_from(body.i32()?).unwrap_or(0) }
        }
        b'H' => Frontend::Flush,
        b'S' => Frontend::Sync,
        b'X' => Frontend::Terminate,
        other => Frontend::Other(other),
    }))
}

fn length_at(buffer: &BytesMut, at: usize) -> Option<usize> {
    let bytes = buffer.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
}

/// A column as a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDescription {
    /// Its name.
    pub name: String,
    /// Its type's object id.
    pub type_oid: u32,
    /// Bytes of a value; -1 where they vary.
    pub size: i16,
    /// Whether values come in binary.
    pub binary: bool,
}

/// Answers, written one after the other; sent when the connection flushes.
#[derive(Default)]
pub struct Answers {
    /// The bytes.
    pub bytes: BytesMut,
}

impl Answers {
    /// A message whose body `write` puts.
    pub fn put(&mut self, kind: u8, write: impl FnOnce(&mut BytesMut)) {
        self.bytes.put_u8(kind);
        let at = self.bytes.len();
        self.bytes.put_i32(0);
        write(&mut self.bytes);
        let length = (self.bytes.len() - at) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// The client is asked for its password, in clear.
    pub fn authentication_cleartext_password(&mut self) {
        self.put(b'R', |b| b.put_i32(3));
    }

    /// The client is let in.
    pub fn authentication_ok(&mut self) {
        self.put(b'R', |b| b.put_i32(0));
    }

    /// The version spoken, where the client asked for a later one or for options unknown.
    pub fn negotiate(&mut self, unknown: &[&str]) {
        self.put(b'v', |b| {
            b.put_i32(3 << 16);
            b.put_i32(unknown.len() as i32);
            unknown.iter().for_each(|o| put_text(b, o));
        });
    }

    /// A setting that the client may want to know.
    pub fn parameter_status(&mut self, name: &str, value: &str) {
        self.put(b'S', |b| {
            put_text(b, name);
            put_text(b, value);
        });
    }

    /// What a cancel request must name.
    pub fn backend_key(&mut self, pid: i32, secret: i32) {
        self.put(b'K', |b| {
            b.put_i32(pid);
            b.put_i32(secret);
        });
    }

    /// The session waits; the status is `I` (idle), `T` (in a transaction) or `E` (in a failed one).
    pub fn ready(&mut self, status: u8) {
        self.put(b'Z', |b| b.put_u8(status));
    }

    /// A statement is prepared.
    pub fn parse_complete(&mut self) {
        self.put(b'1', |_| ());
    }

    /// A portal is made.
    pub fn bind_complete(&mut self) {
        self.put(b'2', |_| ());
    }

    /// A statement or portal is closed.
    pub fn close_complete(&mut self) {
        self.put(b'3', |_| ());
    }

    /// A statement has no rows.
    pub fn no_data(&mut self) {
        self.put(b'n', |_| ());
    }

    /// A portal has more rows than were asked for.
    pub fn portal_suspended(&mut self) {
        self.put(b's', |_| ());
    }

    /// The statement was empty.
    pub fn empty_query(&mut self) {
        self.put(b'I', |_| ());
    }

    /// A statement is done.
    pub fn command_complete(&mut self, tag: &str) {
        self.put(b'C', |b| put_text(b, tag));
    }

    /// The types of a statement's parameters.
    pub fn parameter_description(&mut self, types: &[u32]) {
        self.put(b't', |b| {
            b.put_u16(types.len() as u16);
            types.iter().for_each(|t| b.put_u32(*t));
        });
    }

    /// The columns of rows to come.
    pub fn row_description(&mut self, columns: &[ColumnDescription]) {
        self.put(b'T', |b| {
            b.put_u16(columns.len() as u16);
            for c in columns {
                put_text(b, &c.name);
                b.put_i32(0);
                b.put_i16(0);
                b.put_u32(c.type_oid);
                b.put_i16(c.size);
                b.put_i32(-1);
                b.put_i16(i16::from(c.binary));
            }
        });
    }

    /// An error (`E`) or notice (`N`): fields by their letter.
    pub fn report(&mut self, kind: u8, fields: &[(u8, String)]) {
        self.put(kind, |b| {
            for (letter, value) in fields {
                b.put_u8(*letter);
                put_text(b, value);
            }
            b.put_u8(0);
        });
    }
}

/// A text with its end; a NUL inside would end it early and is left out.
fn put_text(b: &mut BytesMut, text: &str) {
    b.extend(text.bytes().filter(|c| *c != 0));
    b.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, body: &[u8]) -> BytesMut {
        let mut b = BytesMut::new();
        b.put_u8(kind);
        b.put_i32(body.len() as i32 + 4);
        b.put_slice(body);
        b
    }

    #[test]
    fn messages_are_read_when_whole_and_refused_when_short() {
        let mut bytes = framed(b'P', b"s\0select $1\0\0\x01\0\0\0\x17");
        let mut half = BytesMut::from(&bytes[..10]);
        assert_eq!(message(&mut half), Ok(None));
        let parsed = Frontend::Parse { name: "s".into(), query: "select $1".into(), types: vec![23] };
        assert_eq!(message(&mut bytes), Ok(Some(parsed)));
        for body in [&b"s\0select"[..], b"s\0q\0\0\x05", b"s\0q\0", b"\xff\0q\0\0\0"] {
            assert!(message(&mut framed(b'P', body)).is_err(), "{body:?}");
        }
        let bind = b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0";
        let Ok(Some(Frontend::Bind(b))) = message(&mut framed(b'B', bind)) else { panic!("bind") };
        assert!(b.parameter_formats.binary(1) && b.values == [Some("x".into()), None]);
        assert!(message(&mut framed(b'B', b"\0s\0\0\0\0\x01\0\0\0\x09x")).is_err());
        assert!(message(&mut BytesMut::from(&b"Q\xff\xff\xff\xff"[..])).is_err());
        assert_eq!(
            message(&mut framed(b'E', b"\0\xff\xff\xff\xff")).unwrap().unwrap(),
            Frontend::Execute { portal: String::new(), max_rows: 0 }
        );
    }

    #[test]
    fn passwords() {
        assert_eq!(password(&mut framed(b'p', b"secret\0")), Ok(Some("secret".into())));
        assert_eq!(password(&mut framed(b'p', b"\0")), Ok(Some(String::new())));
        for whole in 0..11 {
            let mut part = BytesMut::from(&framed(b'p', b"secret\0")[..whole]);
            assert_eq!(password(&mut part), Ok(None), "{whole}");
        }
        for bytes in [
            framed(b'Q', b"select 1\0"),
            framed(b'p', b""),
            framed(b'p', b"no end"),
            framed(b'p', b"a\0b\0"),
            framed(b'p', b"\xff\0"),
            BytesMut::from(&b"p\0\xff\xff\xff"[..]),
            BytesMut::from(&b"p\xff\xff\xff\xff"[..]),
        ] {
            assert!(password(&mut bytes.clone()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn openings() {
        let mut b = BytesMut::from(&b"\0\0\0\x08\x04\xd2\x16\x2f"[..]);
        assert_eq!(opening(&mut b), Ok(Some(Opening::Tls)));
        let mut b = BytesMut::from(&b"\0\0\0\x10\0\x03\0\0user\0me\0\0"[..]);
        b[3] = b.len() as u8;
        let Ok(Some(Opening::Startup { minor: 0, parameters })) = opening(&mut b) else { panic!("startup") };
        assert_eq!(parameters["user"], "me");
        assert!(opening(&mut BytesMut::from(&b"\0\0\0\x08\0\x02\0\0"[..])).is_err());
        assert!(opening(&mut BytesMut::from(&b"\0\0\0\x04"[..])).is_err());
        assert!(opening(&mut BytesMut::from(&b"\0\0\0\x09\0\x03\0\0x"[..])).is_err());
    }
}
