//! What a token says, and its JSON (journal protocol §13.2).

use proto::protocol::{Label, LabelSelector, LabelSet};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::capability::Capability;
use crate::error::TokenError;

/// What a token says. Times are whole seconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// What it allows.
    pub capability: Capability,
    /// To which journals or shards.
    pub selector: LabelSelector,
    /// Until when.
    pub expires: i64,
    /// When it was issued.
    pub issued: Option<i64>,
    /// When it begins to be valid.
    pub not_before: Option<i64>,
    /// Who issued it (claim `iss`). Passed through.
    pub issuer: Option<Value>,
    /// Whom it is about (claim `sub`). Passed through.
    pub subject: Option<Value>,
    /// Whom it is for (claim `aud`). Passed through.
    pub audience: Option<Value>,
    /// Its own id (claim `jti`). Passed through.
    pub id: Option<Value>,
}

/// The JSON of claims. Absent, `null` and empty are the same.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireClaims {
    #[serde(default)]
    cap: u32,
    #[serde(default)]
    sel: Option<WireSelector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct WireSelector {
    include: Option<WireSet>,
    exclude: Option<WireSet>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct WireSet {
    labels: Option<Vec<WireLabel>>,
}

#[derive(Serialize, Deserialize)]
struct WireLabel {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    value: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    prefix: bool,
}

impl WireSet {
    fn of(set: &LabelSet) -> WireSet {
        let labels = set.labels.iter().map(|Label { name, value, prefix }| WireLabel {
            name: name.clone(),
            value: value.clone(),
            prefix: *prefix,
        });
        WireSet { labels: Some(labels.collect()).filter(|labels: &Vec<_>| !labels.is_empty()) }
    }

    fn into_set(self) -> LabelSet {
        let labels = self.labels.unwrap_or_default().into_iter();
        let labels = labels.map(|WireLabel { name, value, prefix }| Label { name, value, prefix });
        LabelSet::from_labels(labels.collect())
    }
}

impl WireClaims {
    pub(crate) fn of(claims: &Claims) -> WireClaims {
        let Claims { capability, selector, expires, issued, not_before, .. } = claims;
        WireClaims {
            cap: capability.bits(),
            sel: Some(WireSelector {
                include: Some(WireSet::of(selector.include_set())),
                exclude: Some(WireSet::of(selector.exclude_set())),
            }),
            exp: Some(Number::from(*expires)),
            iat: issued.map(Number::from),
            nbf: not_before.map(Number::from),
            iss: claims.issuer.clone(),
            sub: claims.subject.clone(),
            aud: claims.audience.clone(),
            jti: claims.id.clone(),
        }
    }

    pub(crate) fn into_claims(self) -> Result<Claims, TokenError> {
        let WireSelector { include, exclude } = self.sel.unwrap_or_default();
        let set = |set: Option<WireSet>| Some(set.unwrap_or_default().into_set());
        Ok(Claims {
            capability: Capability::from_bits(self.cap),
            selector: LabelSelector { include: set(include), exclude: set(exclude) },
            expires: seconds(self.exp.as_ref().ok_or(TokenError::NoExpiry)?),
            issued: self.iat.as_ref().map(seconds),
            not_before: self.nbf.as_ref().map(seconds),
            issuer: self.iss,
            subject: self.sub,
            audience: self.aud,
            id: self.jti,
        })
    }
}

/// Whole seconds of a date, which may have a fraction. What is out of range is as far as can be.
fn seconds(date: &Number) -> i64 {
    let whole = |date: &Number| date.as_f64().map(|seconds| seconds.trunc() as i64);
    date.as_i64().or_else(|| whole(date)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(claims: &Claims) -> String {
        serde_json::to_string(&WireClaims::of(claims)).unwrap()
    }

    fn parse(json: &str) -> Result<Claims, String> {
        let wire: WireClaims = serde_json::from_str(json).map_err(|e| e.to_string())?;
        wire.into_claims().map_err(|e| e.to_string())
    }

    #[test]
    fn selectors_are_written_as_other_implementations_do() {
        let mut claims = Claims {
            capability: Capability::READ,
            selector: LabelSelector::include([("name", "a/journal"), ("kind", "")]),
            expires: 1_700_003_600,
            issued: Some(1_700_000_000),
            ..Claims::default()
        };
        claims.selector.include.as_mut().unwrap().labels[1].prefix = true;
        assert_eq!(
            json(&claims),
            r#"{"cap":8,"sel":{"include":{"labels":[{"name":"kind"},{"name":"name","value":"a/journal","prefix":true}]},"exclude":{"labels":null}},"exp":1700003600,"iat":1700000000}"#
        );
        assert_eq!(parse(&json(&claims)).unwrap(), claims);
        claims.selector = LabelSelector::everything();
        (claims.subject, claims.audience) = (Some("me".into()), Some(vec!["us"].into()));
        assert_eq!(parse(&json(&claims)).unwrap(), claims);
    }

    #[test]
    fn absent_null_and_empty_are_the_same() {
        let everything = Claims { selector: LabelSelector::everything(), expires: 7, ..Claims::default() };
        for json in [
            r#"{"exp":7}"#,
            r#"{"exp":7.9,"sel":null,"cap":0}"#,
            r#"{"exp":7,"sel":{}}"#,
            r#"{"exp":7,"sel":{"include":null,"exclude":{}},"other":[1]}"#,
            r#"{"exp":7,"sel":{"include":{"labels":[]},"exclude":{"labels":null}}}"#,
        ] {
            assert_eq!(parse(json).unwrap(), everything, "{json}");
        }
        // Labels in any order.
        let json = r#"{"exp":7,"sel":{"include":{"labels":[{"name":"b"},{"name":"a","value":"1"}]}}}"#;
        assert_eq!(parse(json).unwrap().selector, LabelSelector::include([("a", "1"), ("b", "")]));
    }

    #[test]
    fn what_is_not_claims_is_refused() {
        for json in [
            r#"{}"#,
            r#"{"exp":null}"#,
            r#"{"exp":"7"}"#,
            r#"{"exp":7,"cap":-1}"#,
            r#"{"exp":7,"cap":4294967296}"#,
            r#"{"exp":7,"cap":"8"}"#,
            r#"{"exp":7,"sel":{"include":{"labels":{}}}}"#,
            r#"{"exp":7,"exp":8}"#,
            r#"[]"#,
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
        assert_eq!(parse(r#"{"exp":1e300}"#).unwrap().expires, i64::MAX);
        assert_eq!(parse(r#"{"exp":18446744073709551615}"#).unwrap().expires, i64::MAX);
    }
}
