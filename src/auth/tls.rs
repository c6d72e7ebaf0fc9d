//! The coordinator's side of TLS: files, and what is made of them, again when they were replaced.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::Error;

/// Where the coordinator's certificate is, and whose clients it trusts.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// Its certificate, with those between it and the authority: PEM.
    pub certificate: PathBuf,
    /// Its key: PEM.
    pub key: PathBuf,
    /// The authorities whose certificates clients may show: PEM.
    pub client_ca: Option<PathBuf>,
}

/// TLS that can be loaded anew while it serves. Connections keep what they were opened with.
#[derive(Debug)]
pub struct ServerTls {
    files: ServerFiles,
    loaded: RwLock<Loaded>,
}

/// What was made of the files.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// The server's own certificate, without those above it.
    certificate: CertificateDer<'static>,
}

impl ServerTls {
    /// Loads the files.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`], [`Error::Certificate`].
    pub fn load(files: ServerFiles) -> Result<Self, Error> {
        let loaded = RwLock::new(configure(&files)?);
        Ok(Self { files, loaded })
    }

    /// Loads the files again. After an error, what was loaded before stays.
    ///
    /// # Errors
    /// As [`ServerTls::load`].
    pub fn reload(&self) -> Result<(), Error> {
        let loaded = configure(&self.files)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Opens connections with what is loaded now.
    pub fn acceptor(&self) -> TlsAcceptor {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&loaded.config))
    }

    /// Whether the certificate that is loaded now is for a host of this name or address.
    pub fn is_for(&self, host: &str) -> bool {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let Ok(certificate) = webpki::EndEntityCert::try_from(&loaded.certificate) else {
            return false;
        };
        ServerName::try_from(host)
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

fn configure(files: &ServerFiles) -> Result<Loaded, Error> {
    let unusable = |problem: String| Error::Certificate {
        path: files.certificate.clone(),
        problem,
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| Error::Content {
                    path: path.clone(),
                    problem: format!("holds a certificate that is no authority's: {error}"),
                })?;
            }
            // Who shows none may still show a token; who shows one must show a good one.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem_error(&files.key, "key"))?;
    let chain = certificates(&files.certificate)?;
    let certificate = chain[0].clone(); // `certificates` gives one at least
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(format!("{error} (key {})", files.key.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    Ok(Loaded {
        config,
        certificate,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(pem_error(path, "certificate"))?;
    if found.is_empty() {
        return Err(Error::Content {
            path: path.to_owned(),
            problem: "holds no certificate: give a PEM file".to_owned(),
        });
    }
    Ok(found)
}

type PemError = tokio_rustls::rustls::pki_types::pem::Error;

fn pem_error(path: &Path, what: &'static str) -> impl FnOnce(PemError) -> Error {
    move |error| match error {
        PemError::Io(source) => Error::file("read", path)(source),
        other => Error::Content {
            path: path.to_owned(),
            problem: format!("holds no {what}: {other}"),
        },
    }
}
