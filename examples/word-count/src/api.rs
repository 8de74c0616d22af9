//! The service `word_count.NGram`.
//!
//! Where the process has keys of access tokens, `Publish` needs APPEND over the journals of deltas, and `Query` needs READ over
//! the shard which answers. A shard that the token does not select is as one that does not exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::message::mapping::MappingError;
use ::prost::Message;
use ::proto::consumer::Status as ShardStatus;
use ::proto::protocol::LabelSelector;
use ::proto::{Validate, labels};
use client::{AppendService, Publisher, WatchedList};
use consumer::{Access, Capability, InitContext, ResolveArgs};
use runtime::{BoxError, grpc};
use store_rocksdb::{RocksReader, RocksStore, StoreError};
use tonic::{Request, Response, Status};

use crate::count::decode_count;
use crate::proto::n_gram_client::NGramClient;
use crate::proto::n_gram_server::NGram;
use crate::proto::{NGramCount, PublishRequest, PublishResponse, QueryRequest, QueryResponse};
use crate::{DELTA_TYPE, n_grams};

/// What a token must allow for each method.
pub(crate) const METHODS: [(&str, Capability); 2] =
    [("/word_count.NGram/Publish", Capability::APPEND), ("/word_count.NGram/Query", Capability::READ)];

/// Bytes of the longest answer: as much as processes of the group receive from each other.
const ANSWER_BYTES_MAX: usize = grpc::MAX_MESSAGE_RECV_SERVER;

/// Bytes which wait to be appended, beyond which a text waits for its own.
const PUBLISH_BYTES_MAX: u64 = 16 << 20;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct NGramApi {
    n: usize,
    context: InitContext,
    deltas: WatchedList,
    publisher: Arc<Publisher>,
}

impl NGramApi {
    /// Starts to watch the journals of deltas.
    ///
    /// # Errors
    /// Never, as the selector is valid.
    pub(crate) fn start(n: usize, context: &InitContext) -> Result<NGramApi, BoxError> {
        let selector = LabelSelector::include([(labels::MESSAGE_TYPE, DELTA_TYPE)]);
        let deltas = WatchedList::start(context.journals.clone(), selector, &context.tasks)?;
        let appends = AppendService::new(context.journals.clone(), context.tasks.child("appends"));
        let publisher = Arc::new(Publisher::new(appends, None));
        Ok(NGramApi { n, context: context.clone(), deltas, publisher })
    }

    /// Refuses those who may not append to each journal of deltas: n-grams go to any of them.
    async fn authorize_publish(&self, access: &Access) -> Result<(), Status> {
        let listing = self.deltas.ready().await.map_err(failed)?;
        for spec in listing.journals.iter().filter_map(|journal| journal.spec.as_ref()) {
            access.require(&spec.labels_with_name(), &spec.name)?;
        }
        Ok(())
    }

    /// Publishes the n-grams of a text, in lower case, one by one: a failure leaves those before it published.
    async fn publish_text(&self, text: &str) -> Result<(), BoxError> {
        self.deltas.ready().await?;
        let partitions = self.deltas.partitions();
        let mut last = BTreeMap::new();
        for n_gram in n_grams(&text.to_lowercase(), self.n) {
            let target = partitions.modulo(n_gram.as_bytes())?.clone();
            let delta = NGramCount { n_gram, count: 1, ..NGramCount::default() };
            let appended = self.publisher.publish_committed(|_| Ok(target.clone()), delta)?;
            // An append which fails fails those behind it, so the last one of each journal tells of all.
            last.insert(target.journal, appended);
            if self.publisher.appends().buffered_bytes() > PUBLISH_BYTES_MAX {
                for appended in std::mem::take(&mut last).into_values() {
                    appended.await?;
                }
            }
        }
        for appended in last.into_values() {
            appended.await?;
        }
        Ok(())
    }

    /// The shard which counts an n-gram, among those that may be seen.
    async fn shard_of(&self, n_gram: &str, access: &Access) -> Result<String, Status> {
        self.deltas.ready().await.map_err(failed)?;
        let partitions = self.deltas.partitions();
        let target = partitions.modulo(n_gram.as_bytes()).map_err(unmapped)?;
        let shards = self.context.resolver.shards_with_source(target.journal.as_str());
        let shard = shards.iter().find(|spec| access.reaches(&spec.labels_with_id()));
        let none = || Status::not_found(format!("no shard reads {}", target.journal));
        shard.map(|spec| spec.id.clone()).ok_or_else(none)
    }

