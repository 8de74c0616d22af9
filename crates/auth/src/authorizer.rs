//! The client's side: what is sent with a request.

use std::fmt;
use std::time::Duration;

use proto::protocol::{Label, LabelSelector, LabelSet};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::capability::Capability;
use crate::claims::{Claims, WireClaims};
use crate::error::KeysError;
use crate::keys::Keys;

/// The metadata, and the header, which holds a token.
pub const AUTHORIZATION: &str = "authorization";

/// Lifetime of a token, unless a request needs it for less long.
const HOUR: Duration = Duration::from_secs(3600);
/// Lifetime of the token of a request which is answered at once.
const MINUTE: Duration = Duration::from_secs(60);
/// Bytes of the names and values of a selector beyond which it is left out of a token: servers refuse long headers.
const SELECTOR_BYTES_MAX: usize = 4096;

/// What a request needs: the least that its token must say.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    capability: Capability,
    selector: LabelSelector,
    lifetime: Duration,
}

impl Grant {
    /// A capability over all that `selector` selects, for an hour.
    pub fn new(capability: Capability, selector: LabelSelector) -> Grant {
        let sets = [selector.include_set(), selector.exclude_set()];
        let labels = sets.into_iter().flat_map(|set: &LabelSet| &set.labels);
        let bytes: usize = labels.map(|Label { name, value, .. }| name.len() + value.len()).sum();
        let is_short = bytes <= SELECTOR_BYTES_MAX;
        let selector = if is_short { selector } else { LabelSelector::everything() };
        Grant { capability, selector, lifetime: HOUR }
    }

    /// A capability over everything, for an hour.
    pub fn everywhere(capability: Capability) -> Grant {
        Grant::new(capability, LabelSelector::everything())
    }

    /// A capability over one journal, whose metadata segment does not count, for an hour.
    pub fn journal(capability: Capability, journal: &str) -> Grant {
        let name = journal.split_once(';').map_or(journal, |(name, _)| name);
        Grant::new(capability, LabelSelector::include([("name", name)]))
    }

    /// A capability over shards, for a minute.
    pub fn shards<'a>(capability: Capability, ids: impl IntoIterator<Item = &'a str>) -> Grant {
        let ids = ids.into_iter().map(|id| ("id", id));
        Grant::new(capability, LabelSelector::include(ids)).brief()
    }

    /// The same for a minute.
    #[must_use]
    pub fn brief(self) -> Grant {
        Grant { lifetime: MINUTE, ..self }
    }

    fn claims(self, now: Duration) -> Claims {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Claims {
            capability: self.capability,
            selector: self.selector,
            expires: seconds(now + self.lifetime),
            issued: Some(seconds(now)),
            ..Claims::default()
        }
    }
}

/// Adds tokens to requests. Cheap to clone.
#[derive(Clone, Default)]
pub struct Authorizer(Kind);

#[derive(Clone, Default)]
enum Kind {
    /// Sends none.
    #[default]
    None,
    /// Signs one for each request.
    Signs(Keys),
    /// Sends this header.
    Sends(MetadataValue<Ascii>),
}

impl Authorizer {
    /// Sends no tokens.
    pub fn none() -> Authorizer {
        Authorizer::default()
    }

    /// Signs what each request needs.
    pub fn signing(keys: Keys) -> Authorizer {
        Authorizer(Kind::Signs(keys))
    }

    /// Sends the same token with each request.
    ///
    /// # Errors
    /// If it has characters that a header cannot have.
    pub fn bearer(token: &str) -> Result<Authorizer, KeysError> {
        let header = format!("Bearer {}", token.trim());
        Ok(Authorizer(Kind::Sends(header.parse().map_err(|_| KeysError::Token)?)))
    }

    /// Signs with `keys`, or sends `token` if there are none, or sends nothing.
    ///
    /// # Errors
    /// If the keys or the token are malformed.
    pub fn from_options(keys: Option<&str>, token: Option<&str>) -> Result<Authorizer, KeysError> {
        match (keys, token) {
            (Some(keys), _) => Ok(Authorizer::signing(Keys::parse(keys)?)),
            (None, Some(token)) => Authorizer::bearer(token),
            (None, None) => Ok(Authorizer::none()),
        }
    }

    /// Whether tokens are signed here, so that a request which takes long may be made again with another one.
    pub fn signs(&self) -> bool {
        matches!(self.0, Kind::Signs(_))
    }

    /// Whether requests see everything that there is, as far as that can be told without the keys: with a token that selects,
    /// or that cannot be read, something may be missing from every answer.
    pub fn reaches_everything(&self) -> bool {
        let Kind::Sends(header) = &self.0 else { return true };
        let token = header.to_str().ok().and_then(|header| header.strip_prefix("Bearer "));
        token.and_then(claimed).is_some_and(|claims| claims.selector.is_everything())
    }

    /// The header of a request which needs `grant`, if one is sent. `now` is since the Unix epoch.
    pub fn header(&self, grant: Grant, now: Duration) -> Option<MetadataValue<Ascii>> {
        let mut header: MetadataValue<Ascii> = match &self.0 {
            Kind::None => return None,
            Kind::Signs(keys) => {
                let token = keys.sign(&grant.claims(now));
                format!("Bearer {token}").parse().expect("a token is base64 and dots")
            }
            Kind::Sends(header) => header.clone(),
        };
        header.set_sensitive(true);
        Some(header)
    }

    /// `request`, with the token that it needs. `now` is since the Unix epoch.
    pub fn authorize<T>(&self, mut request: Request<T>, grant: Grant, now: Duration) -> Request<T> {
        if let Some(header) = self.header(grant, now) {
            request.metadata_mut().insert(AUTHORIZATION, header);
        }
        request
    }
}

/// What a token says, whoever signed it.
fn claimed(token: &str) -> Option<Claims> {
    jsonwebtoken::dangerous::insecure_decode::<WireClaims>(token).ok()?.claims.into_claims().ok()
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::None => "Authorizer(none)",
            Kind::Signs(_) => "Authorizer(signs)",
            Kind::Sends(_) => "Authorizer(sends a token)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_which_selects_or_cannot_be_read_does_not_reach_everything() {
        let keys = Keys::parse("c2VjcmV0").unwrap();
        let sends = |selector| {
            let claims = Claims { capability: Capability::LIST, selector, ..Claims::default() };
            Authorizer::bearer(&keys.sign(&claims)).unwrap().reaches_everything()
        };
        assert!(sends(LabelSelector::everything()));
        assert!(!sends(LabelSelector::include([("name", "a/journal")])));
        let exclude = LabelSelector::include([("name", "a/journal")]).include;
        assert!(!sends(LabelSelector { include: None, exclude }));
        assert!(!Authorizer::bearer("of another form").unwrap().reaches_everything());
        assert!(Authorizer::none().reaches_everything() && Authorizer::signing(keys).reaches_everything());
    }
}
