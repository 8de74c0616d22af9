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

/// The three options of TLS which begin with `group`, such as `etcd.` or `broker.server-`: the certificate of `who`, its key,
/// and the authorities of the other side in the file `ca`, all in `dir`.
pub fn options(dir: &Path, group: &str, who: &str, ca: &str) -> Vec<String> {
    let path = |file: &str| dir.join(file).display().to_string();
    let ca_option = if group.ends_with('-') { "ca-file" } else { "trusted-ca-file" };
    vec![
        format!("--{group}cert-file={}", path(&format!("{who}.pem"))),
        format!("--{group}cert-key-file={}", path(&format!("{who}.key"))),
        format!("--{group}{ca_option}={}", path(ca)),
    ]
}
