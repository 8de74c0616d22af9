//! The shared configuration of AWS tools: profiles of the files `config` and `credentials`.
//!
//! A file which a tool rotates is read again: session credentials do not expire with the process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use runtime::{Clock, Instant, TaskGroup};

use crate::Environment;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Ways to credentials which a profile may name and which are not followed.
const UNSUPPORTED: &[&str] =
    &["source_profile", "credential_source", "credential_process", "sso_session", "sso_start_url"];

/// The settings of one profile.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    settings: BTreeMap<String, String>,
}

impl Profile {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The credentials which the profile holds itself, if any.
    ///
    /// # Errors
    /// If it names a way to credentials which is not supported.
    pub(crate) fn credential(&self) -> Result<Option<AwsCredential>, String> {
        let Some(key_id) = self.get("aws_access_key_id") else {
            return match UNSUPPORTED.iter().find(|name| self.get(name).is_some()) {
                Some(name) => Err(format!("it uses {name}, which is not supported")),
                None => Ok(None),
            };
        };
        let Some(secret_key) = self.get("aws_secret_access_key") else {
            return Err("it has aws_access_key_id, but no aws_secret_access_key".to_owned());
        };
        let token = self.get("aws_session_token").map(str::to_owned);
        Ok(Some(AwsCredential { key_id: key_id.to_owned(), secret_key: secret_key.to_owned(), token }))
    }
}

/// Where profiles are.
#[derive(Clone, Debug)]
pub(crate) struct ProfileFiles {
    config: Option<PathBuf>,
    credentials: Option<PathBuf>,
}

impl ProfileFiles {
    pub(crate) fn of(environment: &Environment) -> ProfileFiles {
        let file = |variable: &str, name: &str| {
            let home = || Some(PathBuf::from(environment.get("HOME")?).join(".aws").join(name));
            environment.get(variable).map(PathBuf::from).or_else(home)
        };
        ProfileFiles {
            config: file("AWS_CONFIG_FILE", "config"),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        }
    }

    /// The profile `name` of both files, of which `credentials` goes first. `None` if neither has it. Blocks.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Profile>, String> {
        let mut found = None::<Profile>;
        for (path, is_config) in [(&self.config, true), (&self.credentials, false)] {
            let Some(path) = path else { continue };
            let text = match std::fs::metadata(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(format!("{}: {error}", path.display())),
                Ok(file) if file.len() > FILE_BYTES_MAX => {
                    return Err(format!(
                        "{} has {} bytes (expected at most {FILE_BYTES_MAX})",
                        path.display(),
                        file.len()
                    ));
                }
                Ok(_) => {
                    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?
                }
            };
            if let Some(profile) = section(&text, name, is_config) {
                found.get_or_insert_default().settings.extend(profile.settings);
            }
        }
        Ok(found)
    }
}

/// The section of the profile `name`. In the file `config` all but the default profile have a prefix.
fn section(text: &str, name: &str, is_config: bool) -> Option<Profile> {
    let mut found = None::<Profile>;
    let mut inside = false;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default().trim();
            let of = match header.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])) {
                Some(rest) if is_config => Some(rest.trim().trim_matches(['"', '\''])),
                _ if !is_config || header == "default" => Some(header),
                _ => None,
            };
            inside = of == Some(name);
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && !is_nested
            && let Some((key, value)) = line.split_once('=')
        {
            let value = value.split(" #").next().unwrap_or_default().trim().to_owned();
            found.get_or_insert_default().settings.insert(key.trim().to_ascii_lowercase(), value);
        }
    }
    found
}

/// The credentials of a profile, read again from time to time.
pub(crate) struct ProfileCredentials {
    files: ProfileFiles,
    name: String,
    reread: Duration,
    clock: Clock,
    tasks: TaskGroup,
    last: Mutex<(Arc<AwsCredential>, Instant)>,
}

impl ProfileCredentials {
    /// Begins with `first`, which was just read. Credentials of the age `reread` are read again.
    pub(crate) fn new(
        files: ProfileFiles,
        name: String,
        first: AwsCredential,
        reread: Duration,
        (clock, tasks): (Clock, TaskGroup),
    ) -> ProfileCredentials {
        let last = Mutex::new((Arc::new(first), clock.now()));
        ProfileCredentials { files, name, reread, clock, tasks, last }
    }

    fn last(&self) -> (Arc<AwsCredential>, Instant) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ProfileCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileCredentials").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let (credential, read) = self.last();
        let now = self.clock.now();
        if now.duration_since(read) < self.reread {
            return Ok(credential);
        }
        let (files, name) = (self.files.clone(), self.name.clone());
        let reread = self.tasks.spawn_blocking("read AWS profile", move || files.read(&name)).await;
        // A file which is just being written does not take away the credentials which there were.
        let fresh = match reread.and_then(|profile| profile.unwrap_or_default().credential()) {
            Ok(Some(found)) => Arc::new(found),
            Ok(None) => credential,
            Err(problem) => {
                tracing::warn!(
                    profile = self.name,
                    problem,
                    "cannot read the credentials of a profile again"
                );
                credential
            }
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (fresh.clone(), now);
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests;
