//! Visits are counted once each, also when the process that counts them dies.

use runtime::BoxError;
use testkit::{TestBroker, TestConsumer, target};
use visits::{COUNTS, Visit, Visits};

async fn visit(broker: &TestBroker, page: &str) -> Result<(), BoxError> {
    let visit = Visit { page: page.to_owned(), ..Visit::default() };
    broker.publisher()?.publish_committed(|_| target("guide/visits"), visit)?.await?;
    Ok(())
}

#[tokio::test]
async fn counts_go_on_after_a_crash() -> Result<(), BoxError> {
    let broker = TestBroker::start().await?;
    broker.create_journals(include_str!("../journals.yaml")).await?;
    let first = TestConsumer::start(&broker, Visits).await?;
    first.create_shards(include_str!("../shards.yaml")).await?;
    visit(&broker, "/index").await?;
    visit(&broker, "/about").await?;
    first.wait_for_shards().await?;
    first.crash().await?;

    let second = TestConsumer::start(&broker, Visits).await?;
    visit(&broker, "/index").await?;
    second.wait_for_shards().await?;
    let counts = broker.committed::<Visit>(COUNTS).await?;
    let counts: Vec<_> = counts.iter().map(|visit| (visit.page.as_str(), visit.count)).collect();
    assert_eq!(counts, [("/index", 1), ("/about", 1), ("/index", 2)]);

    second.stop().await?;
    broker.stop().await
}
