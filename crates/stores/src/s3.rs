//! Clients of S3 and of what speaks its protocol.
//!
//! Settings of new objects (access list, storage class, encryption) are headers of the requests which make them, and of
//! no others: the requests which send the parts of a large object must not have them. Hence a client of its own makes
//! objects.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, HeaderMap, HeaderValue, MultipartId, MultipartUpload, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, StaticCredentialProvider, UploadPart,
};
use runtime::{Clock, TaskGroup};

use crate::aws_profile::{Profile, ProfileCredentials, ProfileFiles};
use crate::cloud_place::{Clients, Purpose, Uploads};
use crate::error::is_transient;
use crate::location::S3Arguments;
use crate::odd_keys::Tolerant;
use crate::retry::Retries;
use crate::{Environment, StoreTimes};

/// Environment variables of further ways to credentials, which the client follows itself.
const CREDENTIAL_VARIABLES: &[&str] = &[
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

/// The clients of `bucket`. Reads the files of profiles, which blocks.
///
/// # Errors
/// A text which says what is missing.
pub(crate) fn clients(
    bucket: &str,
    arguments: &S3Arguments,
    environment: &Environment,
    times: &StoreTimes,
    (clock, tasks, retries): (Clock, TaskGroup, Retries),
) -> Result<Clients, String> {
    let named = arguments.profile.as_deref();
    let name = named.or_else(|| environment.get("AWS_PROFILE")).unwrap_or("default");
    let files = ProfileFiles::of(environment);
    let profile = files.read(name)?;
    if profile.is_none() && named.is_some() {
        return Err(format!("there is no AWS profile {name:?}"));
    }
    let profile = profile.unwrap_or_default();
    let setup = Setup {
        bucket,
        region: region(arguments, environment, &profile).ok_or_else(|| {
            format!("missing AWS region configuration for profile {:?}", named.unwrap_or(""))
        })?,
        endpoint: endpoint(arguments, environment),
        times: *times,
    };
    let text = |error: Error| error.to_string();
    let own = if named.is_none() { of_environment(environment)? } else { None };
    let own = match own {
        Some(own) => Some(own),
        // Without a name, a web identity goes before the default profile.
        None if named.is_none() && environment.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() => None,
        None => {
            profile.credential().map_err(|problem| format!("AWS profile {name:?}: {problem}"))?.map(|first| {
                let (name, seams) = (name.to_owned(), (clock, tasks));
                let credentials =
                    ProfileCredentials::new(files, name, first, times.reread_credentials, seams);
                Arc::new(credentials) as AwsCredentialProvider
            })
        }
    };
    let requests = setup.builder(Purpose::Requests, None);
    let requests = match own {
        Some(own) => requests.with_credentials(own),
        None => by_other_ways(requests, named.is_some().then_some(&profile), environment, name)?,
    };
    let requests = requests.build().map_err(text)?;
    let client = |purpose, headers: Option<HeaderMap>| {
        let builder = setup.builder(purpose, headers).with_credentials(requests.credentials().clone());
        builder.build().map(Arc::new).map_err(text)
    };
    let parts = client(Purpose::Uploads, None)?;
    let headers = headers(arguments)?;
    let makes = if headers.is_empty() { parts.clone() } else { client(Purpose::Uploads, Some(headers))? };
    let options = Purpose::Requests.options(true, times);
    let fetcher = ReqwestConnector::default().connect(&options).map_err(text)?;
    let reads = client(Purpose::Reads, None)?;
    let requests = Arc::new(requests);
    Ok(Clients {
        reads,
        uploads: Box::new(S3Uploads { makes, parts, retries }),
        pages: requests.clone(),
        signer: requests.clone(),
        signed_path: str::to_owned,
        requests,
        fetcher,
    })
}

/// Where the region is said: in the URL, the environment, or the profile.
fn region(arguments: &S3Arguments, environment: &Environment, profile: &Profile) -> Option<String> {
    let region = arguments.region.as_deref().or_else(|| environment.get("AWS_REGION"));
    let region = region.or_else(|| environment.get("AWS_DEFAULT_REGION")).or_else(|| profile.get("region"));
    region.map(str::to_owned)
}

fn endpoint(arguments: &S3Arguments, environment: &Environment) -> Option<String> {
    let endpoint = arguments.endpoint.as_deref().or_else(|| environment.get("AWS_ENDPOINT_URL_S3"));
    let endpoint = endpoint.or_else(|| environment.get("AWS_ENDPOINT_URL"))?;
    // As the vendor's libraries have it, without a scheme it is TLS.
    Some(if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") })
}

fn of_environment(environment: &Environment) -> Result<Option<AwsCredentialProvider>, String> {
    let key_id = environment.get("AWS_ACCESS_KEY_ID");
    match (key_id, environment.get("AWS_SECRET_ACCESS_KEY")) {
        (None, None) => Ok(None),
        (Some(key_id), Some(secret_key)) => {
            let token = environment.get("AWS_SESSION_TOKEN").map(str::to_owned);
            let credential = object_store::aws::AwsCredential {
                key_id: key_id.to_owned(),
                secret_key: secret_key.to_owned(),
                token,
            };
            Ok(Some(Arc::new(StaticCredentialProvider::new(credential))))
        }
        (Some(_), None) => Err("AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY".to_owned()),
        (None, Some(_)) => Err("AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID".to_owned()),
    }
}

/// Web identity, container and instance metadata. Of a profile that was named, only what it says itself.
fn by_other_ways(
    builder: AmazonS3Builder,
    named: Option<&Profile>,
    environment: &Environment,
    name: &str,
) -> Result<AmazonS3Builder, String> {
    if let Some(profile) = named {
        let (Some(file), Some(role)) = (profile.get("web_identity_token_file"), profile.get("role_arn"))
        else {
            return Err(format!("AWS profile {name:?} has no credentials"));
        };
        let builder = builder.with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file);
        return Ok(builder.with_config(AmazonS3ConfigKey::RoleArn, role));
    }
    Ok(CREDENTIAL_VARIABLES.iter().fold(builder, |builder, variable| {
        let key = variable.to_ascii_lowercase().parse::<AmazonS3ConfigKey>();
        match (environment.get(variable), key) {
            (Some(value), Ok(key)) => builder.with_config(key, value),
            _ => builder,
        }
    }))
}

/// Headers of the requests which make objects.
fn headers(arguments: &S3Arguments) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, header, value) in [
        ("acl", "x-amz-acl", &arguments.acl),
        ("storageClass", "x-amz-storage-class", &arguments.storage_class),
        ("sse", "x-amz-server-side-encryption", &arguments.sse),
        ("sseKMSKeyId", "x-amz-server-side-encryption-aws-kms-key-id", &arguments.sse_kms_key_id),
    ] {
        let Some(value) = value else { continue };
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("argument {name}={value:?} cannot be sent as a header"))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

