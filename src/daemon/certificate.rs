//! The certificate that others see, as its files hold it now: whoever renews it replaces them, and the next connection
//! gets the new one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::listen::ListenError;

/// How to speak TLS with this certificate (with its chain) and its key, both PEM files. Error: they can't be used.
pub fn config(cert: &Path, key: &Path) -> Result<ServerConfig, ListenError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let files = Files { cert: cert.to_owned(), key: key.to_owned() };
    let looks = files.looks();
    let current = files.read(&provider)?;
    let certificate = Certificate { files, provider: provider.clone(), seen: Mutex::new((looks, current)) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate.files.failed_cert(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// By what it is seen that a file is another: its device and inode, its length, when it was written (s, ns).
type Look = Option<(u64, u64, u64, i64, i64)>;

impl Files {
    fn looks(&self) -> [Look; 2] {
        let look = |path: &Path| -> io::Result<_> {
            let meta = path.metadata()?;
            Ok((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        };
        [look(&self.cert).ok(), look(&self.key).ok()]
    }

    fn read(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, ListenError> {
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| self.failed_cert(error.to_string()))?;
        if chain.is_empty() {
            return Err(self.failed_cert("it holds none".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| ListenError::Tls {
            what: "the key",
            path: self.key.clone(),
            reason: error.to_string(),
        })?;
        let certified = CertifiedKey::from_der(chain, key, provider);
        certified.map(Arc::new).map_err(|error| self.failed_cert(error.to_string()))
    }

    fn failed_cert(&self, reason: String) -> ListenError {
        ListenError::Tls { what: "the certificate", path: self.cert.clone(), reason }
    }
}

#[derive(Debug)]
struct Certificate {
    files: Files,
    provider: Arc<CryptoProvider>,
    /// How the files looked when they were read last, and the last that could be used.
    seen: Mutex<([Look; 2], Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: what is written meanwhile is another look.
        let looks = self.files.looks();
        if looks != seen.0 {
            match self.files.read(&self.provider) {
                Ok(renewed) => {
                    tracing::info!(path = %self.files.cert.display(), "the certificate was renewed");
                    seen.1 = renewed;
                }
                // Half of a pair may be there before the other half.
                Err(error) => tracing::warn!(%error, "the certificate stays the old one"),
            }
            seen.0 = looks;
        }
        Some(seen.1.clone())
    }
}
