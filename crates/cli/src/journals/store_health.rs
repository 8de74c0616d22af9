//! `courant journals store-health`: asks a broker whether a store of fragments works.

use crate::output::print;
use crate::session::Session;
use proto::protocol::{FragmentStoreHealthRequest, Status};
use runtime::BoxError;

/// Options.
#[derive(Debug, clap::Args)]
pub struct StoreHealthArgs {
    /// The store, as specifications name it.
    #[arg(value_name = "STORE_URL")]
    store: String,
    /// Also check that objects can be deleted, below this prefix in the store; an empty one is the store's root.
    #[arg(long, value_name = "PREFIX")]
    check_delete_prefix: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If the store does not work.
pub async fn run(session: &Session, args: StoreHealthArgs) -> Result<(), BoxError> {
    let store = args.store;
    let request = FragmentStoreHealthRequest {
        fragment_store: store.clone(),
        check_delete: args.check_delete_prefix.is_some(),
        check_delete_prefix: args.check_delete_prefix.unwrap_or_default(),
    };
    let health = session.client.store_health(request);
    let health = session.request(format!("checking the fragment store {store}"), health).await?;
    match health.status() {
        Status::Ok => Ok(print(&format!("Fragment store {store} is healthy\n"))?),
        Status::FragmentStoreUnhealthy => {
            Err(format!("fragment store {store} is unhealthy: {}", health.store_health_error).into())
        }
        status => Err(format!("checking the fragment store {store}: {}", status.as_str_name()).into()),
    }
}
