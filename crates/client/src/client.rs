//! The client of brokers: one per process, shared by clones.
//!
//! A request goes to the broker which can serve it, if the journal's route is remembered, and else to a configured
//! address: any broker proxies. While that one cannot be reached, other brokers are asked, which were configured too or
//! which routes have named. Routes come in the headers of responses; the client knows nothing else of the cluster.

use crate::brokers::Brokers;
use crate::channels::Channels;
use crate::error::ClientError;
use crate::outage::Outage;
use crate::routes::{Need, RouteCache, choose};
use crate::series::Series;
use auth::{Authorizer, Capability, Grant};
use proto::protocol::journal_client::JournalClient as Rpc;
use proto::protocol::{
    ApplyRequest, ApplyResponse, FragmentStoreHealthRequest, FragmentStoreHealthResponse, FragmentsRequest,
    FragmentsResponse, Header, LabelSelector, ListRequest, ListResponse, Status,
};
use proto::{Invalid, Validate};
use runtime::backoff::Backoff;
use runtime::grpc_metrics::CountedChannel;
use runtime::tls::ClientTls;
use runtime::{Clock, Entropy, Instant, Metrics, TaskGroup, trace};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Routes remembered by a client whose options do not say.
const ROUTES_DEFAULT: usize = 16_384;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits between attempts. The last one repeats: a client which waits long is the last to notice that all is well again.
const WAITS: &[Duration] = &[ms(50), ms(50), ms(100), ms(100), ms(1000), ms(1000), ms(2000)];

/// Attempts to find a journal, before it is taken to not exist: a broker may not have heard of it yet.
pub(crate) const NOT_FOUND_ATTEMPTS: u32 = 3;

/// The waits between attempts of a request.
pub(crate) const fn backoff() -> Backoff {
    Backoff::new(WAITS)
}

/// What a client is made of.
#[derive(Clone)]
pub struct ClientOptions {
    /// Time.
    pub clock: Clock,
    /// Randomness: spreads reads over brokers, and names producers.
    pub entropy: Entropy,
    /// Owns the client's background work. When it is cancelled, waiting requests fail.
    pub tasks: TaskGroup,
    /// The failure zone of this process: its brokers are preferred for reads.
    pub zone: String,
    /// How many journal routes are remembered. Zero for the default, and to read all content through brokers (see
    /// [`JournalClient::reads_directly`]).
    pub cache_size: usize,
    /// How long a journal route is remembered.
    pub cache_ttl: Duration,
    /// Where `file://` URLs of fragments are found. Without it, brokers are asked for their content.
    pub file_root: Option<PathBuf>,
    /// For endpoints of `https`.
    pub tls: ClientTls,
    /// Where the client counts.
    pub metrics: Option<Metrics>,
    /// What requests are sent as.
    pub authorizer: Authorizer,
}

impl ClientOptions {
    /// The system's clock, entropy and authorities, zone `local`, no tokens, and routes remembered for a minute.
    pub fn new(tasks: TaskGroup) -> ClientOptions {
        ClientOptions {
            clock: Clock::system(),
            entropy: Entropy::system(),
            tasks,
            zone: "local".to_owned(),
            cache_size: 0,
            cache_ttl: Duration::from_secs(60),
            file_root: None,
            tls: ClientTls::default(),
            metrics: None,
            authorizer: Authorizer::none(),
        }
    }

    /// A request of `message`, with the token that it needs.
    pub(crate) fn request<T>(&self, message: T, grant: Grant) -> tonic::Request<T> {
        self.authorizer.authorize(trace::request(message), grant, self.clock.unix_now())
    }
}

struct Inner {
    brokers: Mutex<Brokers>,
    channels: Channels,
    routes: Mutex<RouteCache>,
    started: Instant,
    /// Why a broker was last taken to be unavailable.
    failure: Mutex<Option<ClientError>>,
    /// Of stores. Made when a fragment is first read from its URL.
    http: OnceLock<Option<reqwest::Client>>,
    series: Option<Series>,
    options: ClientOptions,
}

