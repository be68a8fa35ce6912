//! Who is trusted, and who this process says it is: the same for every kind of server.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::{Error, ErrorKind, Result};

/// A file that the parameter `field` of a URL names.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) field: &'static str,
    pub(crate) path: &'a Path,
}

/// TLS 1.2 or newer. The server's certificate must be signed by an authority in `roots`, or by one of Mozilla's where no
/// file is named; `identity` is this side's certificate (its chain) and the key to it.
///
/// Blocks while it reads the files.
pub(crate) fn client(roots: Option<Named<'_>>, identity: Option<(Named<'_>, Named<'_>)>) -> Result<ClientConfig> {
    let failed = |e: rustls::Error| Error::new(ErrorKind::TlsFailed, e.to_string()).source(e);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(authorities(roots)?);
    let Some((chain, key)) = identity else { return Ok(config.with_no_client_auth()) };
    let own = chain.certificates("give the path of a readable PEM file with the certificate")?;
    let private = PrivateKeyDer::from_pem_file(key.path)
        .map_err(|e| key.unusable(&e, "give the path of a readable PEM file with the private key, not encrypted"))?;
    config
        .with_client_auth_cert(own, private)
        .map_err(|e| chain.unusable(&e, "give a certificate and the private key that belongs to it"))
}

fn authorities(roots: Option<Named<'_>>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let Some(file) = roots else {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(store);
    };
    let remedy = "give the PEM file of the authority that signed the server's certificate";
    // A bundle may hold authorities of a kind that TLS has no use for.
    let (usable, _) = store.add_parsable_certificates(file.certificates(remedy)?);
    if usable == 0 {
        return Err(file.unusable(&"it holds no certificate of an authority", remedy));
    }
    Ok(store)
}

impl Named<'_> {
    fn certificates(&self, remedy: &'static str) -> Result<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(self.path).and_then(Iterator::collect);
        let certificates: Vec<_> = read.map_err(|e| self.unusable(&e, remedy))?;
        if certificates.is_empty() {
            return Err(self.unusable(&"it holds no certificate in PEM form", remedy));
        }
        Ok(certificates)
    }

    fn unusable(&self, why: &dyn std::fmt::Display, remedy: &'static str) -> Error {
        Error::new(ErrorKind::TlsFailed, format!("the file cannot be used: {why}"))
            .field(self.field, self.path.display())
            .remedy(remedy)
    }
}
