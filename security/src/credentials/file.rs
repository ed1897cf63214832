//! The file of credentials:
//!
//! ```yaml
//! credentials:
//!   - name: prometheus-a            # for logs; each once
//!     token_sha256: 9f86d08188…     # SHA-256 of a random token, 64 hexadecimal digits
//!     tenants: [a]                  # or "*" in quotes: all
//!     rights: [write]               # read, write, admin; none includes another
//!   - name: grafana
//!     token_file: grafana.token     # the token itself, in a file; relative to this file
//!     user: grafana                 # optional: the token is also taken as this user's password
//!     tenants: [a, b]
//!     rights: [read]
//!   - name: operator
//!     user: ops
//!     password_hash: $argon2id$v=19$…
//!     tenants: "*"
//!     rights: [read, admin]
//! ```
//!
//! It is walked by hand: what a deserialiser says of a value that it does not like has the value in it.

use std::{
    collections::HashMap,
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::{digest, hmac, rand::SystemRandom};
use serde_yaml_ng::{Mapping, Value};
use sextant_model::TenantId;
use subtle::ConstantTimeEq;

use super::password::{Hashed, Passwords};
use crate::{
    error::AuthFileError,
    identity::{Identity, Right, TenantScope},
    reload::Files,
};

const KEYS: &[&str] = &["name", "token_sha256", "token_file", "user", "password_hash", "tenants", "rights"];
/// Tokens are not hashed slowly, so they must be beyond guessing.
const TOKEN_BYTES_MIN: usize = 20;

struct Token {
    sha256: [u8; 32],
    user: Option<String>,
    identity: Identity,
}

/// What the file says. No `Debug`: it has secrets.
pub(super) struct Credentials {
    key: hmac::Key,
    /// By a keyed hash, drawn anew at each load: how long a look-up takes says nothing of the digests.
    tokens: HashMap<[u8; 32], Token>,
    pub(super) passwords: Arc<Passwords<Identity>>,
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

fn keyed(key: &hmac::Key, sha256: &[u8; 32]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(key, sha256).as_ref());
    out
}

impl Credentials {
    /// Whose token it is. With a user, it is theirs only where the entry names them.
    pub(super) fn by_token(&self, token: &str, user: Option<&str>) -> Option<Identity> {
        let sha256 = sha256(token.as_bytes());
        let found = self.tokens.get(&keyed(&self.key, &sha256))?;
        let is_same: bool = found.sha256.ct_eq(&sha256).into();
        let is_theirs = user.is_none() || found.user.as_deref() == user;
        (is_same && is_theirs).then(|| found.identity.clone())
    }

    /// Reads and checks the file and those that it names.
    pub(super) fn load(path: &Path, files: &mut Files) -> Result<Self, AuthFileError> {
        let read = |path: &Path, error| AuthFileError::Read { path: path.to_owned(), error };
        let bytes = files.read(path).map_err(|e| read(path, e))?;
        let entries = entries(&bytes).map_err(|(place, reason)| AuthFileError::Invalid {
            path: path.to_owned(),
            place,
            reason,
        })?;
        let mut tokens = Vec::new();
        // All are read before any is judged: the watcher compares what was read.
        for entry in &entries {
            tokens.push(match &entry.secret {
                Secret::TokenFile(name) => {
                    let file = path.parent().unwrap_or(Path::new("")).join(name);
                    Some((files.read(&file), file))
                }
                _ => None,
            });
        }
        let mut builder = Builder::new(path)?;
        for (entry, token) in entries.into_iter().zip(tokens) {
            let token = match token {
                None => None,
                Some((Ok(bytes), file)) => Some((bytes, file)),
                Some((Err(error), file)) => return Err(read(&file, error)),
            };
            builder.add(entry, token)?;
        }
        Ok(builder.build())
    }
}

/// Puts entries together and refuses those that contradict each other.
struct Builder<'a> {
    path: &'a Path,
    key: hmac::Key,
    tokens: HashMap<[u8; 32], Token>,
    by_user: HashMap<String, (Hashed, Identity)>,
    names: HashMap<String, String>,
}