/// A client of brokers. Cheap to clone.
#[derive(Clone)]
pub struct JournalClient {
    inner: Arc<Inner>,
}

/// Where a request is sent.
pub(crate) struct Call {
    pub(crate) rpc: Rpc<CountedChannel>,
    pub(crate) endpoint: Arc<str>,
}

impl JournalClient {
    /// A client of the brokers at `addresses`: `http(s)://host:port` or `unix:///path`, or several of them, separated by
    /// commas, of which the first that can be reached is asked. Connects when it is used.
    ///
    /// # Errors
    /// If an address is malformed.
    pub fn new(addresses: &str, options: ClientOptions) -> Result<JournalClient, ClientError> {
        let channels = Channels::new(&options, "protocol.Journal");
        let brokers = Brokers::new(addresses);
        for address in brokers.configured() {
            channels.get(address)?;
        }
        let capacity = if options.cache_size == 0 { ROUTES_DEFAULT } else { options.cache_size };
        let routes = Mutex::new(RouteCache::new(capacity, options.cache_ttl));
        let started = options.clock.now();
        let series = options.metrics.as_ref().map(Series::new);
        Ok(JournalClient {
            inner: Arc::new(Inner {
                brokers: Mutex::new(brokers),
                channels,
                routes,
                started,
                failure: Mutex::default(),
                http: OnceLock::new(),
                series,
                options,
            }),
        })
    }

    /// What this client was made of.
    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// Why a broker was last taken to be unavailable: what a request that waits, waits for to end.
    pub fn last_failure(&self) -> Option<ClientError> {
        self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether readers fetch stored fragments from their stores themselves, by URLs which brokers sign, rather than through
    /// a broker: with a configured cache of routes, as the protocol has it.
    pub fn reads_directly(&self) -> bool {
        self.options().cache_size > 0
    }

    /// Where the client counts, if it does.
    pub(crate) fn series(&self) -> Option<&Series> {
        self.inner.series.as_ref()
    }

    /// A client of stores.
    pub(crate) fn http(&self) -> Option<reqwest::Client> {
        self.inner.http.get_or_init(crate::reader::http_client).clone()
    }

    /// All journals which `selector` matches, in order of names. Waits until a broker is reachable.
    pub async fn list(&self, selector: LabelSelector) -> Result<ListResponse, ClientError> {
        let request = ListRequest { selector: Some(selector), ..Default::default() };
        request.validate().map_err(ClientError::Request)?;
        self.until_ready("List", ClientError::is_unavailable, || self.list_once(request.clone())).await
    }

    async fn list_once(&self, request: ListRequest) -> Result<ListResponse, ClientError> {
        let mut call = self.any_broker()?;
        let grant = Grant::new(Capability::LIST, request.selector.clone().unwrap_or_default());
        let pages = call.rpc.list(self.options().request(request, grant)).await.map_err(ClientError::Grpc);
        let mut pages = self.note_failure("", &call, pages)?.into_inner();
        let mut all: Option<ListResponse> = None;
        while let Some(page) =
            self.note_failure("", &call, pages.message().await.map_err(ClientError::Grpc))?
        {
            match &mut all {
                None => all = Some(check_first_page(page)?),
                Some(all) => all.journals.extend(check_next_page(page)?),
            }
        }
        let all = all.ok_or_else(|| ClientError::Response(Invalid::new("List ended without a response")))?;
        self.observe_listing(&all);
        Ok(all)
    }

    /// Creates, changes and deletes specifications: all of them or none. Waits until a broker is reachable; a request
    /// which was sent is not repeated.
    ///
    /// # Errors
    /// A status which is not OK, such as ETCD_TRANSACTION_FAILED, is an error.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyResponse, ClientError> {
        request.validate().map_err(ClientError::Request)?;
        let call = || async {
            let mut call = self.any_broker()?;
            let grant = Grant::everywhere(Capability::APPLY).brief();
            let request = self.options().request(request.clone(), grant);
            let outcome = call.rpc.apply(request).await.map_err(ClientError::Grpc);
            self.note_failure("", &call, outcome).map(tonic::Response::into_inner)
        };
        let response = self.until_ready("Apply", ClientError::is_unreachable, call).await?;
        response.validate().map_err(ClientError::Response)?;
        ok_or_status("Apply", response.status(), response)
    }

