//! A fake of what Azure has and `azurite` lacks over plain HTTP: an authority which gives tokens to an application, and a
//! service which takes them, and keys for signing URLs. It stands before an [`AzureServer`](crate::AzureServer), where the
//! blobs are, and signs for it what it lets pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode, header};
use runtime::{BoxError, Clock};

use crate::azure::{ACCOUNT, AzureServer, authorization};
use crate::http_server::{Answer, Listening, answer, error_answer, forward, full, http_date, serve};
use crate::{Variables, variables};

const TENANT: &str = "a-tenant";
const CLIENT_ID: &str = "an-application";
const CLIENT_SECRET: &str = "a secret";
/// How long tokens are good for, unless it is said otherwise.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// The key for signing, in Base64, and what is said of it.
const KEY: &str = "YSBrZXkgZm9yIHNpZ25pbmc=";
const KEY_FACTS: [(&str, &str, &str); 4] = [
    ("skoid", "SignedOid", "an-object"),
    ("sktid", "SignedTid", TENANT),
    ("sks", "SignedService", "b"),
    ("skv", "SignedVersion", "2023-11-03"),
];

/// A fake authority, and a service which believes it.
pub struct FakeAzureAd {
    listening: Listening,
    authority: Arc<Mutex<Authority>>,
}

/// Who gives tokens, and what became of them.
struct Authority {
    clock: Clock,
    lifetime: Duration,
    knows_application: bool,
    /// When each token expires, Unix time. Their numbers begin with 0.
    expiries: Vec<Duration>,
}

impl Authority {
    fn token(&mut self) -> Answer {
        let token = format!("token-{}", self.expiries.len());
        self.expiries.push(self.clock.unix_now() + self.lifetime);
        let seconds = self.lifetime.as_secs();
        answer(StatusCode::OK, format!(r#"{{"access_token": "{token}", "expires_in": {seconds}}}"#))
    }

    /// Whether a request with this header has a token which is still good.
    fn admits(&self, bearer: Option<&str>) -> bool {
        let number = bearer.and_then(|bearer| bearer.strip_prefix("Bearer token-")?.parse::<usize>().ok());
        let expiry = number.and_then(|number| self.expiries.get(number));
        expiry.is_some_and(|expiry| self.clock.unix_now() < *expiry)
    }
}

impl FakeAzureAd {
    /// Starts one before `server`.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(server: &AzureServer) -> Result<FakeAzureAd, BoxError> {
        let service: Arc<str> = server.endpoint().trim_start_matches("http://").into();
        let clock = Clock::system();
        let authority = Arc::new(Mutex::new(Authority {
            clock: clock.clone(),
            lifetime: TOKEN_LIFETIME,
            knows_application: true,
            expiries: Vec::new(),
        }));
        let shared = authority.clone();
        let listening = serve("fake Azure AD", move |request| {
            handle(service.clone(), shared.clone(), clock.clone(), request).boxed()
        });
        Ok(FakeAzureAd { listening: listening.await?, authority })
    }

    /// Tokens which are given from now on are good for this long, in whole seconds.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        lock(&self.authority).lifetime = lifetime;
    }

    /// Whether the authority knows the application from now on, and gives it tokens. If not, those which it has are void.
    pub fn set_knows_application(&self, knows_application: bool) {
        let mut authority = lock(&self.authority);
        authority.knows_application = knows_application;
        if !knows_application {
            authority.expiries.fill(Duration::ZERO);
        }
    }

    /// How many tokens were given.
    pub fn tokens_given(&self) -> usize {
        lock(&self.authority).expiries.len()
    }

    /// What a client needs from its environment.
    pub fn environment(&self) -> Variables {
        let endpoint = &self.listening.endpoint;
        variables(&[
            ("AZURE_CLIENT_ID", CLIENT_ID),
            ("AZURE_CLIENT_SECRET", CLIENT_SECRET),
            ("AZURE_AUTHORITY_HOST", endpoint),
            ("AZURE_STORAGE_SERVICE_ENDPOINT", &format!("{endpoint}/{ACCOUNT}")),
        ])
    }

    /// The URL of the store at `container` and `prefix` (empty or ending in a slash).
    pub fn store_url(&self, container: &str, prefix: &str) -> String {
        format!("azure-ad://{TENANT}/{ACCOUNT}/{container}/{prefix}")
    }
}

fn lock(authority: &Mutex<Authority>) -> MutexGuard<'_, Authority> {
    authority.lock().unwrap_or_else(PoisonError::into_inner)
}

type Query = BTreeMap<String, String>;

