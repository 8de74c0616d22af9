//! Brokers that share one etcd.

use std::path::PathBuf;

use broker::{BrokerOptions, EtcdChoice};
use proto::protocol::{LabelSelector, LabelSet, ReadRequest, Route, Status};
use tempfile::TempDir;

use super::{Fixture, content, eventually};

pub const NAME: &str = "a/journal";

/// Brokers beside one that is only there for its embedded etcd.
pub struct Cluster {
    pub etcd: Fixture,
    pub brokers: Vec<Option<Fixture>>,
    adjust: fn(usize, &mut BrokerOptions),
}

impl Cluster {
    pub async fn start(size: usize) -> Cluster {
        Cluster::start_with(size, |_, _| {}).await
    }

    /// With options of each broker, by its index, as `adjust` has them.
    pub async fn start_with(size: usize, adjust: fn(usize, &mut BrokerOptions)) -> Cluster {
        let dir = TempDir::with_prefix("courant-etcd-").unwrap();
        let etcd = Fixture::start_in(dir, |options| options.journal_limit = 0).await;
        let mut cluster = Cluster { etcd, brokers: Vec::new(), adjust };
        for index in 0..size {
            let dir = TempDir::with_prefix("courant-broker-").unwrap();
            let broker = cluster.broker(index, dir).await;
            cluster.brokers.push(Some(broker));
        }
        cluster
    }

    pub async fn broker(&self, index: usize, dir: TempDir) -> Fixture {
        let etcd = EtcdChoice::Address(self.etcd.broker.endpoint().to_owned());
        let store = self.store();
        std::fs::create_dir_all(&store).unwrap();
        Fixture::start_in(dir, |options| {
            options.etcd = etcd;
            options.zone = format!("zone-{}", index % 3);
            options.id = Some(format!("broker-{index}"));
            options.file_root = Some(store);
            options.lease_ttl = std::time::Duration::from_secs(20);
            (self.adjust)(index, options);
        })
        .await
    }

    /// The directory of file stores.
    pub fn store(&self) -> PathBuf {
        self.etcd.dir.path().join("store")
    }

    pub fn at(&mut self, index: usize) -> &mut Fixture {
        self.brokers[index].as_mut().expect("it runs")
    }

    pub async fn stop(&mut self, index: usize) -> TempDir {
        self.brokers[index].take().expect("it runs").stop().await
    }

    pub async fn restart(&mut self, index: usize, dir: TempDir) {
        self.brokers[index] = Some(self.broker(index, dir).await);
    }

    pub async fn route(&mut self) -> Route {
        let name = LabelSelector { include: Some(LabelSet::from_pairs([("name", NAME)])), exclude: None };
        self.etcd.list(name).await[0].journals[0].route.clone().unwrap()
    }

    /// What the broker at `index` has of the journal, from its own replica.
    pub async fn replica(&mut self, index: usize) -> (Status, Vec<u8>) {
        let request = ReadRequest { journal: NAME.to_owned(), do_not_proxy: true, ..Default::default() };
        let status = self.at(index).read_all(request.clone()).await[0].status();
        if status != Status::Ok {
            return (status, Vec::new());
        }
        // A member answers itself, also with what is stored by now, which it would leave to a client that wants no proxy.
        let responses = self.at(index).read_all(ReadRequest { do_not_proxy: false, ..request }).await;
        (status, content(&responses))
    }

    /// Waits until the replicas of the route, and nobody else, have `expected`.
    pub async fn until_replicas_have(&mut self, expected: &[u8]) {
        let route = self.route().await;
        assert_eq!(route.members.len(), 3);
        for index in 0..self.brokers.len() {
            let is_member = route.members.iter().any(|id| id.suffix == format!("broker-{index}"));
            if self.brokers[index].is_none() {
                continue;
            }
            eventually("the replica has it", async || {
                let (status, content) = self.replica(index).await;
                let has = if is_member { Status::Ok } else { Status::NotJournalBroker };
                (status == has && (!is_member || content == expected)).then_some(())
            })
            .await;
        }
    }
}
