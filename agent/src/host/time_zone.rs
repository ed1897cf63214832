//! The host's time zone, from its compiled zone file (RFC 8536).
//!
//! The zone file's last known transition decides; a rule in its footer (for years that the file does not list) is used
//! for its standard time only.

use std::path::Path;

const UTC: (&str, i32) = ("UTC", 0);

/// Abbreviation and offset in seconds east of UTC at a time; UTC where the host does not say.
pub fn local_time_zone(rootfs: &Path, now_seconds: i64) -> (String, i32) {
    let named = std::env::var("TZ").ok().map(|tz| tz.trim_start_matches(':').to_owned());
    let file = match named.as_deref() {
        None => rootfs.join("etc/localtime"),
        Some("") => return (UTC.0.into(), UTC.1),
        Some(path) if path.starts_with('/') => path.into(),
        Some(zone) => rootfs.join("usr/share/zoneinfo").join(zone),
    };
    std::fs::read(file)
        .ok()
        .and_then(|bytes| zone_at(&bytes, now_seconds))
        .unwrap_or_else(|| (UTC.0.into(), UTC.1))
}

struct Header {
    utc_flags: usize,
    std_flags: usize,
    leaps: usize,
    transitions: usize,
    types: usize,
    characters: usize,
}

const HEADER_BYTES: usize = 44;

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != b"TZif" {
            return None;
        }
        let count = |i: usize| {
            let at = 20 + 4 * i;
            Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
        };
        Some(Self {
            utc_flags: count(0)?,
            std_flags: count(1)?,
            leaps: count(2)?,
            transitions: count(3)?,
            types: count(4)?,
            characters: count(5)?,
        })
    }

    /// The size of the data that follows, whose times have `time_bytes` each.
    fn data_bytes(&self, time_bytes: usize) -> usize {
        self.transitions * (time_bytes + 1)
            + self.types * 6
            + self.characters
            + self.leaps * (time_bytes + 4)
            + self.std_flags
            + self.utc_flags
    }
}

fn zone_at(bytes: &[u8], now: i64) -> Option<(String, i32)> {
    let first = Header::read(bytes)?;
    let version = *bytes.get(4)?;
    let (header, data, time_bytes) = if version == 0 {
        (first, bytes.get(HEADER_BYTES..)?, 4)
    } else {
        // The first block has 32-bit times, for old readers; the second the same with 64 bits.
        let second = bytes.get(HEADER_BYTES + first.data_bytes(4)..)?;
        (Header::read(second)?, second.get(HEADER_BYTES..)?, 8)
    };
    let n = header.transitions;
    let time = |i: usize| {
        let raw = data.get(i * time_bytes..(i + 1) * time_bytes)?;
        Some(match time_bytes {
            4 => i64::from(i32::from_be_bytes(raw.try_into().ok()?)),
            _ => i64::from_be_bytes(raw.try_into().ok()?),
        })
    };
    let passed = (0..n).take_while(|i| time(*i).is_some_and(|t| t <= now)).count();
    let index = match passed {
        0 => 0,
        p => usize::from(*data.get(n * time_bytes + p - 1)?),
    };
    let types = data.get(n * (time_bytes + 1)..)?;
    let local = types.get(index * 6..index * 6 + 6)?;
    let offset = i32::from_be_bytes(local.get(..4)?.try_into().ok()?);
    let characters = types.get(header.types * 6..header.types * 6 + header.characters)?;
    let name = characters.get(usize::from(local[5])..)?.split(|b| *b == 0).next()?;
    Some((String::from_utf8_lossy(name).into_owned(), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(transitions: &[(i64, u8)]) -> Vec<u8> {
        let mut out = b"TZif2".to_vec();
        out.resize(HEADER_BYTES, 0);
        let mut second = b"TZif2".to_vec();
        second.resize(20, 0);
        for count in [0u32, 0, 0, transitions.len() as u32, 2, 9] {
            second.extend(count.to_be_bytes());
        }
        transitions.iter().for_each(|t| second.extend(t.0.to_be_bytes()));
        transitions.iter().for_each(|t| second.push(t.1));
        second.extend([0, 0, 0x0e, 0x10, 0, 0]);
        second.extend([0, 0, 0x1c, 0x20, 1, 4]);
        second.extend(b"CET\0CEST\0");
        out.extend(second);
        out
    }

    #[test]
    fn the_last_transition_decides() {
        let file = zone(&[(100, 1), (200, 0)]);
        assert_eq!(zone_at(&file, 50), Some(("CET".into(), 3600)));
        assert_eq!(zone_at(&file, 150), Some(("CEST".into(), 7200)));
        assert_eq!(zone_at(&file, 1 << 40), Some(("CET".into(), 3600)));
    }

    #[test]
    fn cut_files_give_nothing() {
        let file = zone(&[(100, 1)]);
        for end in 0..file.len() - 1 {
            assert_eq!(zone_at(&file[..end], 150), None, "{end}");
        }
    }
}
