//! Handshakes, roles, credentials and rights, over real sockets and files.

mod credentials;
mod files;
mod grpc;
mod http_api;
mod tls;
