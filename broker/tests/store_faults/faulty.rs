//! A journal whose store fails, and what must be true of it nevertheless.

use std::ops::Range;

use fragment::compress::Levels;
use futures::TryStreamExt;
use proto::JournalName;
use proto::protocol::{
    AppendRequest, FragmentStoreHealthRequest, FragmentsRequest, JournalSpec, ReadRequest, ReadResponse,
    Status,
};
use runtime::{Clock, Entropy, Metrics, TaskGroup};
use store_servers::Variables;
use stores::{StoreTimes, Stores, StoresConfig};

use super::support::{Fixture, content, eventually, journal, within};

/// Bytes of every append: they fill a fragment, which the next append completes.
pub const FULL: usize = 1500;

/// Stores of this test's own, with these variables in their environment.
pub fn stores(variables: Variables) -> Stores {
    Stores::new(StoresConfig {
        file_root: None,
        default_root: None,
        file_only: false,
        environment: variables.into_iter().collect(),
        levels: Levels::default(),
        times: StoreTimes::default(),
        clock: Clock::system(),
        entropy: Entropy::system(),
        tasks: TaskGroup::new("stores of the test"),
        metrics: Metrics::new(),
    })
}

/// A journal, and what was appended to it.
pub struct Faulty {
    pub name: String,
    /// The store as the broker reaches it.
    pub store: String,
    /// The same, as nothing goes wrong with it.
    pub direct: String,
    pub expected: Vec<u8>,
}

impl Faulty {
    /// Creates the journal, whose store works.
    pub async fn create(fixture: &mut Fixture, name: &str, store: &str, direct: &str) -> Faulty {
        fixture.create(spec(name, store)).await;
        Faulty { direct: direct.to_owned(), ..Faulty::of(name, store) }
    }

    /// A journal that there is, and to which nothing was appended.
    pub fn of(name: &str, store: &str) -> Faulty {
        let (name, store) = (name.to_owned(), store.to_owned());
        Faulty { name, direct: store.clone(), store, expected: Vec::new() }
    }

    /// Makes an append of each of `bytes`, over and over.
    pub async fn append(&mut self, fixture: &mut Fixture, bytes: &[u8]) {
        for byte in bytes {
            let piece = [*byte; FULL];
            let request = AppendRequest { journal: self.name.clone(), ..Default::default() };
            let response = fixture.try_append(request, &piece).await.unwrap();
            assert_eq!(response.status(), Status::Ok, "{}: {}", self.name, response.store_health_error);
            self.expected.extend(piece);
        }
    }

    pub async fn until_unhealthy(&self, fixture: &mut Fixture) {
        eventually(&format!("the store of {} counts as unhealthy", self.name), async || {
            let request =
                FragmentStoreHealthRequest { fragment_store: self.store.clone(), ..Default::default() };
            let health = within(fixture.client.fragment_store_health(request)).await.unwrap().into_inner();
            (health.status() == Status::FragmentStoreUnhealthy).then_some(())
        })
        .await;
    }

    /// Spans of the fragments which the broker knows to be stored.
    pub async fn known(&self, fixture: &mut Fixture) -> Vec<(i64, i64)> {
        let request = FragmentsRequest { journal: self.name.clone(), ..Default::default() };
        let fragments = fixture.fragments(request).await.fragments.into_iter().filter_map(|f| f.spec);
        fragments.filter(|spec| spec.mod_time != 0).map(|spec| (spec.begin, spec.end)).collect()
    }

    /// Waits until the store has the fragments of these appends, each in one object which holds what was appended, and no others,
    /// and until the broker knows so.
    pub async fn until_stored(&self, fixture: &mut Fixture, direct: &Stores, appends: Range<usize>) {
        self.until_objects_are(direct, appends.clone()).await;
        eventually(&format!("all of {} is known to be stored", self.name), async || {
            (self.known(fixture).await == spans(appends.clone())).then_some(())
        })
        .await;
    }

    /// Waits until the store has the fragments of these appends, each in one object which holds what was appended, and no others.
    pub async fn until_objects_are(&self, direct: &Stores, appends: Range<usize>) {
        let expected = spans(appends);
        let store = direct.get(&self.direct).unwrap();
        let name = JournalName::parse(&self.name).unwrap();
        let objects = eventually(&format!("all of {} is stored, once", self.name), async || {
            let mut objects = within(store.list(&name)).await.unwrap();
            objects.sort_by_key(|fragment| fragment.begin);
            let spans: Vec<_> = objects.iter().map(|fragment| (fragment.begin, fragment.end)).collect();
            (spans == expected).then_some(objects)
        })
        .await;
        for fragment in objects {
            let chunks = within(store.open(&fragment, fragment.begin)).await.unwrap();
            let found: Vec<bytes::Bytes> = within(chunks.try_collect()).await.unwrap();
            let range = usize::try_from(fragment.begin).unwrap()..usize::try_from(fragment.end).unwrap();
            assert!(found.concat() == self.expected[range], "{}", fragment.content_path());
        }
    }

    /// Reads what there is from `offset` on, which must be all that was appended.
    pub async fn reads_from(&self, fixture: &mut Fixture, offset: usize) {
        let (responses, error) = self.try_read(fixture, offset).await;
        assert!(error.is_none(), "{} from {offset}: {error:?}", self.name);
        assert!(content(&responses) == self.expected[offset..], "{} from {offset}", self.name);
    }

    /// What a read came to which does not wait for content: its responses, and its error.
    pub async fn try_read(
        &self,
        fixture: &mut Fixture,
        offset: usize,
    ) -> (Vec<ReadResponse>, Option<tonic::Status>) {
        let offset = i64::try_from(offset).unwrap();
        let request = ReadRequest { journal: self.name.clone(), offset, ..Default::default() };
        let mut stream = fixture.read(request).await.unwrap();
        let mut responses = Vec::new();
        loop {
            match within(stream.message()).await {
                Ok(Some(response)) => responses.push(response),
                Ok(None) => return (responses, None),
                Err(status) => return (responses, Some(status)),
            }
        }
    }
}

/// The spans of the fragments of these appends.
fn spans(appends: Range<usize>) -> Vec<(i64, i64)> {
    let offset = |number: usize| i64::try_from(number * FULL).unwrap();
    appends.map(|number| (offset(number), offset(number + 1))).collect()
}

/// A journal whose fragments every append of [`FULL`] bytes fills.
pub fn spec(name: &str, store: &str) -> JournalSpec {
    let mut spec = journal(name);
    let fragment = spec.fragment.as_mut().unwrap();
    (fragment.length, fragment.stores) = (1024, vec![store.to_owned()]);
    spec
}
