//! What the tests of the client share.

use client::testing::StubBroker;
use client::{AppendService, ClientOptions, JournalClient};
use proto::labels;
use proto::protocol::{AppendRequest, LabelSet, ReadRequest};
use runtime::{Clock, TaskGroup};
use std::time::Duration;

/// A broker, its client and an append service.
pub struct Fixture {
    pub tasks: TaskGroup,
    pub broker: StubBroker,
    pub client: JournalClient,
    pub appends: AppendService,
}

impl Fixture {
    /// With journals of JSON messages.
    pub async fn start(journals: &[&str]) -> Fixture {
        let tasks = TaskGroup::new("test");
        let broker = StubBroker::start(&tasks).await.unwrap();
        for journal in journals {
            broker.add_journal(journal, json_labels());
        }
        let client = JournalClient::new(broker.endpoint(), ClientOptions::new(tasks.clone())).unwrap();
        let appends = AppendService::new(client.clone(), tasks.child("appends"));
        Fixture { tasks, broker, client, appends }
    }
}

pub fn json_labels() -> LabelSet {
    LabelSet::from_pairs([(labels::CONTENT_TYPE, labels::CONTENT_TYPE_JSON_LINES)])
}

pub fn append_to(journal: &str) -> AppendRequest {
    AppendRequest { journal: journal.to_owned(), ..Default::default() }
}

pub fn read_from(journal: &str, offset: i64, block: bool) -> ReadRequest {
    ReadRequest { journal: journal.to_owned(), offset, block, ..Default::default() }
}

/// Fails the test if `future` takes longer than anything here should.
pub async fn soon<F: Future>(future: F) -> F::Output {
    Clock::system().timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}
