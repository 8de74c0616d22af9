//! The HTTP API: the last rides of a bike.
//!
//! `GET /api/bikes?id=N` is answered by the process whose shard reads the rides of the bike; others pass the request on to
//! it, with the resolution's header, and their answer is that one's. Where the process has keys of access tokens, callers need
//! READ over that shard.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use client::WatchedList;
use consumer::{Access, Capability, InitContext, ResolveArgs};
use proto::consumer::Status;
use proto::labels;
use proto::protocol::{Header, LabelSelector};
use runtime::BoxError;
use runtime::grpc::chain_text;
use tower::ServiceExt;

use crate::{BIKES_PATH, RIDE_TYPE, RideStore, Trip, header};

/// The shard which answered.
const SHARD_ID: HeaderName = HeaderName::from_static("x-shard-id");
/// How the request was resolved.
const RESOLVED: HeaderName = HeaderName::from_static("x-header");
/// In a request which was passed on: how it was resolved.
const PROXIED: HeaderName = HeaderName::from_static("x-proxyheader");

/// See the module. Cheap to clone.
#[derive(Clone)]
struct BikesApi {
    context: InitContext,
    rides: WatchedList,
}

/// The API of a process. Starts to watch the journals of rides.
///
/// # Errors
/// Never, as the selector is valid.
pub(crate) fn router(context: &InitContext) -> Result<Router, BoxError> {
    let rides = LabelSelector::include([(labels::MESSAGE_TYPE, RIDE_TYPE)]);
    let rides = WatchedList::start(context.journals.clone(), rides, &context.tasks)?;
    let api = BikesApi { context: context.clone(), rides };
    Ok(Router::new().route(BIKES_PATH, get(bikes)).with_state(api))
}

async fn bikes(State(api): State<BikesApi>, uri: Uri, headers: HeaderMap) -> Response {
    let access = match api.context.admission.admit_http(&headers, Capability::READ) {
        Ok(access) => access,
        Err(refused) => return refused.into_response(),
    };
    let answered = api.answer(uri.query().unwrap_or_default(), headers.get(PROXIED), &access).await;
    // Any other status would claim to know whose fault it is.
    answered.unwrap_or_else(|error| (StatusCode::IM_A_TEAPOT, chain_text(&*error) + "\n").into_response())
}

impl BikesApi {
    async fn answer(
        &self,
        query: &str,
        proxied: Option<&HeaderValue>,
        access: &Access,
    ) -> Result<Response, BoxError> {
        let bike_id = bike_of(query)?;
        let proxied = proxied.map(|value| header::from_json(value.as_bytes())).transpose();
        let proxied = proxied.map_err(|error| format!("{PROXIED}: {error}"))?;
        let shard = self.shard_of(bike_id, access).await?;
        let args = ResolveArgs {
            shard: &shard,
            may_proxy: proxied.is_none(),
            proxy_header: proxied.as_ref(),
            visible: Some(&access.selector),
            ..ResolveArgs::default()
        };
        let resolution = self.context.resolver.resolve(args).await?;
        if resolution.status != Status::Ok {
            return Err(format!("shard {shard}: {}", resolution.status.as_str_name()).into());
        }
        if !resolution.is_local {
            return self.ask(bike_id, &shard, &resolution.header).await;
        }
        let reader = resolution.reader::<RideStore>();
        let reader = reader.ok_or_else(|| format!("shard {shard} is not served"))?;
        answer_of(&shard, &resolution.header, &reader.trips(bike_id).await?)
    }

    /// The shard which has the rides of a bike, among those that may be seen.
    async fn shard_of(&self, bike_id: u64, access: &Access) -> Result<String, BoxError> {
        self.rides.ready().await?;
        let partitions = self.rides.partitions();
        let target = partitions.modulo(bike_id.to_string().as_bytes());
        let journal = &target.map_err(|error| format!("journals of {RIDE_TYPE}: {error}"))?.journal;
        let shards = self.context.resolver.shards_with_source(journal.as_str());
        let shard = shards.iter().find(|spec| access.reaches(&spec.labels_with_id()));
        Ok(shard.ok_or_else(|| format!("no shard reads {journal}"))?.id.clone())
    }

    /// The answer of the process which a header names.
    async fn ask(&self, bike_id: u64, shard: &str, header: &Header) -> Result<Response, BoxError> {
        let (own, _, ()) = self.context.peers.request((), Capability::READ, shard).into_parts();
        let mut request =
            Request::get(format!("{BIKES_PATH}?id={bike_id}")).body(tonic::body::Body::empty())?;
        *request.headers_mut() = own.into_headers();
        request.headers_mut().insert(PROXIED, HeaderValue::from_bytes(&header::to_json(header)?)?);
        let (head, body) = self.context.peers.channel(header)?.oneshot(request).await?.into_parts();
        let mut answer = Response::new(Body::new(body));
        (*answer.status_mut(), *answer.headers_mut()) = (head.status, head.headers);
        Ok(answer)
    }
}

/// The number of a bike, as the query has it.
fn bike_of(query: &str) -> Result<u64, BoxError> {
    let mut given = url::form_urlencoded::parse(query.as_bytes());
    let (_, id) =
        given.find(|(name, _)| name == "id").ok_or("expected ?id=N, N being the number of a bike")?;
    Ok(id.parse().map_err(|_| format!("id is {id:?}; expected the number of a bike"))?)
}

/// Rides as lines of JSON.
fn answer_of(shard: &str, header: &Header, trips: &[Trip]) -> Result<Response, BoxError> {
    let mut lines = Vec::new();
    for trip in trips {
        serde_json::to_writer(&mut lines, trip)?;
        lines.push(b'\n');
    }
    let mut answer = Response::new(Body::from(lines));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(labels::CONTENT_TYPE_JSON_LINES));
    headers.insert(SHARD_ID, HeaderValue::from_bytes(shard.as_bytes())?);
    headers.insert(RESOLVED, HeaderValue::from_bytes(&header::to_json(header)?)?);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_bike() {
        for (query, bike) in [
            ("id=7", Ok(7)),
            ("id=0", Ok(0)),
            ("id=%31%32", Ok(12)),
            ("other=1&id=18446744073709551615", Ok(u64::MAX)),
            ("id=1&id=2", Ok(1)),
            ("", Err("expected ?id=N, N being the number of a bike")),
            ("ID=7", Err("expected ?id=N, N being the number of a bike")),
            ("id", Err("id is \"\"; expected the number of a bike")),
            ("id=", Err("id is \"\"; expected the number of a bike")),
            ("id=-7", Err("id is \"-7\"; expected the number of a bike")),
            ("id=1%20OR%201=1", Err("id is \"1 OR 1=1\"; expected the number of a bike")),
            ("id=18446744073709551616", Err("id is \"18446744073709551616\"; expected the number of a bike")),
            ("id=%ff", Err("id is \"\u{fffd}\"; expected the number of a bike")),
        ] {
            let found = bike_of(query).map_err(|error| error.to_string());
            assert_eq!(found, bike.map_err(str::to_owned), "{query:?}");
        }
    }
}
