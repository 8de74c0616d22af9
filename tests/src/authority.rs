//! Certificate authorities, and the files of the processes which they certify.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use runtime::BoxError;

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// An authority of its own.
    pub fn new(name: &str) -> Result<Authority, BoxError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes a certificate of these names or addresses to `STEM.pem`, and its key to `STEM.key`.
    pub fn issue(&self, dir: &Path, stem: &str, names: &[&str]) -> Result<(), BoxError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        replace(&dir.join(format!("{stem}.pem")), &certificate.pem())?;
        replace(&dir.join(format!("{stem}.key")), &key.serialize_pem())
    }
}

/// Writes a file in the place of the one that is there, so that nobody reads half of it.
pub fn replace(path: &Path, content: &str) -> Result<(), BoxError> {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, content)?;
    Ok(std::fs::rename(fresh, path)?)
}
