//! A fleet which nobody enters unasked: mutual TLS between all processes, and access tokens at brokers and summers.
//!
//! Each process has a certificate of its own, and so has the user as whom commands, chunkers and the harness come. All files
//! lie in one directory, and are replaced there: processes read them anew. Keys are given by the environment, and hold from a
//! process's next start on.

use std::net::IpAddr;
use std::path::PathBuf;

use auth::{Authorizer, Keys};
use runtime::tls::{ClientTls, ClientTlsFiles, IdentityFiles};
use runtime::{BoxError, Clock, Entropy};

use super::member::Kind;
use crate::authority::{self, Authority};
use crate::caller::Caller;
use crate::ring::{Ring, Step};

/// The authorities that everybody trusts.
const CA: &str = "ca.pem";
/// Whose certificate commands, chunkers and the harness have.
const USER: &str = "user";
/// Who has a certificate of the authority that was replaced last.
const FORMER: &str = "former";
/// Letters of a key: those of base64, and as many as need no padding.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const KEY_LETTERS: usize = 44;

/// See the module.
pub struct Security {
    dir: PathBuf,
    authorities: Ring<Authority>,
    /// Names of processes, and the addresses in their certificates.
    certified: Vec<(String, String)>,
    /// Keys of brokers.
    brokers: Ring<String>,
    /// Keys of summers.
    consumers: Ring<String>,
    caller: Caller,
}

impl Security {
    /// Certificates and keys in `dir`, which is created.
    pub fn new(dir: PathBuf) -> Result<Security, BoxError> {
        std::fs::create_dir_all(&dir)?;
        let authorities = Ring::new(Authority::new("authority")?);
        let certified = vec![(USER.to_owned(), USER.to_owned())];
        let (brokers, consumers) = (Ring::new(fresh_key()), Ring::new(fresh_key()));
        let mut it = Security { dir, authorities, certified, brokers, consumers, caller: Caller::default() };
        it.write_authorities()?;
        it.issue_all()?;
        it.caller = Caller::new(it.client_tls(USER)?);
        it.sign()?;
        Ok(it)
    }

    /// As whom the harness calls the fleet.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Gives a process its certificate.
    pub fn certify(&mut self, name: &str, address: IpAddr) -> Result<(), BoxError> {
        let address = address.to_string();
        self.authorities.used().issue(&self.dir, name, &[&address])?;
        self.certified.push((name.to_owned(), address));
        Ok(())
    }

    /// Arguments of a process.
    pub fn args(&self, kind: Kind, name: &str) -> Vec<String> {
        let groups: &[&str] = match kind {
            Kind::Etcd => return self.etcd_args(name),
            Kind::Broker => &["broker.server-", "broker.peer-", "etcd."],
            Kind::Summer => &["consumer.server-", "consumer.peer-", "broker.", "etcd."],
        };
        groups.iter().flat_map(|group| authority::options(&self.dir, group, name, CA)).collect()
    }

    fn etcd_args(&self, name: &str) -> Vec<String> {
        let path = |file: &str| self.dir.join(file).display().to_string();
        vec![
            "--client-cert-auth".to_owned(),
            format!("--cert-file={}", path(&format!("{name}.pem"))),
            format!("--key-file={}", path(&format!("{name}.key"))),
            format!("--trusted-ca-file={}", path(CA)),
        ]
    }

    /// The keys of a process which is started now, as variables of its environment.
    pub fn keys(&self, kind: Kind) -> Vec<(String, String)> {
        match kind {
            Kind::Etcd => Vec::new(),
            Kind::Broker => vec![("BROKER_AUTH_KEYS".to_owned(), joined(&self.brokers))],
            Kind::Summer => vec![
                ("BROKER_AUTH_KEYS".to_owned(), joined(&self.brokers)),
                ("CONSUMER_AUTH_KEYS".to_owned(), joined(&self.consumers)),
            ],
        }
    }

    /// The environment of commands and chunkers: they have one key of each kind, the one which has been accepted for longest.
    pub fn user_envs(&self) -> Vec<(String, String)> {
        let path = |file: &str| self.dir.join(file).display().to_string();
        let files = [("CERT_FILE", "user.pem"), ("CERT_KEY_FILE", "user.key"), ("TRUSTED_CA_FILE", CA)];
        let mut envs = Vec::new();
        for (group, keys) in [("BROKER", &self.brokers), ("CONSUMER", &self.consumers)] {
            envs.push((format!("{group}_AUTH_KEYS"), keys.oldest().clone()));
            envs.extend(files.map(|(name, file)| (format!("{group}_{name}"), path(file))));
        }
        envs
    }

