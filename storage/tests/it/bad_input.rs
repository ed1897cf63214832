//! Decoders on bytes that nobody wrote.

use rand::{Rng, SeedableRng, rngs::StdRng};
use sextant_storage::{BlockOptions, Manifest, StorageError, fuzz, write_block};

use crate::support::hard_set;

fn object(name: &str) -> Vec<u8> {
    let files = write_block(&hard_set(3, 200, 5), BlockOptions::default()).unwrap().unwrap();
    files.objects.iter().find(|(n, _)| n == name).unwrap().1.to_vec()
}

/// Puts the sidecar's footer checksum right, so that what lies behind it is reached.
fn with_footer_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let trailer = bytes.len() - 24;
    let at = u64::from_le_bytes(bytes[trailer..trailer + 8].try_into().unwrap()) as usize;
    let len = u32::from_le_bytes(bytes[trailer + 8..trailer + 12].try_into().unwrap()) as usize;
    if let Some(footer) = at.checked_add(len).and_then(|end| bytes.get(at..end)) {
        let crc = crc32c::crc32c(footer).to_le_bytes();
        bytes[trailer + 12..trailer + 16].copy_from_slice(&crc);
    }
    bytes
}

#[test]
fn sidecars() {
    let good = object("index");
    assert!(fuzz::sidecar(&good));
    for cut in 0..good.len() {
        assert!(!fuzz::sidecar(&good[..cut]), "cut at {cut}");
    }
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bad.len());
            bad[at] = [0, 1, 0x7f, 0x80, 0xff, rng.random()][rng.random_range(0..6)];
        }
        fuzz::sidecar(&with_footer_checksum(bad));
    }
    // Trailers that point anywhere.
    for at in [0u64, 1, u64::MAX, u64::MAX - 23, good.len() as u64] {
        for len in [0u32, 1, u32::MAX] {
            let mut bad = good.clone();
            let trailer = bad.len() - 24;
            bad[trailer..trailer + 8].copy_from_slice(&at.to_le_bytes());
            bad[trailer + 8..trailer + 12].copy_from_slice(&len.to_le_bytes());
            assert!(!fuzz::sidecar(&with_footer_checksum(bad)));
        }
    }
}

#[test]
fn tables_of_checksums() {
    let good = object("checksums");
    assert!(fuzz::checksums(&good));
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        let at = rng.random_range(0..bad.len());
        bad[at] = rng.random();
        bad.truncate(rng.random_range(0..=bad.len()));
        fuzz::checksums(&bad);
    }
    // Sizes that ask for more checksums than there are bytes.
    let mut huge = b"SXCK".to_vec();
    huge.extend(1u32.to_le_bytes());
    huge.extend((64u32 << 10).to_le_bytes());
    huge.extend(1u32.to_le_bytes());
    huge.extend(1u16.to_le_bytes());
    huge.push(b'a');
    huge.extend(u64::MAX.to_le_bytes());
    huge.extend([0; 4]);
    assert!(!fuzz::checksums(&huge));
}

#[test]
fn manifests() {
    let cases: &[(&str, &str)] = &[
        ("", "does not begin"),
        ("{}", "does not begin"),
        ("{\"crc32c\":\"0000", "cut"),
        ("{\"crc32c\":\"00000000\",\"manifest\":{}}", "does not end"),
        ("{\"crc32c\":\"00000000\",\"manifest\":{}}\n", "checksum"),
    ];
    for (text, reason) in cases {
        let e = Manifest::decode("m", text.as_bytes()).unwrap_err();
        assert!(matches!(&e, StorageError::Corrupt { reason: r, .. } if r.contains(reason)), "{text:?}: {e}");
    }
    let body = r#"{"tenant":"a","signal":"metrics","version":1,"commit":"x","blocks":[],"covered":{"0":5},"retired":[]}"#;
    assert!(fuzz::manifest(body.as_bytes()));
    for bad in [
        body.replace("\"version\":1", "\"version\":-1"),
        body.replace("\"version\":1", "\"version\":99999999999999999999999"),
        body.replace("\"retired\":[]", "\"retired\":[{\"id\":\"nonsense\",\"retired_ms\":1}]"),
        body.replace("\"retired\":[]", "\"retired\":[],\"more\":1"),
        body.replace("{\"0\":5}", "{\"zero\":5}"),
        "[".repeat(100_000),
    ] {
        assert!(!fuzz::manifest(bad.as_bytes()), "{bad:.80}");
    }
}

#[test]
fn pages() {
    let mut page = vec![3, 0];
    page.extend(2u32.to_le_bytes());
    page.extend([3 << 1, 1]);
    page.extend([1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(fuzz::sample_page(&page));
    let mut rng = StdRng::seed_from_u64(4);
    for cut in 0..page.len() {
        assert!(!fuzz::sample_page(&page[..cut]));
    }
    for _ in 0..20_000 {
        let mut bad = page.clone();
        let at = rng.random_range(0..bad.len());
        bad[at] = rng.random();
        fuzz::sample_page(&bad);
    }
}
