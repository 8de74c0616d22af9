//! Servers for tests, on free ports of the loopback interface or in temporary directories, and what can go wrong on the way
//! to them.
//!
//! [`S3Server`] is `moto` and [`AzureServer`] is `azurite`, as `scripts/setup.sh test` installs them.
//! [`FakeGoogleServer`] is a fake of our own, since no registry has a server which takes the requests of the XML API
//! that clients make; it checks tokens and signed URLs, and decompresses on its way as Google does. [`FakeAzureAd`] gives
//! tokens to applications and keys for signing, which `azurite` does over TLS only. [`FaultProxy`] stands
//! in front of any of them. [`EtcdServer`] and [`PostgresServer`] are the programs of the system. All end when they are
//! dropped. Only tests depend on this crate.

mod azure;
mod azure_ad;
mod etcd;
mod google;
mod http_server;
mod postgres;
mod process;
mod proxy;
mod s3;

pub use azure::AzureServer;
pub use azure_ad::FakeAzureAd;
pub use etcd::EtcdServer;
pub use google::FakeGoogleServer;
pub use postgres::PostgresServer;
pub use proxy::{Effect, Fault, FaultProxy};
pub use s3::S3Server;

/// Environment variables, as (name, value).
pub type Variables = Vec<(String, String)>;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