fn pairs(text: &[u8]) -> Query {
    url::form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

async fn handle(
    service: Arc<str>,
    authority: Arc<Mutex<Authority>>,
    clock: Clock,
    request: Request<Bytes>,
) -> Answer {
    let query = pairs(request.uri().query().unwrap_or_default().as_bytes());
    let path = request.uri().path();
    if path == format!("/{TENANT}/oauth2/v2.0/token") {
        let form = pairs(request.body());
        let is = |name: &str, value: &str| form.get(name).is_some_and(|found| found == value);
        let mut authority = lock(&authority);
        let known =
            authority.knows_application && is("client_id", CLIENT_ID) && is("client_secret", CLIENT_SECRET);
        return match known && is("grant_type", "client_credentials") {
            true => authority.token(),
            false => answer(StatusCode::UNAUTHORIZED, r#"{"error": "invalid_client"}"#),
        };
    }
    if query.contains_key("sig") {
        if request.method() != Method::GET || !is_signed(path, &query, &clock) {
            return error_answer(StatusCode::FORBIDDEN, "AuthenticationFailed");
        }
        let plain = Request::get(path).header(header::HOST, &*service).body(Bytes::new())?;
        return pass(&service, &clock, plain).await;
    }
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !lock(&authority).admits(bearer) {
        return error_answer(StatusCode::UNAUTHORIZED, "InvalidAuthenticationInfo");
    }
    match query.get("comp").map(String::as_str) {
        Some("userdelegationkey") => key(request.body()),
        Some("batch") => delete_all(&service, &clock, &request).await,
        _ => pass(&service, &clock, request).await,
    }
}

/// The key for signing, for the time that is asked for.
fn key(request: &Bytes) -> Answer {
    let text = String::from_utf8_lossy(request);
    let asked = |name: &str| {
        let rest = text.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
        rest.split('<').next().unwrap_or_default().to_owned()
    };
    let facts: String =
        KEY_FACTS.iter().map(|(_, name, value)| format!("<{name}>{value}</{name}>")).collect();
    answer(
        StatusCode::OK,
        format!(
            "<?xml version=\"1.0\"?><UserDelegationKey>{facts}<SignedStart>{}</SignedStart><SignedExpiry>{}</SignedExpiry>\
             <Value>{KEY}</Value></UserDelegationKey>",
            asked("Start"),
            asked("Expiry")
        ),
    )
}

/// Whether the URL was signed with the key, and is still good:
/// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-user-delegation-sas>.
fn is_signed(path: &str, query: &Query, clock: &Clock) -> bool {
    let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let now = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + clock.unix_now()).to_string();
    if KEY_FACTS.iter().any(|(name, _, expected)| value(name) != *expected) || *value("se") <= *now {
        return false;
    }
    let form = path.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let decoded: String = url::form_urlencoded::parse(form.as_bytes()).map(|(name, _)| name).collect();
    let signed = [
        [value("sp"), value("st"), value("se"), &format!("/blob{decoded}")].join("\n"),
        [value("skoid"), value("sktid"), value("skt"), value("ske"), value("sks"), value("skv")].join("\n"),
        ["", "", "", value("sip"), value("spr"), value("sv"), value("sr")].join("\n"),
        "\n\n\n\n\n\n".to_owned(),
    ];
    let Ok(key) = STANDARD.decode(KEY) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let Ok(signature) = STANDARD.decode(value("sig")) else { return false };
    value("sp") == "r" && hmac::verify(&key, signed.join("\n").as_bytes(), &signature).is_ok()
}

/// Signs a request with the account's key and passes it on.
async fn pass(service: &str, clock: &Clock, mut request: Request<Bytes>) -> Answer {
    request.headers_mut().insert("x-ms-date", http_date(clock).parse()?);
    request.headers_mut().entry("x-ms-version").or_insert("2023-11-03".parse()?);
    request.headers_mut().remove(header::AUTHORIZATION);
    request.headers_mut().remove(header::DATE);
    let signature = authorization(&request)?.parse()?;
    request.headers_mut().insert(header::AUTHORIZATION, signature);
    let is_head = request.method() == Method::HEAD;
    let (mut parts, body) = forward(service, request).await?.into_parts();
    if !is_head {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    parts.headers.remove(header::TRANSFER_ENCODING);
    Ok(Response::from_parts(parts, full(body)))
}

/// Deletes each blob of a batch, whose requests are not signed with the account's key.
async fn delete_all(service: &str, clock: &Clock, request: &Request<Bytes>) -> Answer {
    let text = String::from_utf8_lossy(request.body()).into_owned();
    let deleted = text.lines().filter_map(|line| line.strip_prefix("DELETE ")?.split(' ').next());
    let mut body = String::new();
    for (id, path) in deleted.enumerate() {
        let path = format!("/{}", path.trim_start_matches('/'));
        let request =
            Request::delete(&path).header(header::HOST, service).header(header::CONTENT_LENGTH, "0");
        let response = pass(service, clock, request.body(Bytes::new())?).await?;
        let status = response.status();
        body.push_str(&format!(
            "--batch\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {} {}\r\n\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default()
        ));
    }
    body.push_str("--batch--\r\n");
    let response = Response::builder().status(StatusCode::ACCEPTED);
    Ok(response.header(header::CONTENT_TYPE, "multipart/mixed; boundary=batch").body(full(body))?)
}
