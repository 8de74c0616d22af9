use http::HeaderValue;
use proptest::prelude::*;
use proto::protocol::{LabelSelector, LabelSet};
use tonic::Request;

use super::*;
use crate::{Authorizer, Grant, KeysError};

/// `secret`, and another key.
const SECRET: &str = "c2VjcmV0";
const OTHER: &str = "b3RoZXI=";
/// When the golden tokens were issued; they are valid for an hour.
const ISSUED: Duration = Duration::from_secs(1_700_000_000);
const HOUR: u64 = 3600;

/// Claims of READ on `name=a/journal`, signed by other programs with the key `secret`.
const GOLDEN_PAYLOAD: &str = "eyJzZWwiOnsiaW5jbHVkZSI6eyJsYWJlbHMiOlt7Im5hbWUiOiJuYW1lIiwidmFsdWUiOiJhL2pvdXJuYWwifV19LCJleGNsdWRlIjp7ImxhYmVscyI6bnVsbH19LCJjYXAiOjgsImV4cCI6MTcwMDAwMzYwMCwiaWF0IjoxNzAwMDAwMDAwfQ";
const HS256: (&str, &str) =
    ("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "6l08YLKfBl7Q8fwRKP-oVZyjw9aVdSEyBsIbPtLshKA");
const HS384: (&str, &str) = (
    "eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9",
    "7FztUJ_nkeqjxnzceCWtADeufTKVtFLhF2dv0iy5Zh1fjWKf6ZE-6xK5sHmGNX55",
);
const HS512: (&str, &str) = (
    "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9",
    "7M54U7e5jPbnP0iMtbCar-EaeYCP1ECdImasgnRqkMlRwswjSbQVpqFIK149bIC6ZiBNAsA0y3tBH6kxxfQU_Q",
);
const UNSIGNED: (&str, &str) = ("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", "");

fn golden((header, signature): (&str, &str)) -> String {
    format!("{header}.{GOLDEN_PAYLOAD}.{signature}")
}

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

/// The outcome for a request with this `authorization`.
fn verified(
    text: &str,
    authorization: Option<&[u8]>,
    require: Capability,
    now: Duration,
) -> Result<Access, String> {
    let mut headers = HeaderMap::new();
    if let Some(value) = authorization {
        // What no request can carry cannot arrive.
        let Ok(value) = HeaderValue::from_bytes(value) else { return Err("no header".to_owned()) };
        headers.insert(AUTHORIZATION, value);
    }
    Verifier::new(Some(keys(text))).verify(&headers, require, now).map_err(|e| e.to_string())
}

fn with_token(token: &str, require: Capability, now: Duration) -> Result<Access, String> {
    verified(SECRET, Some(format!("Bearer {token}").as_bytes()), require, now)
}

#[test]
fn tokens_of_other_programs_are_accepted() {
    let expected = Access {
        selector: LabelSelector::include([("name", "a/journal")]),
        expires: Some(ISSUED + Duration::from_secs(HOUR)),
    };
    for token in [golden(HS256), golden(HS384)] {
        assert_eq!(with_token(&token, Capability::READ, ISSUED), Ok(expected.clone()));
        let rotated = format!("{OTHER} {SECRET}");
        let header = format!("Bearer {token}");
        assert_eq!(
            verified(&rotated, Some(header.as_bytes()), Capability::READ, ISSUED),
            Ok(expected.clone())
        );
        assert_eq!(
            verified(OTHER, Some(header.as_bytes()), Capability::READ, ISSUED),
            Err("verifying Authorization: signature is invalid".to_owned())
        );
    }
    let reached = |name: &str| expected.reaches(&LabelSet::from_pairs([("name", name)]));
    assert!(reached("a/journal") && !reached("a/journal/two") && !reached("b/journal"));
    let labels = LabelSet::from_pairs([("name", "b/journal")]);
    assert_eq!(
        expected.require(&labels, "b/journal").unwrap_err().to_string(),
        "not authorized to b/journal"
    );
}

#[test]
fn whatever_is_wrong_is_said() {
    let token = golden(HS256);
    let unsupported = "invalid or unsupported Authorization header (expected 'Bearer')";
    let malformed = "verifying Authorization: token is malformed, or not signed with HS256 or HS384";
    let swapped = format!("{}.{}.{}", HS384.0, GOLDEN_PAYLOAD, HS256.1);
    let bearer = |token: &str| format!("Bearer {token}");
    for (header, error) in [
        (None, "missing or empty Authorization token"),
        (Some(String::new()), "missing or empty Authorization token"),
        (Some(format!("bearer {token}")), unsupported),
        (Some(format!("Basic {token}")), unsupported),
        (Some(token.clone()), unsupported),
        (Some("Bearer".to_owned()), unsupported),
        (Some(bearer("")), malformed),
        (Some(bearer("a.b.c")), malformed),
        (Some(bearer(&golden(HS512))), malformed),
        (Some(bearer(&golden(UNSIGNED))), malformed),
        (Some(bearer(&swapped)), "verifying Authorization: signature is invalid"),
        (Some(bearer(&token[..token.len() - 4])), malformed),
    ] {
        let outcome = verified(SECRET, header.as_deref().map(str::as_bytes), Capability::READ, ISSUED);
        assert_eq!(outcome, Err(error.to_owned()), "{header:?}");
    }
    assert_eq!(verified(SECRET, Some(b"Bearer \xff"), Capability::READ, ISSUED), Err(unsupported.to_owned()));
}

#[test]
fn the_first_header_counts() {
    let mut headers = HeaderMap::new();
    headers.append(AUTHORIZATION, format!("Bearer {}", golden(HS256)).parse().unwrap());
    headers.append(AUTHORIZATION, "Bearer other".parse().unwrap());
    Verifier::new(Some(keys(SECRET))).verify(&headers, Capability::READ, ISSUED).unwrap();
}

#[test]
fn clocks_may_differ_by_five_seconds() {
    let signed = |expires: i64, not_before, issued| {
        let claims =
            Claims { capability: Capability::READ, expires, not_before, issued, ..Claims::default() };
        keys(SECRET).sign(&claims)
    };
    let now = ISSUED.as_secs().cast_signed();
    for (token, error) in [
        (signed(now + 1, None, None), None),
        (signed(now - 4, None, None), None),
        (signed(now - 5, None, None), Some("token is expired")),
        (signed(0, None, None), Some("token is expired")),
        (signed(i64::MIN, None, None), Some("token is expired")),
        (signed(i64::MAX, Some(now + 5), Some(now + 5)), None),
        (signed(i64::MAX, Some(now + 6), None), Some("token is not valid yet")),
        (signed(i64::MAX, None, Some(now + 6)), Some("token used before issued")),
        (signed(i64::MAX, Some(i64::MIN), Some(i64::MIN)), None),
    ] {
        let outcome = with_token(&token, Capability::READ, ISSUED).map(drop);
        assert_eq!(outcome.err(), error.map(|error| format!("verifying Authorization: {error}")));
    }
    // Requests end when the token does, however the clocks are.
    let access = with_token(&signed(now - 4, None, None), Capability::READ, ISSUED).unwrap();
    assert_eq!(access.expires, Some(ISSUED - Duration::from_secs(4)));
}

#[test]
fn a_missing_capability_is_named() {
    let token = golden(HS256);
    for (require, error) in [
        (Capability::APPEND, "authorization is missing required APPEND capability"),
        (Capability::READ | Capability::LIST, "authorization is missing required LIST capability"),
        (
            Capability::READ | Capability::from_bits(1 << 16),
            "authorization is missing required capability (have 1000, but require 10000000000001000)",
        ),
    ] {
        assert_eq!(with_token(&token, require, ISSUED), Err(error.to_owned()));
    }
}

#[test]
fn requests_without_a_token_pass_where_that_is_wanted() {
    let open = format!("AA==,{SECRET}");
    let access = verified(&open, None, Capability::APPLY, ISSUED).unwrap();
    assert_eq!(access, Access { expires: Some(ISSUED + Duration::from_secs(HOUR)), ..Access::unlimited() });
    // A token that is there must be valid, and AA== is no key.
    assert!(verified(&open, Some(b"Bearer x"), Capability::READ, ISSUED).is_err());
    let claims = Claims { capability: Capability::READ, expires: i64::MAX, ..Claims::default() };
    let by_zero = format!("Bearer {}", keys("AAA=").sign(&claims));
    assert!(verified(&open, Some(by_zero.as_bytes()), Capability::READ, ISSUED).is_err());
    let nothing = Verifier::default().verify(&HeaderMap::new(), Capability::ALL, ISSUED).unwrap();
    assert_eq!(nothing, Access::unlimited());
}

#[test]
fn keys_are_parsed_and_never_shown() {
    for good in [SECRET, " c2VjcmV0,\n b3RoZXI= ", "AA== c2VjcmV0", "c2VjcmV0 AA=="] {
        let keys = keys(good);
        assert!(!format!("{keys:?} {:?}", Verifier::new(Some(keys.clone()))).contains("c2V"), "{keys:?}");
    }
    for (bad, error) in [
        ("", KeysError::NoKey),
        (" ,", KeysError::NoKey),
        ("AA==", KeysError::NoKey),
        ("c2VjcmV0 secret!", KeysError::Encoding(2)),
        ("b3RoZXI", KeysError::Encoding(1)),
        ("AA== c2V_cmV0", KeysError::Encoding(2)),
    ] {
        let found = Keys::parse(bad).unwrap_err();
        assert!(!found.to_string().contains("secret!"), "{found}");
        assert_eq!(found, error, "{bad:?}");
    }
}

#[test]
fn clients_sign_what_a_request_needs() {
    let signs = Authorizer::signing(keys(&format!("{SECRET} {OTHER}")));
    let now = ISSUED + Duration::from_millis(999);
    let header = |request: &Request<()>| request.metadata().get(AUTHORIZATION).cloned();
    let seen = |authorizer: &Authorizer, grant: Grant| {
        let value = header(&authorizer.authorize(Request::new(()), grant, now)).unwrap();
        assert!(!format!("{value:?}").contains("ey"), "it is not shown");
        let token = value.to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        keys(SECRET).open(&token).unwrap()
    };
    let claims = seen(&signs, Grant::journal(Capability::APPEND, "a/journal;meta"));
    let issued = ISSUED.as_secs().cast_signed();
    assert_eq!((claims.capability, claims.issued), (Capability::APPEND, Some(issued)));
    assert_eq!(claims.expires, issued + 3600);
    assert_eq!(claims.selector, LabelSelector::include([("name", "a/journal")]));
    let claims = seen(&signs, Grant::shards(Capability::READ, ["shard-b", "shard-a"]));
    assert_eq!(claims.expires, issued + 60);
    assert_eq!(claims.selector, LabelSelector::include([("id", "shard-a"), ("id", "shard-b")]));
    let many: Vec<String> = (0..1000).map(|i| format!("shard-{i}")).collect();
    let claims = seen(&signs, Grant::shards(Capability::APPLY, many.iter().map(String::as_str)));
    assert!(claims.selector.is_everything(), "a header has its limits");

    let given = Authorizer::bearer(&format!(" {}\n", golden(HS256))).unwrap();
    assert_eq!(seen(&given, Grant::everywhere(Capability::APPLY)).capability, Capability::READ);
    assert!(
        header(&Authorizer::none().authorize(Request::new(()), Grant::everywhere(Capability::READ), now))
            .is_none()
    );
    assert_eq!(Authorizer::bearer("a\nb").unwrap_err(), KeysError::Token);
    assert!(signs.signs() && !given.signs());
    assert!(!format!("{signs:?} {given:?}").contains("ey"));
}

proptest! {
    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let header = [b"Bearer ", &bytes[..]].concat();
        prop_assert!(verified(SECRET, Some(&bytes), Capability::READ, ISSUED).is_err());
        prop_assert!(verified(SECRET, Some(&header), Capability::READ, ISSUED).is_err());
        if let Ok(text) = std::str::from_utf8(&bytes) {
            drop(Keys::parse(text));
        }
    }

    #[test]
    fn a_changed_token_is_refused(at in 0usize..300, with in "[A-Za-z0-9_.-]") {
        let token = golden(HS256);
        let at = at % token.len();
        let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
        // The last character has bits beyond the signature's end.
        prop_assume!(changed != token && at + 1 != token.len());
        prop_assert!(with_token(&changed, Capability::READ, ISSUED).is_err());
    }

    #[test]
    fn what_is_signed_is_what_is_verified(bits in any::<u32>(), expires in 1_700_000_000i64.., name in "[a-z/]{1,20}") {
        let selector = LabelSelector::include([("name", name)]);
        let capability = Capability::from_bits(bits);
        let claims = Claims { capability, selector, expires, ..Claims::default() };
        for signer in [SECRET, OTHER] {
            let header = format!("Bearer {}", keys(signer).sign(&claims));
            let both = format!("{SECRET} {OTHER}");
            let access = verified(&both, Some(header.as_bytes()), capability, ISSUED).unwrap();
            prop_assert_eq!(access.selector, claims.selector.clone());
        }
    }
}
