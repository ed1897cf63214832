#![no_main]
//! The checkpoint of a Raft group.

use libfuzzer_sys::fuzz_target;
use sextant_replication::fuzz_decode_checkpoint;

fuzz_target!(|data: &[u8]| fuzz_decode_checkpoint(data));