    /// All fragments of a journal which `request` asks for: pages are joined. Waits until a broker is reachable.
    pub async fn fragments(&self, mut request: FragmentsRequest) -> Result<FragmentsResponse, ClientError> {
        let mut all = self.fragments_page(&request).await?;
        while all.next_page_token != 0 {
            if all.next_page_token <= request.next_page_token {
                let problem = format!("page token {} does not advance", all.next_page_token);
                return Err(ClientError::Response(Invalid::new(problem)));
            }
            request.next_page_token = all.next_page_token;
            let page = self.fragments_page(&request).await?;
            all.fragments.extend(page.fragments);
            all.next_page_token = page.next_page_token;
        }
        Ok(all)
    }

    async fn fragments_page(&self, request: &FragmentsRequest) -> Result<FragmentsResponse, ClientError> {
        request.validate().map_err(ClientError::Request)?;
        let journal = bare_name(&request.journal);
        let once = || async {
            let mut call = self.dispatch(journal, Need::Any)?;
            let grant = Grant::journal(Capability::READ, journal);
            let request = self.options().request(request.clone(), grant);
            let outcome = call.rpc.list_fragments(request).await.map_err(ClientError::Grpc);
            self.note_failure(journal, &call, outcome).map(tonic::Response::into_inner)
        };
        let retry = |error: &ClientError| error.is_unavailable();
        let response = self.until_ready("ListFragments", retry, once).await?;
        response.validate().map_err(ClientError::Response)?;
        self.observe(journal, response.header.as_ref());
        ok_or_status(journal, response.status(), response)
    }

    /// Asks a broker for the health of a fragment store. An unhealthy store is a status of the response.
    pub async fn store_health(
        &self,
        request: FragmentStoreHealthRequest,
    ) -> Result<FragmentStoreHealthResponse, ClientError> {
        request.validate().map_err(ClientError::Request)?;
        let once = || async {
            let mut call = self.any_broker()?;
            let grant = Grant::everywhere(Capability::READ);
            let request = self.options().request(request.clone(), grant);
            let outcome = call.rpc.fragment_store_health(request).await.map_err(ClientError::Grpc);
            self.note_failure("", &call, outcome).map(tonic::Response::into_inner)
        };
        let response = self.until_ready("FragmentStoreHealth", ClientError::is_unreachable, once).await?;
        response.validate().map_err(ClientError::Response)?;
        Ok(response)
    }

    /// Repeats `once` for as long as `retry` says of its error, until the client's tasks are cancelled.
    pub(crate) async fn until_ready<T, F>(
        &self,
        what: &str,
        retry: impl Fn(&ClientError) -> bool,
        once: impl Fn() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let (mut backoff, mut outage) = (backoff(), Outage::default());
        loop {
            let error = match once().await {
                Err(error) if retry(&error) => error,
                outcome => return outcome,
            };
            outage.failed(&error, self.options().clock.now(), |failing| {
                tracing::warn!(%error, %failing, "{what} waits for a broker");
            });
            self.pause(backoff.next()).await?;
        }
    }

    /// Waits for `duration`, or fails when the client's tasks are cancelled.
    pub(crate) async fn pause(&self, duration: Duration) -> Result<(), ClientError> {
        tokio::select! {
            biased;
            () = self.inner.options.tasks.token().cancelled() => Err(ClientError::Cancelled),
            () = self.inner.options.clock.sleep(duration) => Ok(()),
        }
    }

    /// Where to send what any broker serves.
    pub(crate) fn any_broker(&self) -> Result<Call, ClientError> {
        let endpoint = self.brokers().choose(|endpoint| self.inner.channels.failed_at(endpoint));
        self.call(endpoint)
    }