/// What all clients of a bucket share.
struct Setup<'a> {
    bucket: &'a str,
    region: String,
    endpoint: Option<String>,
    times: StoreTimes,
}

impl Setup<'_> {
    fn builder(&self, purpose: Purpose, headers: Option<HeaderMap>) -> AmazonS3Builder {
        let plain_http = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut options = purpose.options(plain_http, &self.times);
        if let Some(headers) = headers {
            options = options.with_default_headers(headers);
        }
        let builder = AmazonS3Builder::new()
            .with_bucket_name(self.bucket)
            .with_region(&self.region)
            .with_client_options(options)
            .with_retry(purpose.retries())
            .with_http_connector(Tolerant)
            // Deleting one object takes no request for many, which not every server knows.
            .with_disable_bulk_delete(true);
        match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false),
            // A certificate for all buckets covers no name with a dot.
            None => builder.with_virtual_hosted_style_request(!self.bucket.contains('.')),
        }
    }
}

/// Makes objects by one client, and sends parts by another.
#[derive(Debug)]
struct S3Uploads {
    makes: Arc<AmazonS3>,
    parts: Arc<AmazonS3>,
    retries: Retries,
}

#[async_trait]
impl Uploads for S3Uploads {
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.makes.put_opts(path, payload, options).await
    }

    async fn put_multipart(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let id = self.makes.create_multipart_opts(path, options).await?;
        Ok(Box::new(S3Upload {
            client: self.parts.clone(),
            path: path.clone(),
            id,
            begun: 0,
            parts: Arc::default(),
            retries: self.retries.clone(),
        }))
    }
}

#[derive(Debug)]
struct S3Upload {
    client: Arc<AmazonS3>,
    path: Path,
    id: MultipartId,
    begun: usize,
    /// Parts which were sent, by their number.
    parts: Arc<Mutex<Vec<(usize, PartId)>>>,
    retries: Retries,
}

#[async_trait]
impl MultipartUpload for S3Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.begun;
        self.begun += 1;
        let (client, path, id) = (self.client.clone(), self.path.clone(), self.id.clone());
        let (parts, retries) = (self.parts.clone(), self.retries.clone());
        Box::pin(async move {
            let mut attempt = 0;
            loop {
                let error = match client.put_part(&path, &id, number, data.clone()).await {
                    Ok(part) => {
                        parts.lock().unwrap_or_else(PoisonError::into_inner).push((number, part));
                        return Ok(());
                    }
                    Err(error) => error,
                };
                if !is_transient(&error) || !retries.wait(attempt).await {
                    return Err(error);
                }
                attempt += 1;
            }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        parts.sort_by_key(|(number, _)| *number);
        assert_eq!(parts.len(), self.begun, "an upload is completed once every part was sent");
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        self.client.complete_multipart(&self.path, &self.id, parts).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.client.abort_multipart(&self.path, &self.id).await
    }
}

#[cfg(test)]
mod tests;