impl<'a> Builder<'a> {
    fn new(path: &'a Path) -> Result<Self, AuthFileError> {
        let invalid = |_| AuthFileError::Invalid {
            path: path.to_owned(),
            place: "credentials".into(),
            reason: "the system has no random numbers".into(),
        };
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(invalid)?;
        Ok(Self { path, key, tokens: HashMap::new(), by_user: HashMap::new(), names: HashMap::new() })
    }

    fn add(&mut self, entry: Entry, token: Option<(Vec<u8>, PathBuf)>) -> Result<(), AuthFileError> {
        let place = entry.place.clone();
        let invalid = |reason: String| AuthFileError::Invalid {
            path: self.path.to_owned(),
            place: place.clone(),
            reason,
        };
        if let Some(other) = self.names.insert(entry.name.clone(), place.clone()) {
            return Err(invalid(format!("{other} has the same name")));
        }
        let identity = Identity::new(&entry.name, entry.rights, entry.tenants);
        let sha256 = match (entry.secret, token) {
            (Secret::TokenSha256(sha256), _) => sha256,
            (Secret::TokenFile(_), Some((bytes, file))) => {
                token_of(&bytes).map_err(|reason| invalid(format!("{}: {reason}", file.display())))?
            }
            (Secret::TokenFile(_), None) => return Err(invalid("token_file was not read".into())),
            (Secret::Password(hash), _) => {
                let Some(user) = entry.user else { return Err(invalid("password_hash needs a user".into())) };
                return match self.by_user.insert(user, (hash, identity)) {
                    None => Ok(()),
                    Some((_, other)) => Err(invalid(format!("\"{}\" has the same user", other.name()))),
                };
            }
        };
        let token = Token { sha256, user: entry.user, identity };
        match self.tokens.insert(keyed(&self.key, &sha256), token) {
            None => Ok(()),
            Some(other) => Err(invalid(format!("\"{}\" has the same token", other.identity.name()))),
        }
    }

    fn build(self) -> Credentials {
        let passwords = Arc::new(Passwords::new(self.by_user, self.key.clone()));
        Credentials { key: self.key, tokens: self.tokens, passwords }
    }
}

fn token_of(bytes: &[u8]) -> Result<[u8; 32], String> {
    let token = std::str::from_utf8(bytes).map_err(|_| "the token is not text")?.trim();
    if token.len() < TOKEN_BYTES_MIN {
        return Err(format!("the token is shorter than {TOKEN_BYTES_MIN} characters"));
    }
    if !token.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c)) {
        return Err("the token has characters that a bearer token may not have (RFC 6750)".into());
    }
    Ok(sha256(token.as_bytes()))
}

enum Secret {
    TokenSha256([u8; 32]),
    TokenFile(PathBuf),
    Password(Hashed),
}

struct Entry {
    place: String,
    name: String,
    secret: Secret,
    user: Option<String>,
    tenants: TenantScope,
    rights: Vec<Right>,
}

/// Where in the file something is wrong, and what.
type Wrong = (String, String);

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Wrong> {
    let whole = |reason: &str| ("the file".to_owned(), reason.to_owned());
    let file: Value = serde_yaml_ng::from_slice(bytes).map_err(|e| {
        // What it says may have a part of the file in it; where it is has not.
        let mut reason = "it is not valid YAML".to_owned();
        if let Some(at) = e.location() {
            let _ = write!(reason, " at line {}, column {}", at.line(), at.column());
        }
        whole(&reason)
    })?;
    let Value::Mapping(file) = file else { return Err(whole("expected the key \"credentials\"")) };
    known_keys(&file, &["credentials"]).map_err(|reason| whole(&reason))?;
    let list = match file.get("credentials") {
        Some(Value::Sequence(list)) if !list.is_empty() => list,
        // An empty list would lock everyone out; most likely the file was cut off.
        _ => return Err(("credentials".into(), "expected a list with at least one entry".into())),
    };
    list.iter().enumerate().map(|(at, value)| entry(at, value)).collect()
}

