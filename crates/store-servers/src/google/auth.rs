//! Who may ask: bearers of tokens which the service account signed, and of URLs.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use aws_lc_rs::{digest, encoding};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use runtime::{BoxError, Clock};

const EMAIL: &str = "tester@example.iam.gserviceaccount.com";

pub(crate) struct Account {
    private_key: String,
    public_key: Vec<u8>,
}

impl Account {
    pub(crate) fn generate() -> Result<Account, BoxError> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let der: encoding::Pkcs8V1Der<'_> = pair.as_der()?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        let kind = "PRIVATE KEY";
        let private_key = format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"));
        Ok(Account { private_key, public_key: pair.public_key().as_ref().to_vec() })
    }

    /// The file which Google gives to the owner of an account.
    pub(crate) fn json(&self) -> String {
        let file = serde_json::json!({
            "type": "service_account",
            "project_id": "example",
            "private_key_id": "1",
            "private_key": self.private_key,
            "client_email": EMAIL,
        });
        file.to_string()
    }

    /// Whether the request may be made; otherwise an error's code.
    pub(crate) fn check(
        &self,
        request: &Request<Bytes>,
        query: &BTreeMap<String, String>,
        clock: &Clock,
    ) -> Result<(), &'static str> {
        let now = clock.unix_now().as_secs();
        if query.contains_key("X-Goog-Signature") {
            return self.check_url(request, query, now);
        }
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).ok_or("MissingToken")?;
        let (signed, signature) = token.rsplit_once('.').ok_or("MalformedToken")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "MalformedToken")?;
        self.verify(signed.as_bytes(), &signature)?;
        let claims = signed.split_once('.').map_or("", |(_, claims)| claims);
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "MalformedToken")?;
        let claims: serde_json::Value = serde_json::from_slice(&claims).map_err(|_| "MalformedToken")?;
        match claims["exp"].as_u64() {
            Some(until) if claims["iss"] == EMAIL && until > now => Ok(()),
            _ => Err("ExpiredToken"),
        }
    }

    /// Checks a signed URL: <https://cloud.google.com/storage/docs/authentication/signatures>.
    fn check_url(
        &self,
        request: &Request<Bytes>,
        query: &BTreeMap<String, String>,
        now: u64,
    ) -> Result<(), &'static str> {
        let value = |name: &str| query.get(name).map(String::as_str).ok_or("MalformedSignature");
        let (credential, date) = (value("X-Goog-Credential")?, value("X-Goog-Date")?);
        let scope = credential.strip_prefix(&format!("{EMAIL}/")).ok_or("OtherAccount")?;
        let until = signed_at(date).ok_or("MalformedSignature")?
            + value("X-Goog-Expires")?.parse::<u64>().map_err(|_| "MalformedSignature")?;
        if value("X-Goog-Algorithm")? != "GOOG4-RSA-SHA256" || value("X-Goog-SignedHeaders")? != "host" {
            return Err("MalformedSignature");
        }
        if now >= until {
            return Err("ExpiredToken");
        }
        let raw = request.uri().query().unwrap_or_default();
        let mut pairs: Vec<&str> =
            raw.split('&').filter(|pair| !pair.starts_with("X-Goog-Signature=")).collect();
        pairs.sort_unstable();
        // The name of the service, by which clients think that they call it.
        let host = "storage.googleapis.com";
        let canonical = format!(
            "{}\n{}\n{}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD",
            request.method(),
            request.uri().path(),
            pairs.join("&")
        );
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let signed = format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{hash}");
        let signature = unhex(value("X-Goog-Signature")?).ok_or("MalformedSignature")?;
        self.verify(signed.as_bytes(), &signature)
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), &'static str> {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        key.verify(signed, signature).map_err(|_| "SignatureDoesNotMatch")
    }
}

/// Unix seconds of `20260131T235959Z`.
fn signed_at(date: &str) -> Option<u64> {
    let part = |range: std::ops::Range<usize>| date.get(range);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(9..11)?,
        part(11..13)?,
        part(13..15)?
    );
    let time = humantime::parse_rfc3339(&text).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = (0..text.len()).step_by(2);
    digits.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_digits_are_read() {
        assert_eq!(signed_at("19700102T000001Z"), Some(86_401));
        assert_eq!(signed_at("1970"), None);
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!(unhex("0"), None);
    }
}
