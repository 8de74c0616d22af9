//! Verification of the server's certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::PostgresError;

/// A connector which trusts the authorities of `ca_file`, or those of the machine. Reads files.
pub(crate) fn connector(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, PostgresError> {
    let failed = |problem: String| PostgresError::Authorities { path: ca_file.map(Path::to_owned), problem };
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
            for certificate in certificates {
                let added = certificate.map_err(|error| error.to_string());
                added
                    .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
                    .map_err(failed)?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (added, ignored) = roots.add_parsable_certificates(found.certs);
            tracing::debug!(added, ignored, errors = ?found.errors, "certificate authorities of the machine");
        }
    }
    if roots.is_empty() {
        return Err(failed("there are none".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