fn entry(at: usize, value: &Value) -> Result<Entry, Wrong> {
    let mut place = format!("credentials[{at}]");
    let Value::Mapping(map) = value else { return Err((place, "expected keys and values".into())) };
    let name = match name_of(map) {
        Ok(name) => name,
        Err(reason) => return Err((place, reason)),
    };
    let _ = write!(place, " \"{name}\"");
    let read = || -> Result<(Secret, Option<String>, TenantScope, Vec<Right>), String> {
        known_keys(map, KEYS)?;
        let user = text(map, "user")?;
        if user.as_deref().is_some_and(|u| u.is_empty() || u.contains(':') || u.chars().any(char::is_control))
        {
            return Err("user is empty, or has a colon or a control character".into());
        }
        Ok((secret(map)?, user, tenants(map)?, rights(map)?))
    };
    match read() {
        Ok((secret, user, tenants, rights)) => Ok(Entry { place, name, secret, user, tenants, rights }),
        Err(reason) => Err((place, reason)),
    }
}

fn known_keys(map: &Mapping, known: &[&str]) -> Result<(), String> {
    for key in map.keys() {
        let Some(key) = key.as_str() else { return Err("a key is not a text".into()) };
        if known.contains(&key) {
            continue;
        }
        let similar = known.iter().map(|k| (strsim::jaro_winkler(k, key), k));
        let best = similar.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
        let hint = best.map(|(_, k)| format!("; did you mean {k:?}?")).unwrap_or_default();
        // What is like no key may be a secret in the wrong place.
        return Err(match hint.is_empty() {
            true => format!("a key that is not one of {}", known.join(", ")),
            false => format!("unknown key {key:?}{hint}"),
        });
    }
    Ok(())
}

fn text(map: &Mapping, key: &str) -> Result<Option<String>, String> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} is not a text; put it in quotes")),
    }
}

fn name_of(map: &Mapping) -> Result<String, String> {
    let name = text(map, "name")?.ok_or("name is missing")?;
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.@/ ".contains(c);
    if name.is_empty() || name.len() > 100 || !name.chars().all(is_fine) {
        return Err("name is not 1 to 100 characters of [A-Za-z0-9-_.@/ ]".into());
    }
    Ok(name)
}

fn secret(map: &Mapping) -> Result<Secret, String> {
    let (digest, file, hash) =
        (text(map, "token_sha256")?, text(map, "token_file")?, text(map, "password_hash")?);
    match (digest, file, hash) {
        (Some(digest), None, None) => {
            let mut sha256 = [0; 32];
            hex::decode_to_slice(&digest, &mut sha256)
                .map_err(|_| "token_sha256 is not 64 hexadecimal digits")?;
            Ok(Secret::TokenSha256(sha256))
        }
        (None, Some(file), None) if !file.is_empty() => Ok(Secret::TokenFile(file.into())),
        (None, None, Some(hash)) => {
            if !map.contains_key("user") {
                return Err("password_hash needs a user".into());
            }
            Hashed::parse(&hash).map(Secret::Password).map_err(|reason| format!("password_hash: {reason}"))
        }
        _ => Err("exactly one of token_sha256, token_file and password_hash is needed".into()),
    }
}

fn tenants(map: &Mapping) -> Result<TenantScope, String> {
    let expected = "tenants is neither \"*\" (in quotes: all) nor a list of tenant ids";
    let list = match map.get("tenants") {
        Some(Value::String(all)) if all == "*" => return Ok(TenantScope::All),
        Some(Value::Sequence(list)) if !list.is_empty() => list,
        _ => return Err(expected.into()),
    };
    let mut tenants = Vec::new();
    for value in list {
        let id = match value {
            // It is a tenant id by its alphabet; here it is surely meant otherwise.
            Value::String(id) if id == "*" => return Err(expected.into()),
            Value::String(id) => id.clone(),
            Value::Number(id) => id.to_string(),
            _ => return Err(expected.into()),
        };
        tenants.push(TenantId::new(&id).map_err(|e| format!("tenants: {e}"))?);
    }
    tenants.sort();
    tenants.dedup();
    Ok(TenantScope::Only(tenants))
}

fn rights(map: &Mapping) -> Result<Vec<Right>, String> {
    let expected = "rights is not a list of read, write and admin";
    let Some(Value::Sequence(list)) = map.get("rights") else { return Err(expected.into()) };
    let rights: Vec<Right> = list
        .iter()
        .map(|v| v.as_str().and_then(|n| n.parse().ok()))
        .collect::<Option<_>>()
        .ok_or(expected)?;
    if rights.is_empty() { Err(expected.into()) } else { Ok(rights) }
}
