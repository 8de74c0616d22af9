//! Clients of Azure's blob storage.

use std::sync::Arc;

use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::{Error, Result};
use runtime::Clock;
use url::Url;

use crate::azure_sas::{AzureSas, Keys};
use crate::cloud_place::{Clients, Purpose, Whole};
use crate::odd_keys::Tolerant;
use crate::{Environment, StoreTimes};

/// How a container is reached.
pub(crate) enum Access<'a> {
    /// By the account and its key in the environment.
    SharedKey,
    /// By an application of a tenant, whose secret is in the environment.
    Application { tenant: &'a str, account: &'a str },
}

/// The clients of `container`.
///
/// # Errors
/// A text which says what is missing.
pub(crate) fn clients(
    container: &str,
    access: &Access<'_>,
    environment: &Environment,
    times: &StoreTimes,
    clock: Clock,
) -> Result<Clients, String> {
    let needed = |name: &str| environment.get(name).ok_or_else(|| format!("{name} is not set"));
    let endpoint = environment.get("AZURE_STORAGE_SERVICE_ENDPOINT").map(|url| url.trim_end_matches('/'));
    let builder = MicrosoftAzureBuilder::new().with_container_name(container).with_http_connector(Tolerant);
    let builder = match access {
        Access::SharedKey => {
            let (account, key) = (needed("AZURE_ACCOUNT_NAME")?, needed("AZURE_ACCOUNT_KEY")?);
            builder.with_account(account).with_access_key(key)
        }
        Access::Application { tenant, account } => {
            let (id, secret) = (needed("AZURE_CLIENT_ID")?, needed("AZURE_CLIENT_SECRET")?);
            let builder =
                builder.with_account(*account).with_client_secret_authorization(id, secret, *tenant);
            match environment.get("AZURE_AUTHORITY_HOST") {
                Some(host) => builder.with_authority_host(host.trim_end_matches('/')),
                None => builder,
            }
        }
    };
    let plain_http = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let text = |error: Error| error.to_string();
    let first = Purpose::Requests;
    let mut builder =
        builder.with_client_options(first.options(plain_http, times)).with_retry(first.retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    let requests: Arc<MicrosoftAzure> = Arc::new(builder.clone().build().map_err(text)?);
    let client = |purpose: Purpose| {
        let builder = builder.clone().with_credentials(requests.credentials().clone());
        let builder =
            builder.with_client_options(purpose.options(plain_http, times)).with_retry(purpose.retries());
        builder.build().map(Arc::new).map_err(text)
    };
    let options = Purpose::Requests.options(true, times);
    let fetcher = ReqwestConnector::default().connect(&options).map_err(text)?;
    let (account, keys) = match access {
        Access::SharedKey => {
            (needed("AZURE_ACCOUNT_NAME")?, Keys::Shared(needed("AZURE_ACCOUNT_KEY")?.to_owned()))
        }
        Access::Application { account, .. } => {
            let (client, credentials) = (fetcher.clone(), requests.credentials().clone());
            (*account, Keys::Delegated { client, credentials })
        }
    };
    let of_vendor = || format!("https://{account}.blob.core.windows.net");
    let service = endpoint.map_or_else(of_vendor, str::to_owned);
    let service = Url::parse(&service)
        .map_err(|error| format!("AZURE_STORAGE_SERVICE_ENDPOINT {service:?}: {error}"))?;
    Ok(Clients {
        reads: client(Purpose::Reads)?,
        uploads: Box::new(Whole(client(Purpose::Uploads)?)),
        pages: requests.clone(),
        signer: Arc::new(AzureSas::new((account, container), service, keys, clock)),
        signed_path: str::to_owned,
        requests,
        fetcher,
    })
}
