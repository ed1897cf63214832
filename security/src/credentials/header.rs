//! Reads `Authorization` (RFC 7617, RFC 6750). What is not exactly a credential is none.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

/// A longer header has no credential of ours.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// What a request brings. It has a secret: no `Debug`.
pub(super) enum Presented {
    Bearer(String),
    Basic { user: String, password: String },
}

/// The request's credential; `None` where there is none, more than one, or one that is not understood.
pub(super) fn presented(headers: &HeaderMap) -> Option<Presented> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() || value.len() > HEADER_BYTES_MAX {
        return None;
    }
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        let is_token = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
        return (!rest.is_empty() && rest.bytes().all(is_token)).then(|| Presented::Bearer(rest.to_owned()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // RFC 7617, 2: neither has control characters.
        if text.chars().any(char::is_control) {
            return None;
        }
        return Some(Presented::Basic { user: user.to_owned(), password: password.to_owned() });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, http::HeaderValue::from_bytes(value).unwrap());
        }
        presented(&headers).map(|p| match p {
            Presented::Bearer(token) => format!("bearer {token}"),
            Presented::Basic { user, password } => format!("basic {user} {password}"),
        })
    }

    fn basic(text: &[u8]) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    #[test]
    fn credentials_are_read() {
        assert_eq!(read(&[b"Bearer abc.DEF-1~+/="]).as_deref(), Some("bearer abc.DEF-1~+/="));
        assert_eq!(read(&[b"bEARER   abc "]).as_deref(), Some("bearer abc"));
        assert_eq!(read(&[&basic(b"u:p:q")]).as_deref(), Some("basic u p:q"));
        assert_eq!(read(&[&basic(b"u:")]).as_deref(), Some("basic u "));
        assert_eq!(read(&[&basic("ü:pä€".as_bytes())]).as_deref(), Some("basic ü pä€"));
        assert_eq!(read(&[b"basic dTpw"]).as_deref(), Some("basic u p"));
    }

    #[test]
    fn garbage_is_no_credential() {
        let long = format!("Bearer {}", "a".repeat(HEADER_BYTES_MAX));
        for bad in [
            &b""[..],
            b" ",
            b"Bearer",
            b"Bearer ",
            b"Bearer a b",
            b"Bearer a,b",
            b"Bearer \xff",
            b"Bearer\tabc",
            b"abc",
            b"Digest username=\"u\"",
            b"Basic",
            b"Basic ",
            b"Basic =",
            b"Basic ====",
            b"Basic !!!!",
            b"Basic dTpw dTpw",
            b"Basic dTpwx",
            b"Basic dTp_",
            b"Basic\x80 dTpw",
            &basic(b"no colon"),
            &basic(b""),
            &basic(b"u:\0"),
            &basic(b"u\n:p"),
            &basic(b"\xff\xfe:p"),
            long.as_bytes(),
        ] {
            assert_eq!(read(&[bad]), None, "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(read(&[b"Bearer a", b"Bearer a"]), None, "two headers");
        // Every truncation and every flipped bit of a good header: no panic, and never another user.
        let good = basic(b"user:password");
        for at in 0..good.len() {
            let _ = read(&[&good[..at]]);
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                if http::HeaderValue::from_bytes(&bad).is_ok() {
                    let _ = read(&[&bad]);
                }
            }
        }
    }
}
