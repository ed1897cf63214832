//! End-to-end tests: the roles together, and the binary as a user meets it.

mod api_cases;
mod api_read;
mod binary;
mod cancel;
mod clients;
mod cluster;
mod compliance;
mod conformance;
mod crash;
mod damage;
mod delete_series;
mod fair;
mod full_disk;
mod http_api;
mod ledger;
mod limits_file;
mod object_store_faults;
mod postgres;
mod proxy;
mod removed_blocks;
mod security;
mod stack;
mod stop;
mod tls;
