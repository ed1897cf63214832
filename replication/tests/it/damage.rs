//! Torn ends are cut off, damage is named.

use std::{fs, path::Path};

use sextant_replication::{LogStore, StoreError};

use crate::support::*;

/// A log with ten acknowledged payloads as a crash would leave it: without the mark of an orderly close.
async fn crashed_log(dir: &Path) -> tempfile::TempDir {
    let (store, group) = open(dir).await;
    for n in 0..10 {
        group.propose(numbered(n, 40)).await.unwrap();
    }
    let image = tempfile::tempdir().unwrap();
    copy_dir(dir, image.path());
    close(store, group).await;
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_at_any_byte_loses_only_what_was_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let image = crashed_log(dir.path()).await;
    let segment = segments(image.path()).pop().unwrap();
    let good = fs::read(&segment).unwrap();
    let (last, length, _) = *records(&segment).last().unwrap();
    let trial = tempfile::tempdir().unwrap();
    for cut in 0..length {
        for variant in ["zeros", "old bytes", "short file"] {
            let mut bytes = good.clone();
            match variant {
                "zeros" => bytes[last + cut..].fill(0),
                "old bytes" => bytes[last + cut..].iter_mut().for_each(|b| *b = 0xab),
                _ => bytes.truncate(last + cut),
            }
            // A cut within the padding changes nothing when what is there is zeros as well.
            let padding_only = variant != "old bytes" && bytes[..] == good[..bytes.len()] && {
                let payload = good[last + 4..last + 8].try_into().map(u32::from_le_bytes).unwrap() as usize;
                cut >= 64 + payload
            };
            let survivors = if padding_only { 10 } else { 9 };
            let path = trial.path().join(format!("{variant}-{cut}"));
            copy_dir(image.path(), &path);
            fs::write(path.join(segment.file_name().unwrap()), bytes).unwrap();
            let (store, group) = open(&path).await;
            let expected: Vec<_> = (0..survivors).collect();
            assert_eq!(group.state_machine().numbers(), expected, "{variant} from byte {cut}");
            // Only some of the trials go on: what follows must not be confused by the remains.
            if cut % 16 == 0 {
                group.propose(numbered(77, 40)).await.unwrap();
                let crashed = trial.path().join("again");
                copy_dir(&path, &crashed);
                close(store, group).await;
                let (store, group) = open(&crashed).await;
                assert_eq!(group.state_machine().numbers(), [&expected[..], &[77]].concat());
                close(store, group).await;
                fs::remove_dir_all(crashed).unwrap();
            }
            fs::remove_dir_all(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intact_rest_of_a_torn_write_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    for n in 0..8 {
        group.propose(numbered(n, 40)).await.unwrap();
    }
    let segment = segments(dir.path()).pop().unwrap();
    // A write is a record of 64 bytes, then the entry. The ninth is as long as it takes for the tenth's entry to begin with a page:
    // what is in the page of the small record is overwritten with zeros anyway.
    let (last, length, _) = *records(&segment).last().unwrap();
    let heads = 3 * 64 + 4;
    let payload = (last + length + heads).next_multiple_of(4096) - (last + length + heads);
    group.propose(numbered(8, payload - payload % 8)).await.unwrap();
    group.propose(numbered(9, 40)).await.unwrap();
    let image = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), image.path());
    close(store, group).await;

    let segment = image.path().join(segment.file_name().unwrap());
    let (entry, _, synced) = *records(&segment).last().unwrap();
    assert_eq!((entry, entry % 4096), (synced + 64, 0));
    // Of the last write only the entry reached the disk.
    let mut bytes = fs::read(&segment).unwrap();
    bytes[synced..entry].fill(0);
    fs::write(&segment, bytes).unwrap();
    for _ in 0..3 {
        let (store, group) = open(image.path()).await;
        assert_eq!(group.state_machine().numbers(), (0..9).collect::<Vec<_>>());
        // Closing writes a record of exactly the size of the one that was lost.
        close(store, group).await;
    }
}

fn assert_damage(dir: &Path, segment: &Path, offset: usize, what: &str) {
    match LogStore::open(options(dir)) {
        Err(StoreError::Corrupt { file, offset: at, .. }) => {
            assert_eq!((file.as_path(), at), (segment, offset as u64), "{what}");
        }
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what}: not noticed"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_flipped_byte_of_a_synced_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let image = crashed_log(dir.path()).await;
    let segment = segments(image.path()).pop().unwrap();
    let good = fs::read(&segment).unwrap();
    let found = records(&segment);
    let (_, _, synced) = *found.last().unwrap();
    let durable = found.iter().filter(|(offset, ..)| *offset < synced);
    assert!(durable.clone().count() > 15, "every payload was synced by itself");
    for &(offset, length, _) in durable {
        for at in offset..offset + length {
            let mut bytes = good.clone();
            bytes[at] ^= 0x20;
            fs::write(&segment, bytes).unwrap();
            assert_damage(
                image.path(),
                &segment,
                offset,
                &format!("byte {} of the record at {offset}", at - offset),
            );
        }
    }
    for at in 0..36 {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        fs::write(&segment, bytes).unwrap();
        assert_damage(image.path(), &segment, 0, &format!("byte {at} of the segment's head"));
    }
    // Nothing was "repaired" by looking at it.
    fs::write(&segment, &good).unwrap();
    let (store, group) = open(image.path()).await;
    assert_eq!(group.state_machine().numbers(), (0..10).collect::<Vec<_>>());
    close(store, group).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_orderly_close_the_last_record_is_vouched_for_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    for n in 0..3 {
        group.propose(numbered(n, 40)).await.unwrap();
    }
    let segment = segments(dir.path()).pop().unwrap();
    let (last, length, _) = *records(&segment).last().unwrap();
    close(store, group).await;
    let good = fs::read(&segment).unwrap();
    for at in last..last + length {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&segment, bytes).unwrap();
        assert_damage(dir.path(), &segment, last, &format!("byte {}", at - last));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_an_older_segment_and_missing_segments_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (store, group) = open(dir.path()).await;
    for n in 0..100 {
        group.propose(numbered(n, 1000)).await.unwrap();
    }
    close(store, group).await;
    let all = segments(dir.path());
    assert!(all.len() >= 4, "{} segments", all.len());

    let first = &all[0];
    let good = fs::read(first).unwrap();
    // The end record itself, and the last entry before it: no later record of the same file can vouch for it.
    for &(offset, length, _) in records(first).iter().rev().take(2) {
        for at in (offset..offset + length).step_by(7) {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(first, bytes).unwrap();
            assert_damage(dir.path(), first, offset, &format!("byte {at}"));
        }
    }
    fs::write(first, &good[..good.len() / 2]).unwrap();
    assert!(matches!(LogStore::open(options(dir.path())), Err(StoreError::Corrupt { .. })));
    fs::write(first, &good).unwrap();

    let second = fs::read(&all[1]).unwrap();
    fs::remove_file(&all[1]).unwrap();
    assert_damage(dir.path(), &all[1], 0, "a missing segment");
    // A file from elsewhere under the right name.
    fs::copy(&all[0], &all[1]).unwrap();
    assert_damage(dir.path(), &all[1], 0, "a segment that belongs elsewhere");
    fs::write(&all[1], second).unwrap();

    // The oldest segment: only the entries tell that something is missing.
    fs::remove_file(first).unwrap();
    assert_damage(dir.path(), &all[1], 0, "the oldest segment is missing");
    fs::write(first, &good).unwrap();

    let mut newer = good.clone();
    newer[8] = 2;
    let crc = crc32c::crc32c(&newer[..32]);
    newer[32..36].copy_from_slice(&crc.to_le_bytes());
    fs::write(first, newer).unwrap();
    let error = LogStore::open(options(dir.path())).err().unwrap();
    assert!(matches!(error, StoreError::Version { found: 2, .. }), "{error}");
    fs::write(first, &good).unwrap();

    let (store, group) = open(dir.path()).await;
    assert_eq!(group.state_machine().numbers(), (0..100).collect::<Vec<_>>());
    close(store, group).await;
}
