//! Authorities, certificates and folders for tests.

use std::{path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use sextant_security::{ClientTls, ClientTlsFiles, Part, SecurityMetrics, ServerTls, TlsFiles};

/// A temporary folder.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("writable");
        path
    }

    /// Certificate and key under a name.
    pub fn put(&self, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
        (self.write(&format!("{name}.crt"), &pair.certificate), self.write(&format!("{name}.key"), &pair.key))
    }
}

/// A certificate and its key, PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this host with these names of type URI.
    pub fn certify(&self, uris: &[&str]) -> Pair {
        self.certify_with(uris, |_| {})
    }

    pub fn expired(&self, uris: &[&str]) -> Pair {
        self.certify_with(uris, |params| {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        })
    }

    pub fn certify_with(&self, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "sextant://role/operator");
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("ASCII")));
        }
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

pub fn metrics() -> Arc<SecurityMetrics> {
    Arc::new(SecurityMetrics::default())
}

/// A server that asks clients for a certificate of an authority, where one is given.
pub fn server(folder: &Folder, own: &Pair, clients: Option<&Authority>, is_required: bool) -> ServerTls {
    let (cert, key) = folder.put("server", own);
    let client_ca = clients.map(|ca| folder.write("client-ca.crt", &ca.pem()));
    let files = TlsFiles { cert, key, client_ca, require_client_cert: is_required };
    ServerTls::open(Part::ClusterServerTls, files, metrics()).expect("good files")
}

/// A client that trusts an authority and shows a certificate, where one is given.
pub fn client(trusted: &Authority, own: Option<&Pair>) -> ClientTls {
    let folder = Folder::new();
    let ca = folder.write("ca.crt", &trusted.pem());
    let identity = own.map(|pair| folder.put("client", pair));
    ClientTls::open(ClientTlsFiles { ca, identity, server_name: None }, metrics()).expect("good files")
}
