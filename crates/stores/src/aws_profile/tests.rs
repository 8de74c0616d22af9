use std::fs;

use super::*;

const REREAD: Duration = Duration::from_secs(15);

const CONFIG: &str = "\
[default]
region = eu-central-1

# A comment
[profile one]
region=us-west-2   # here
s3 =
  addressing_style = path
aws_access_key_id = of-config
aws_secret_access_key = of-config

[profile \"two words\"]
region = sa-east-1
[one]
region = not a profile's
[profile sso]
sso_start_url = https://example.com
";

const CREDENTIALS: &str = "\
[default]
aws_access_key_id = key
aws_secret_access_key = secret=with=equals

[one]
AWS_ACCESS_KEY_ID = of-credentials
aws_secret_access_key = secret
aws_session_token = token
[half]
aws_access_key_id = key
";

fn files(dir: &std::path::Path) -> ProfileFiles {
    fs::write(dir.join("config"), CONFIG).unwrap();
    fs::write(dir.join("credentials"), CREDENTIALS).unwrap();
    let variables = [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
    let value = |name: &str| dir.join(name).display().to_string();
    let variables = variables.map(|(variable, name)| (variable.to_owned(), value(name)));
    ProfileFiles::of(&variables.into_iter().collect())
}

#[test]
fn profiles_are_merged_from_both_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let read = |name: &str| files.read(name).unwrap();
    let default = read("default").unwrap();
    assert_eq!(default.get("region"), Some("eu-central-1"));
    let credential = default.credential().unwrap().unwrap();
    assert_eq!((credential.key_id.as_str(), credential.secret_key.as_str()), ("key", "secret=with=equals"));
    assert_eq!(credential.token, None);

    let one = read("one").unwrap();
    assert_eq!((one.get("region"), one.get("addressing_style")), (Some("us-west-2"), None));
    let credential = one.credential().unwrap().unwrap();
    assert_eq!((credential.key_id.as_str(), credential.token.as_deref()), ("of-credentials", Some("token")));

    assert_eq!(read("two words").unwrap().get("region"), Some("sa-east-1"));
    assert_eq!(read("two words").unwrap().credential().unwrap(), None);
    assert!(read("none").is_none());
}

#[test]
fn what_is_not_supported_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let problem = |name: &str| files.read(name).unwrap().unwrap().credential().unwrap_err();
    assert_eq!(problem("sso"), "it uses sso_start_url, which is not supported");
    assert_eq!(problem("half"), "it has aws_access_key_id, but no aws_secret_access_key");
}

#[test]
fn files_are_in_the_home_directory_unless_told() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
    let environment = [("HOME".to_owned(), home.path().display().to_string())];
    let files = ProfileFiles::of(&environment.into_iter().collect());
    assert!(files.read("one").unwrap().unwrap().credential().unwrap().is_some());
    assert!(ProfileFiles::of(&Environment::default()).read("one").unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn rotated_credentials_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let first = files.read("one").unwrap().unwrap().credential().unwrap().unwrap();
    let clock = Clock::system();
    let seams = (clock.clone(), TaskGroup::new("test"));
    let provider = ProfileCredentials::new(files, "one".to_owned(), first, REREAD, seams);
    fs::write(dir.path().join("credentials"), CREDENTIALS.replace("of-credentials", "rotated")).unwrap();
    assert_eq!(provider.get_credential().await.unwrap().key_id, "of-credentials");
    clock.sleep(REREAD).await;
    assert_eq!(provider.get_credential().await.unwrap().key_id, "rotated");
    // A file that is gone, or half written, takes nothing away.
    fs::write(dir.path().join("credentials"), "[one]\naws_access_key_id = only").unwrap();
    fs::write(dir.path().join("config"), "").unwrap();
    clock.sleep(REREAD).await;
    assert_eq!(provider.get_credential().await.unwrap().key_id, "rotated");
}