    async fn query_shard(&self, request: QueryRequest, access: &Access) -> Result<QueryResponse, Status> {
        let shard = &match request.shard.as_str() {
            "" => self.shard_of(&request.prefix, access).await?,
            shard => shard.to_owned(),
        };
        let args = ResolveArgs {
            shard,
            may_proxy: request.header.is_none(),
            proxy_header: request.header.as_ref(),
            visible: Some(&access.selector),
            ..ResolveArgs::default()
        };
        let resolution = self.context.resolver.resolve(args).await.map_err(failed)?;
        if resolution.status != ShardStatus::Ok {
            return Err(Status::unavailable(format!("shard {shard}: {}", resolution.status.as_str_name())));
        }
        if !resolution.is_local {
            let channel = self.context.peers.channel(&resolution.header).map_err(failed)?;
            let header = Some(resolution.header);
            let proxied = QueryRequest { header, prefix: request.prefix, shard: shard.clone() };
            let proxied = self.context.peers.request(proxied, Capability::READ, shard);
            let mut peer = NGramClient::new(channel).max_decoding_message_size(grpc::MAX_MESSAGE_RECV_CLIENT);
            return Ok(peer.query(proxied).await?.into_inner());
        }
        let closed = || Status::unavailable(format!("shard {shard} is not served"));
        counts(resolution.reader::<RocksStore>().ok_or_else(closed)?, request.prefix).await
    }
}

/// The counts of n-grams which begin with `prefix`.
async fn counts(reader: RocksReader, prefix: String) -> Result<QueryResponse, Status> {
    let read = reader.read(move |view| {
        let (mut answer, mut bytes) = (QueryResponse::default(), 0);
        for entry in view.iter(prefix.as_bytes()) {
            let (key, value) = entry?;
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let gram = decode(&key, &value);
            bytes += gram.as_ref().map_or(0, |gram| gram.encoded_len() + GRAM_OVERHEAD);
            match gram {
                Ok(gram) if bytes <= ANSWER_BYTES_MAX => answer.grams.push(gram),
                Ok(_) => return Ok(Err(too_many(&prefix))),
                Err(error) => return Ok(Err(failed(error))),
            }
        }
        Ok::<_, StoreError>(Ok(answer))
    });
    read.await.map_err(|error| Status::unavailable(error.to_string()))?
}

/// Bytes of a field's tag and length.
const GRAM_OVERHEAD: usize = 6;

fn decode(key: &[u8], value: &[u8]) -> Result<NGramCount, BoxError> {
    let n_gram = std::str::from_utf8(key)?.to_owned();
    Ok(NGramCount { n_gram, count: decode_count(value)?, ..NGramCount::default() })
}

fn too_many(prefix: &str) -> Status {
    Status::resource_exhausted(format!(
        "n-grams which begin with {prefix:?} are more than {ANSWER_BYTES_MAX} bytes: ask for a longer prefix"
    ))
}

fn failed(error: impl Into<BoxError>) -> Status {
    grpc::status_of(&*error.into())
}

fn unmapped(error: MappingError) -> Status {
    Status::failed_precondition(format!("journals of {DELTA_TYPE}: {error}"))
}

#[tonic::async_trait]
impl NGram for NGramApi {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let (admission, access) = (&self.context.admission, Access::of(&request)?);
        let published = async {
            self.authorize_publish(&access).await?;
            self.publish_text(&request.into_inner().text).await.map_err(failed)
        };
        admission.before_expiry(&access, published).await?;
        Ok(Response::new(PublishResponse {}))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        let (admission, access) = (&self.context.admission, Access::of(&request)?);
        let request = request.into_inner();
        if let Some(header) = &request.header {
            header.validate().map_err(|error| Status::invalid_argument(format!("Header: {error}")))?;
        }
        let answer = admission.before_expiry(&access, self.query_shard(request, &access)).await?;
        Ok(Response::new(answer))
    }
}
