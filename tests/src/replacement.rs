//! Certificates and keys of a fleet are replaced while it is used, as docs/operations.md tells operators to.
//!
//! Connections which are open outlive their certificates. So at each step some processes are restarted: all others must
//! connect to them anew, and they to all others.

use std::time::Duration;

use auth::{Capability, Grant};
use proto::consumer::shard_client::ShardClient;
use proto::protocol::journal_client::JournalClient;
use runtime::BoxError;
use runtime::grpc::chain_text;
use tonic::Status;

use crate::caller::Caller;
use crate::fault::roll;
use crate::fleet::{Fleet, Kind};
use crate::ring::Step;
use crate::traffic::Traffic;

/// Longer than processes use what they have read from a file before they look at it again.
const NOTICED: Duration = Duration::from_secs(2);
/// Longest wait for what was replaced to be refused.
const REFUSED_LIMIT: Duration = Duration::from_secs(30);
/// How often brokers are asked.
const TICK: Duration = Duration::from_millis(200);

/// Replaces the authority, and with it all certificates. One of the brokers and one of the summers are restarted at each step.
/// `limit` is the longest that traffic may take to flow again after each.
pub async fn renew_certificates(
    fleet: &mut Fleet,
    traffic: &mut Traffic,
    limit: Duration,
    brokers: &[String],
    summers: &[String],
) -> Result<(), BoxError> {
    for (step, index) in Step::ALL.into_iter().zip(0..) {
        let former = fleet.replace_authority(step)?;
        traffic.let_pass(fleet, NOTICED).await?;
        // It reads certificates anew, but authorities only at its start.
        if step != Step::Use {
            let etcd = fleet.names(Kind::Etcd);
            fleet.kill(&etcd).await?;
            fleet.start_members(&etcd).await?;
        }
        let restarted = [brokers, summers].map(|names| names[index % names.len()].clone());
        roll(fleet, traffic, limit, &restarted).await.map_err(|err| format!("{step} authority: {err}"))?;
        if let Some(former) = former {
            wait_refused(fleet, &former).await?;
        }
    }
    Ok(())
}

/// Replaces the keys of brokers and of summers, each of which is restarted at each step. Clients are given the new keys before
/// the old ones are retired.
pub async fn rotate_keys(
    fleet: &mut Fleet,
    traffic: &mut Traffic,
    limit: Duration,
    names: &[String],
) -> Result<(), BoxError> {
    for step in Step::ALL {
        let former = fleet.replace_keys(step)?;
        if step == Step::Retire {
            traffic.replace_chunkers(fleet).await?;
        }
        roll(fleet, traffic, limit, names).await.map_err(|err| format!("{step} keys: {err}"))?;
        if let Some(former) = former {
            wait_refused(fleet, &former).await?;
        }
    }
    Ok(())
}

/// Waits until every broker and every summer refuses the caller.
async fn wait_refused(fleet: &mut Fleet, former: &Caller) -> Result<(), BoxError> {
    let deadline = fleet.clock().now() + REFUSED_LIMIT;
    let brokers = fleet.broker_urls().into_iter().map(|url| (Kind::Broker, url));
    let summers = fleet.summer_urls().into_iter().map(|url| (Kind::Summer, url));
    for (kind, url) in brokers.chain(summers).collect::<Vec<_>>() {
        loop {
            let answer = list(former, kind, &url).await;
            if answer.as_ref().is_err_and(is_refusal) {
                break;
            }
            if fleet.clock().now() > deadline {
                let answer = answer.map_or_else(|status| chain_text(&status), |()| "a listing".to_owned());
                return Err(format!("{url} answers with {answer} to who is to be refused").into());
            }
            fleet.let_pass(TICK).await?;
        }
    }
    Ok(())
}

/// Lists the journals of a broker, or the shards of a summer.
async fn list(caller: &Caller, kind: Kind, url: &str) -> Result<(), Status> {
    let channel = caller.channel(url).map_err(|error| Status::internal(error.to_string()))?;
    let grant = Grant::everywhere(Capability::LIST);
    match kind {
        Kind::Summer => {
            let request = caller.consumer_request(proto::consumer::ListRequest::default(), grant);
            ShardClient::new(channel).list(request).await.map(drop)
        }
        Kind::Broker | Kind::Etcd => {
            let request = caller.request(proto::protocol::ListRequest::default(), grant);
            JournalClient::new(channel).list(request).await.map(drop)
        }
    }
}

/// Whether a server does not accept the certificate, or the token.
fn is_refusal(status: &Status) -> bool {
    status.code() == tonic::Code::Unauthenticated
        || chain_text(status).contains("the server refuses this client")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_down_does_not_refuse() {
        let refusal = "transport error: the server refuses this client: received fatal alert: UnknownCA";
        for (status, expected) in [
            (Status::unauthenticated("invalid token: signature is invalid"), true),
            (Status::unavailable(refusal), true),
            (Status::unavailable("transport error: tcp connect error: Connection refused"), false),
            (Status::permission_denied("out of scope"), false),
        ] {
            assert_eq!(is_refusal(&status), expected, "{status}");
        }
    }
}
