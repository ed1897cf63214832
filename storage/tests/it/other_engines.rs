//! DuckDB and pyarrow read a block with nothing but the text of `docs/block-format.md`.

use std::{path::Path, process::Command};

use sextant_storage::{BlockOptions, write_block};

use crate::support::{Series, hard_set};

#[test]
fn the_documented_sql_and_python_give_every_bit_back() {
    let hard = hard_set(31, 300, 120);
    check(&hard, 24);
    // No label column at all.
    check(&hard_set(32, 40, 7), 0);
}

fn check(series: &Series, label_columns_max: usize) {
    let dir = tempfile::tempdir().unwrap();
    let options = BlockOptions { label_columns_max, page_bytes: 8 << 10, ..BlockOptions::default() };
    for (name, bytes) in write_block(series, options).unwrap().unwrap().objects {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let set = series.select(&[], i64::MIN, i64::MAX);
    let mut expected = Vec::new();
    for i in (0..set.len()).filter(|&i| !set.floats(i).0.is_empty()) {
        let labels: serde_json::Map<_, _> =
            set.labels[i].iter().map(|(n, v)| (n.to_owned(), serde_json::Value::from(v))).collect();
        let (t, v) = set.floats(i);
        let start = |k: usize| set.starts(i).get(k).copied().unwrap_or(0);
        let rows: Vec<_> = t
            .iter()
            .zip(v)
            .enumerate()
            .map(|(k, (t, v))| (t, format!("{:016x}", v.to_bits()), start(k)))
            .collect();
        expected.push((labels, rows));
    }
    let path = dir.path().join("expected.json");
    std::fs::write(&path, serde_json::to_vec(&expected).unwrap()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3")
        .arg(root.join("tests/read_block.py"))
        .arg(root.join("../docs/block-format.md"))
        .arg(dir.path())
        .arg(&path)
        .output();
    let Ok(output) = output else { return eprintln!("skipped: python3 cannot be run") };
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(77) {
        return eprintln!("{text}");
    }
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(text.contains("DuckDB") && text.contains("pyarrow"));
}
