//! TLS of the API: 1.3 alone, HTTP/1.1 alone. The certificate is read again when its files change or SIGHUP comes, and
//! counts for new connections; open ones keep what they began with. A pair of files that does not fit replaces nothing.

use std::{
    fmt, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use dotmac_runtime::{causes::in_full, clock::Clock};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

#[cfg(test)]
mod tests;

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(10);

/// Where the certificate and its key lie.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM: the server's certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM: the private key; nobody but its owner may read the file.
    pub key: PathBuf,
}

/// Why TLS cannot be spoken.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error("{} has mode {mode:03o}: run chmod 600 on it", path.display())]
    Mode {
        /// Which one.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{} holds no {expected} in PEM", path.display())]
    Form {
        /// Which one.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The key is of a sort that cannot sign.
    #[error("the key in {} cannot be used", path.display())]
    Key {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Certificate and key do not belong together.
    #[error("the key in {} is not the one of the certificate in {}", key.display(), certificate.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// How the API speaks TLS.
pub struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    seen: [Seen; 2],
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tls({:?})", self.files)
    }
}

/// What tells one version of a file from another.
type Seen = Option<(u64, u64, i64, i64)>;

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read, do not fit, or others may read the key.
    ///
    /// # Panics
    /// Never: the settings do not depend on the arguments.
    pub fn load(files: TlsFiles, clock: &Clock) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = files.seen();
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read(&provider)?))));
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.max_early_data_size = 0;
        Ok(Self {
            files,
            current,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            seen,
        })
    }

    /// What makes a stream one of TLS.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Reads the files again whenever they change or SIGHUP comes; never ends.
    pub(super) async fn follow(mut self) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = heard(hangup.as_mut()) => self.seen = [None; 2],
            }
            self.read_again();
        }
    }

    fn read_again(&mut self) {
        let seen = self.files.seen();
        if seen == self.seen {
            return;
        }
        let provider = aws_lc_rs::default_provider();
        match self.files.read(&provider) {
            Ok(key) => {
                *self
                    .current
                    .0
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                self.seen = seen;
                let file = self.files.certificate.display();
                tracing::info!(path = %file, "certificate of the api read again");
            }
            // A pair may be half written: it is tried again until it fits.
            Err(error) => {
                let error = in_full(&error);
                tracing::warn!(
                    error,
                    "certificate of the api not read again: the old one stays"
                );
            }
        }
    }
}

async fn heard(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

impl TlsFiles {
    fn seen(&self) -> [Seen; 2] {
        [&self.certificate, &self.key].map(|path| {
            let found = path.metadata().ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        })
    }

    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&bytes_of(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|chain| {
                if chain.is_empty() {
                    Err(pem::Error::NoItemsFound)
                } else {
                    Ok(chain)
                }
            })
            .map_err(|source| form(&self.certificate, "certificate", source))?;
        expect_private(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes_of(&self.key)?)
            .map_err(|source| form(&self.key, "private key", source))?;
        let path = self.key.clone();
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|source| TlsError::Key { path, source })?;
        let pair = CertifiedKey::new(chain, key);
        pair.keys_match().map_err(|_| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        })?;
        Ok(pair)
    }
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| read(path, source))
}

fn expect_private(path: &Path) -> Result<(), TlsError> {
    let found = path.metadata().map_err(|source| read(path, source))?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let path = path.to_owned();
    Err(TlsError::Mode { path, mode })
}

fn read(path: &Path, source: io::Error) -> TlsError {
    let path = path.to_owned();
    TlsError::Read { path, source }
}

fn form(path: &Path, expected: &'static str, source: pem::Error) -> TlsError {
    TlsError::Form {
        path: path.to_owned(),
        expected,
        source,
    }
}

/// The certificate that new connections are shown.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}
