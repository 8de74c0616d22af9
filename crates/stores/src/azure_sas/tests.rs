use futures::FutureExt;
use object_store::StaticCredentialProvider;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpRequest, HttpResponse, HttpResponseBody, HttpService};

use super::*;

const NOW: Duration = Duration::from_secs(1_770_000_000);
const KEY: &str = "c2VjcmV0IG9mIHRoZSBhY2NvdW50";
const TTL: Duration = Duration::from_secs(60);

fn signer(keys: Keys, clock: Clock) -> AzureSas {
    let service = Url::parse("https://account.blob.core.windows.net").unwrap();
    AzureSas::new(("account", "container"), service, keys, clock)
}

fn pairs(url: &Url) -> Vec<(String, String)> {
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

#[tokio::test]
async fn urls_are_of_one_blob_for_reading_by_https() {
    let sas = signer(Keys::Shared(KEY.to_owned()), Clock::anchored(NOW));
    let path = Path::parse("a/date=1/x y%41é").unwrap();
    let url = sas.signed_url(Method::GET, &path, TTL).await.unwrap();
    let expected = "https://account.blob.core.windows.net/container/a/date=1/x%20y%2541%C3%A9?";
    assert!(url.as_str().starts_with(expected), "{url}");
    let pairs = pairs(&url);
    let value = |name: &str| pairs.iter().find(|(found, _)| found == name).unwrap().1.as_str();
    assert_eq!((value("sp"), value("sr"), value("spr")), ("r", "b", "https"));
    assert_eq!(value("se"), "2026-02-02T02:41:00Z");
    let signed = format!(
        "r\n\n{}\n/blob/account/container/a/date=1/x y%41é\n\n\nhttps\n{VERSION}\nb\n\n\n\n\n\n\n",
        value("se")
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).unwrap());
    assert_eq!(value("sig"), STANDARD.encode(hmac::sign(&key, signed.as_bytes())));
    assert!(sas.signed_url(Method::PUT, &path, TTL).await.is_err());
}

/// Answers requests for keys, and counts them.
#[derive(Clone, Debug, Default)]
struct KeyService {
    requests: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl HttpService for KeyService {
    async fn call(
        &self,
        request: HttpRequest,
    ) -> std::result::Result<HttpResponse, object_store::client::HttpError> {
        let authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
        let body = String::from_utf8(request.body().as_bytes().unwrap().to_vec()).unwrap();
        self.requests.lock().unwrap().push(format!("{} {authorization} {body}", request.uri()));
        let answer = format!(
            "<UserDelegationKey><SignedOid>oid</SignedOid><SignedTid>tid</SignedTid><SignedStart>start</SignedStart>\
             <SignedExpiry>expiry</SignedExpiry><SignedService>b</SignedService>\
             <SignedVersion>{VERSION}</SignedVersion><Value>{KEY}</Value></UserDelegationKey>"
        );
        let body =
            http_body_util::BodyExt::map_err(http_body_util::Full::new(Bytes::from(answer)), |e| match e {});
        Ok(http::Response::new(HttpResponseBody::new(body)))
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_the_service_are_used_for_half_of_their_life() {
    let service = KeyService::default();
    let credential = AzureCredential::BearerToken("token".to_owned());
    let keys = Keys::Delegated {
        client: HttpClient::new(service.clone()),
        credentials: Arc::new(StaticCredentialProvider::new(credential)),
    };
    let clock = Clock::anchored(NOW);
    let sas = signer(keys, clock.clone());
    let path = Path::parse("a/b").unwrap();
    let url = sas.signed_url(Method::GET, &path, TTL).await.unwrap();
    let pairs = pairs(&url);
    for (name, value) in
        [("skoid", "oid"), ("sktid", "tid"), ("skt", "start"), ("ske", "expiry"), ("sks", "b")]
    {
        assert!(pairs.contains(&(name.to_owned(), value.to_owned())), "{url}");
    }
    let asked = |service: &KeyService| service.requests.lock().unwrap().clone();
    assert_eq!(
        asked(&service),
        ["https://account.blob.core.windows.net/?restype=service&comp=userdelegationkey Bearer token \
          <?xml version=\"1.0\" encoding=\"utf-8\"?><KeyInfo><Start>2026-02-02T02:40:00Z</Start>\
          <Expiry>2026-02-02T04:40:00Z</Expiry></KeyInfo>"]
    );
    clock.sleep(KEY_TTL / 2 - Duration::from_secs(1)).await;
    sas.signed_url(Method::GET, &path, TTL).await.unwrap();
    assert_eq!(asked(&service).len(), 1);
    clock.sleep(Duration::from_secs(1)).await;
    sas.signed_url(Method::GET, &path, TTL).await.unwrap();
    assert_eq!(asked(&service).len(), 2);
    // A URL may not outlive its key.
    sas.signed_url(Method::GET, &path, KEY_TTL).await.unwrap();
    assert_eq!(asked(&service).len(), 3);
    assert!(sas.signed_url(Method::GET, &path, DELEGATED_TTL_MAX + TTL).await.is_err());
}

/// The library's own signatures, of a name which both can sign, have the same fields in the same order.
#[tokio::test]
async fn plain_names_are_signed_as_the_client_library_does() {
    let azure = MicrosoftAzureBuilder::new()
        .with_account("account")
        .with_access_key(KEY)
        .with_container_name("container")
        .build()
        .unwrap();
    let path = Path::parse("a/b").unwrap();
    let theirs = azure.signed_url(Method::GET, &path, TTL).now_or_never().unwrap().unwrap();
    let pairs = pairs(&theirs);
    let value = |name: &str| pairs.iter().find(|(found, _)| found == name).unwrap().1.as_str();
    // Ours with a begin, and without a protocol.
    let signed = format!(
        "r\n{}\n{}\n/blob/account/container/a/b\n\n\n\n{VERSION}\nb\n\n\n\n\n\n\n",
        value("st"),
        value("se")
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).unwrap());
    assert_eq!(value("sig"), STANDARD.encode(hmac::sign(&key, signed.as_bytes())));
}
