#![no_main]
//! A message of the shards' protocol, and the message encoded again.

use libfuzzer_sys::fuzz_target;
use sextant_proto::fuzz::fuzz_rpc_message;

fuzz_target!(|data: &[u8]| fuzz_rpc_message(data));