    /// Takes a step towards another authority. The last one gives somebody whose certificate is of the one before.
    pub fn replace_authority(&mut self, step: Step) -> Result<Option<Caller>, BoxError> {
        let mut former = None;
        match step {
            Step::Accept => self.authorities.accept(Authority::new("authority")?),
            Step::Use => {
                self.authorities.use_newest();
                self.issue_all()?;
            }
            Step::Retire => {
                self.authorities.oldest().issue(&self.dir, FORMER, &[FORMER])?;
                former = Some(self.caller.snapshot(Some(self.client_tls(FORMER)?)));
                self.authorities.retire();
            }
        }
        self.write_authorities()?;
        Ok(former)
    }

    /// Takes a step towards other keys. The last one gives somebody who has the keys before.
    pub fn replace_keys(&mut self, step: Step) -> Result<Option<Caller>, BoxError> {
        let former = (step == Step::Retire).then(|| self.caller.snapshot(None));
        for ring in [&mut self.brokers, &mut self.consumers] {
            match step {
                Step::Accept => ring.accept(fresh_key()),
                Step::Use => ring.use_newest(),
                Step::Retire => ring.retire(),
            }
        }
        self.sign()?;
        Ok(former)
    }

    /// Has the harness sign as commands and chunkers do.
    fn sign(&self) -> Result<(), BoxError> {
        let [brokers, consumers] = [&self.brokers, &self.consumers].map(|ring| Keys::parse(ring.oldest()));
        self.caller.sign_with(Authorizer::signing(brokers?), Authorizer::signing(consumers?));
        Ok(())
    }

    fn write_authorities(&self) -> Result<(), BoxError> {
        let all: String = self.authorities.accepted().map(Authority::pem).collect();
        authority::replace(&self.dir.join(CA), &all)
    }

    fn issue_all(&self) -> Result<(), BoxError> {
        let authority = self.authorities.used();
        self.certified.iter().try_for_each(|(name, address)| authority.issue(&self.dir, name, &[address]))
    }

    fn client_tls(&self, who: &str) -> Result<ClientTls, BoxError> {
        let [cert, key] = ["pem", "key"].map(|suffix| self.dir.join(format!("{who}.{suffix}")));
        let files =
            ClientTlsFiles { identity: Some(IdentityFiles { cert, key }), ca: Some(self.dir.join(CA)) };
        Ok(ClientTls::load(files, &Clock::system())?)
    }
}

/// Keys as a server takes them: the one that signs first.
fn joined(ring: &Ring<String>) -> String {
    ring.accepted().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn fresh_key() -> String {
    let entropy = Entropy::system();
    (0..KEY_LETTERS).map(|_| char::from(LETTERS[entropy.below(LETTERS.len() as u64) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use auth::{Capability, Grant, Verifier};

    use super::*;

    /// Whether brokers with these keys let the caller in.
    fn lets_in(keys: &str, caller: &Caller) -> bool {
        let verifier = Verifier::new(Some(Keys::parse(keys).unwrap()));
        let request = caller.request((), Grant::everywhere(Capability::LIST));
        verifier.verify(request.metadata().as_ref(), Capability::LIST, Clock::system().unix_now()).is_ok()
    }

    #[test]
    fn the_harness_is_let_in_by_servers_of_this_step_and_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut security = Security::new(dir.path().join("tls")).unwrap();
        let mut before = joined(&security.brokers);
        for _ in 0..2 {
            for step in Step::ALL {
                let former = security.replace_keys(step).unwrap();
                let now = joined(&security.brokers);
                for keys in [&before, &now] {
                    assert!(lets_in(keys, security.caller()), "{step}");
                }
                assert_eq!(former.is_some(), step == Step::Retire);
                if let Some(former) = former {
                    assert!(lets_in(&before, &former) && !lets_in(&now, &former));
                }
                before = now;
            }
        }
    }

    #[test]
    fn files_are_those_of_the_authority_that_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut security = Security::new(dir.path().join("tls")).unwrap();
        security.certify("broker-0", IpAddr::from([127, 0, 0, 1])).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join("tls").join(name)).unwrap();
        let (ca, cert) = (read(CA), read("broker-0.pem"));
        security.replace_authority(Step::Accept).unwrap();
        let both = read(CA);
        assert!(both.starts_with(&ca) && both.len() > ca.len());
        assert_eq!(read("broker-0.pem"), cert);
        security.replace_authority(Step::Use).unwrap();
        assert_ne!(read("broker-0.pem"), cert);
        assert_eq!(read(CA).len(), both.len());
        assert!(security.replace_authority(Step::Retire).unwrap().is_some());
        assert_eq!(read(CA), both[ca.len()..]);
    }

    #[test]
    fn keys_are_what_servers_take() {
        let key = fresh_key();
        let keys = Keys::parse(&key).unwrap();
        assert!(!keys.allow_missing());
        assert_ne!(key, fresh_key());
        let now = Duration::from_secs(1_700_000_000);
        let header = Authorizer::signing(keys).header(Grant::everywhere(Capability::LIST), now);
        assert!(header.is_some());
    }
}