    /// Where to send what the journal's brokers serve: to the one which serves it best, as far as is known.
    pub(crate) fn dispatch(&self, journal: &str, need: Need) -> Result<Call, ClientError> {
        let inner = &*self.inner;
        let route = self.routes().get(journal, self.since_start());
        let failed = |endpoint: &str| inner.channels.failed_at(endpoint).is_some();
        let random = if need == Need::Any { inner.options.entropy.u64() } else { 0 };
        let member =
            route.as_deref().and_then(|route| choose(route, need, &inner.options.zone, failed, random));
        member.map_or_else(|| self.any_broker(), |endpoint| self.call(endpoint.into()))
    }

    fn call(&self, endpoint: Arc<str>) -> Result<Call, ClientError> {
        Ok(Call { rpc: rpc_of(self.inner.channels.get(&endpoint)?), endpoint })
    }

    /// Learns from the outcome of a call: a broker which is gone is not asked again soon, nor is the route followed which
    /// led to it. The empty name is no journal.
    pub(crate) fn note_failure<T>(
        &self,
        journal: &str,
        call: &Call,
        outcome: Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        if let Err(error) = &outcome {
            self.note_error(journal, &call.endpoint, error);
        }
        outcome
    }

    /// As [`JournalClient::note_failure`], of a call to `endpoint`.
    pub(crate) fn note_error(&self, journal: &str, endpoint: &str, error: &ClientError) {
        if error.is_unavailable() {
            self.routes().remove(journal);
        }
        if error.is_unavailable() {
            *self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
        if error.is_connection() {
            self.inner.channels.report_failed(endpoint);
            self.brokers().forget(endpoint);
        }
    }

    /// Learns a journal's route from a response.
    pub(crate) fn observe(&self, journal: &str, header: Option<&Header>) {
        if let Some(route) = header.and_then(|header| header.route.as_ref()) {
            self.routes().update(journal, route, self.since_start());
            self.brokers().learn(route);
        }
    }

    /// Learns the routes of a listing.
    pub(crate) fn observe_listing(&self, listing: &ListResponse) {
        let (mut routes, mut brokers, now) = (self.routes(), self.brokers(), self.since_start());
        for journal in &listing.journals {
            if let (Some(spec), Some(route)) = (&journal.spec, &journal.route) {
                routes.update(&spec.name, route, now);
                brokers.learn(route);
            }
        }
    }

    fn routes(&self) -> MutexGuard<'_, RouteCache> {
        self.inner.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn brokers(&self) -> MutexGuard<'_, Brokers> {
        self.inner.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_start(&self) -> Duration {
        self.inner.options.clock.now().saturating_duration_since(self.inner.started)
    }
}

fn rpc_of(channel: CountedChannel) -> Rpc<CountedChannel> {
    Rpc::new(channel).max_decoding_message_size(runtime::grpc::MAX_MESSAGE_RECV_CLIENT)
}

/// The first message of a listing: it alone has a status and a header.
pub(crate) fn check_first_page(page: ListResponse) -> Result<ListResponse, ClientError> {
    page.validate().map_err(ClientError::Response)?;
    ok_or_status("List", page.status(), page)
}

/// A later message of a listing, which has journals and nothing else.
pub(crate) fn check_next_page(
    page: ListResponse,
) -> Result<Vec<proto::protocol::list_response::Journal>, ClientError> {
    if page.journals.is_empty() {
        return Err(ClientError::Response(Invalid::new("unexpected empty ListResponse continuation")));
    }
    for (index, journal) in page.journals.iter().enumerate() {
        journal.validate().map_err(|e| ClientError::Response(e.within(format!("Journals[{index}]"))))?;
    }
    Ok(page.journals)
}

/// A journal's name without its `;meta`.
pub(crate) fn bare_name(journal: &str) -> &str {
    journal.split_once(';').map_or(journal, |(name, _)| name)
}

fn ok_or_status<T>(item: &str, status: Status, value: T) -> Result<T, ClientError> {
    match status {
        Status::Ok => Ok(value),
        status => Err(ClientError::journal(item, status)),
    }
}
