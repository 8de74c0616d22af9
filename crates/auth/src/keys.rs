//! The keys which tokens are signed with: shared by all who sign and all who verify.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};

use crate::claims::{Claims, WireClaims};
use crate::error::{KeysError, TokenError};

/// In place of a key: requests without a token are accepted.
const ALLOW_MISSING: &str = "AA==";

/// Keys. The first one signs; each of them verifies. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    signs: EncodingKey,
    verify: Vec<DecodingKey>,
    allow_missing: bool,
}

impl Keys {
    /// Parses the value of `--broker.auth-keys`: keys in standard base64, separated by white space or commas. The literal
    /// `AA==` among them is no key, but says that requests without a token are accepted.
    ///
    /// # Errors
    /// If a key is malformed, which is named by its place, or there is none.
    pub fn parse(text: &str) -> Result<Keys, KeysError> {
        let (mut secrets, mut allow_missing) = (Vec::new(), false);
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        for (index, word) in words.enumerate() {
            if word == ALLOW_MISSING {
                allow_missing = true;
                continue;
            }
            let secret = STANDARD.decode(word).map_err(|_| KeysError::Encoding(index + 1))?;
            if secret.is_empty() {
                return Err(KeysError::Empty(index + 1));
            }
            secrets.push(secret);
        }
        let first = secrets.first().ok_or(KeysError::NoKey)?;
        let inner = Inner {
            signs: EncodingKey::from_secret(first),
            verify: secrets.iter().map(|secret| DecodingKey::from_secret(secret)).collect(),
            allow_missing,
        };
        Ok(Keys { inner: Arc::new(inner) })
    }

    /// Whether requests without a token are accepted.
    pub fn allow_missing(&self) -> bool {
        self.inner.allow_missing
    }

    /// A token of these claims, signed with the first key.
    pub fn sign(&self, claims: &Claims) -> String {
        let header = Header::new(Algorithm::HS256);
        jsonwebtoken::encode(&header, &WireClaims::of(claims), &self.inner.signs)
            .expect("claims are plain JSON, and every secret is an HMAC key")
    }

    /// The claims of a token that was signed with one of the keys. Their times are not looked at.
    ///
    /// # Errors
    /// If it is malformed, or was signed with another key or by another method.
    pub(crate) fn open(&self, token: &str) -> Result<Claims, TokenError> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.algorithms = vec![Algorithm::HS256, Algorithm::HS384];
        rules.required_spec_claims.clear();
        (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
        for key in &self.inner.verify {
            match jsonwebtoken::decode::<WireClaims>(token, key, &rules) {
                Ok(opened) => return opened.claims.into_claims(),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::Json(error) if self.is_signed(token, key, &rules) => {
                        return Err(TokenError::Claims(error.to_string()));
                    }
                    _ => return Err(TokenError::Malformed),
                },
            }
        }
        Err(TokenError::Signature)
    }

    /// Whether the signature is that of `key`, whatever the claims are.
    fn is_signed(&self, token: &str, key: &DecodingKey, rules: &Validation) -> bool {
        jsonwebtoken::decode::<serde_json::Value>(token, key, rules).is_ok()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("count", &self.inner.verify.len()).finish_non_exhaustive()
    }
}
