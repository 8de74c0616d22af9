use runtime::Entropy;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn opened(arguments: &S3Arguments, variables: &[(&str, &str)]) -> Result<Clients, String> {
    let retries = Retries::new(Clock::system(), Entropy::seeded(7));
    let seams = (Clock::system(), TaskGroup::new("test"), retries);
    clients("bucket", arguments, &environment(variables), &StoreTimes::default(), seams)
}

fn problem(arguments: &S3Arguments, variables: &[(&str, &str)]) -> String {
    match opened(arguments, variables) {
        Ok(_) => panic!("expected an error"),
        Err(problem) => problem,
    }
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];

async fn signed(arguments: &S3Arguments, variables: &[(&str, &str)]) -> String {
    let clients = opened(arguments, variables).unwrap();
    let path = Path::parse("a/date=1/x y").unwrap();
    let ttl = std::time::Duration::from_secs(60);
    clients.signer.signed_url(http::Method::GET, &path, ttl).await.unwrap().to_string()
}

#[tokio::test]
async fn the_region_is_mandatory() {
    let none = S3Arguments::default();
    assert_eq!(problem(&none, &KEYS), "missing AWS region configuration for profile \"\"");
    for region in [("AWS_REGION", "us-east-1"), ("AWS_DEFAULT_REGION", "us-east-1")] {
        assert!(opened(&none, &[&KEYS[..], &[region]].concat()).is_ok());
    }
    let given = S3Arguments { region: Some("us-east-1".to_owned()), ..none };
    assert!(opened(&given, &KEYS).is_ok());
}

#[tokio::test]
async fn a_profile_that_is_named_goes_before_the_environment() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let credentials =
        "[one]\nregion=eu-west-1\naws_access_key_id=of-profile\naws_secret_access_key=secret\n[none]\n";
    std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
    let home = home.path().display().to_string();
    let home = [("HOME", home.as_str())];
    let named = |name: &str| S3Arguments { profile: Some(name.to_owned()), ..S3Arguments::default() };
    let with_keys = [&KEYS[..], &home].concat();
    let url = signed(&named("one"), &with_keys).await;
    assert!(url.starts_with("https://bucket.s3.eu-west-1.amazonaws.com/a/date%3D1/x%20y?"), "{url}");
    assert!(url.contains("X-Amz-Credential=of-profile%2F") && url.contains("X-Amz-Expires=60"), "{url}");

    // Without a name in the URL the environment's keys go first, and then its profile.
    let region = [("AWS_REGION", "us-west-2"), ("AWS_PROFILE", "one")];
    let url = signed(&S3Arguments::default(), &[&with_keys[..], &region].concat()).await;
    assert!(url.contains("X-Amz-Credential=key%2F") && url.contains("us-west-2"), "{url}");
    let url = signed(&S3Arguments::default(), &[&home[..], &region].concat()).await;
    assert!(url.contains("X-Amz-Credential=of-profile%2F") && url.contains("us-west-2"), "{url}");

    let missing = "missing AWS region configuration for profile \"none\"";
    assert_eq!(problem(&named("none"), &with_keys), missing);
    assert_eq!(problem(&named("other"), &with_keys), "there is no AWS profile \"other\"");
    let with_region = [&with_keys[..], &region].concat();
    assert_eq!(problem(&named("none"), &with_region), "AWS profile \"none\" has no credentials");
}

#[tokio::test]
async fn half_of_a_key_is_an_error() {
    let arguments = S3Arguments { region: Some("us-east-1".to_owned()), ..S3Arguments::default() };
    assert_eq!(problem(&arguments, &KEYS[..1]), "AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY");
}

#[tokio::test]
async fn an_endpoint_forces_the_bucket_into_the_path() {
    let region = Some("us-east-1".to_owned());
    let endpoint = Some("http://localhost:9000/".to_owned());
    let arguments = S3Arguments { region: region.clone(), endpoint, ..S3Arguments::default() };
    let url = signed(&arguments, &KEYS).await;
    assert!(url.starts_with("http://localhost:9000/bucket/a/date%3D1/"), "{url}");
    let arguments = S3Arguments { region, ..S3Arguments::default() };
    let variables = [&KEYS[..], &[("AWS_ENDPOINT_URL", "minio.example")]].concat();
    let url = signed(&arguments, &variables).await;
    assert!(url.starts_with("https://minio.example/bucket/a/"), "{url}");
}

#[test]
fn settings_of_objects_are_headers() {
    let arguments = S3Arguments {
        acl: Some("bucket-owner-full-control".to_owned()),
        storage_class: Some("STANDARD_IA".to_owned()),
        sse: Some("aws:kms".to_owned()),
        sse_kms_key_id: Some("key".to_owned()),
        ..S3Arguments::default()
    };
    let headers = headers(&arguments).unwrap();
    let value = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(value("x-amz-acl"), "bucket-owner-full-control");
    assert_eq!(value("x-amz-storage-class"), "STANDARD_IA");
    assert_eq!(value("x-amz-server-side-encryption"), "aws:kms");
    assert_eq!(value("x-amz-server-side-encryption-aws-kms-key-id"), "key");
    let odd = S3Arguments { acl: Some("a\nb".to_owned()), ..S3Arguments::default() };
    assert_eq!(super::headers(&odd).unwrap_err(), "argument acl=\"a\\nb\" cannot be sent as a header");
}
