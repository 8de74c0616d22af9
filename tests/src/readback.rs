//! Reads journals over every way that there is: through each replica, and from the files of the store.
//!
//! A replica is read without proxying. Where its content lies in the store, the broker names the fragment and ends the
//! stream; the file is then read here, so that a reading is what a client of that one broker would get.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auth::{Capability, Grant};
use fragment::Fragment;
use fragment::compress::Decompressor;
use proto::JournalName;
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{
    AppendRequest, AppendResponse, LabelSelector, ListRequest, ListResponse, ReadRequest, Status,
};
use runtime::{BoxError, Clock, Instant};
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::history::{self, Checked, Copy, History};

/// Longest wait for the journals to be served and replicas to be complete. A fragment whose primary died before it was
/// stored is stored by another replica minutes later; until then, a replica that has joined since cannot give it.
const READ_LIMIT: Duration = Duration::from_secs(240);
/// Longest wait for one broker's answer.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Pause before a broker is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where journals are read.
#[derive(Clone, Debug)]
pub struct Readback {
    brokers: Vec<String>,
    /// Root of the `file://` store.
    store: PathBuf,
    caller: Caller,
    clock: Clock,
}

impl Readback {
    /// Journals of these brokers (URLs), all of which store fragments below `store`.
    pub fn new(brokers: Vec<String>, store: &Path, caller: Caller) -> Readback {
        Readback { brokers, store: store.to_owned(), caller, clock: Clock::system() }
    }

    fn client(&self, broker: &str) -> Result<JournalClient<Channel>, BoxError> {
        Ok(JournalClient::new(self.caller.channel(broker)?))
    }

    /// Checks journals that only appenders wrote against their histories. An error names every violation.
    pub async fn check(&self, histories: &BTreeMap<String, History>) -> Result<Checked, BoxError> {
        let mut sum = Checked::default();
        for (journal, history) in histories {
            let (copies, end) = self.copies(journal).await?;
            let checked = history::check(history, &copies, end);
            let checked = checked.map_err(|violations| describe(journal, &violations))?;
            sum.acknowledged += checked.acknowledged;
            sum.unknown_present += checked.unknown_present;
            sum.unknown_absent += checked.unknown_absent;
            sum.bytes += checked.bytes;
            sum.copies += checked.copies;
        }
        Ok(sum)
    }

    /// Compares all readings of every journal that the cluster has. Gives the number of journals.
    pub async fn compare_all(&self) -> Result<usize, BoxError> {
        let listing = self.list(LabelSelector::everything()).await?;
        for journal in &listing.journals {
            let name = journal.spec.as_ref().map_or("", |spec| spec.name.as_str());
            let (copies, end) = self.copies(name).await?;
            let violations = history::compare(&copies, end);
            if !violations.is_empty() {
                return Err(describe(name, &violations));
            }
        }
        Ok(listing.journals.len())
    }

    /// Where the stored content of each journal ends, for those which have some.
    pub async fn stored(&self) -> Result<BTreeMap<String, i64>, BoxError> {
        let listing = self.list(LabelSelector::everything()).await?;
        let mut ends = BTreeMap::new();
        for journal in listing.journals.into_iter().filter_map(|journal| journal.spec) {
            let copies = self.read_store(&journal.name)?;
            if let Some(end) = copies.iter().map(|copy| copy.begin + copy.content.len() as i64).max() {
                ends.insert(journal.name, end);
            }
        }
        Ok(ends)
    }

    /// Checks that every replica serves each journal's stored content, up to the given end at least.
    pub async fn check_served(&self, stored: &BTreeMap<String, i64>) -> Result<(), BoxError> {
        for (journal, stored_end) in stored {
            let (copies, end) = self.copies(journal).await?;
            if end < *stored_end {
                return Err(format!("{journal} ends at {end}, and is stored to {stored_end}").into());
            }
            let violations = history::compare(&copies, end);
            if !violations.is_empty() {
                return Err(describe(journal, &violations));
            }
        }
        Ok(())
    }

    /// What a broker answers to an append of nothing.
    pub async fn append_nothing(&self, broker: &str, journal: &str) -> Result<Status, BoxError> {
        Ok(self.barrier(broker, journal).await?.status())
    }

    async fn barrier(&self, broker: &str, journal: &str) -> Result<AppendResponse, BoxError> {
        let opening = AppendRequest { journal: journal.to_owned(), ..Default::default() };
        let stream = futures::stream::iter([opening, AppendRequest::default()]);
        let request = self.caller.request(stream, Grant::journal(Capability::APPEND, journal));
        let mut client = self.client(broker)?;
        Ok(self.clock.timeout(CALL_LIMIT, client.append(request)).await??.into_inner())
    }

    /// Every reading of a journal, and its write head.
    async fn copies(&self, journal: &str) -> Result<(Vec<Copy>, i64), BoxError> {
        let deadline = self.clock.now() + READ_LIMIT;
        let end = self.write_head(journal, deadline).await?;
        let mut copies = Vec::new();
        for url in self.replicas(journal, deadline).await? {
            let content = self.read_replica(journal, &url, end, deadline).await;
            let content = content.map_err(|err| format!("{journal}: reading {url}: {err}"))?;
            copies.push(Copy { source: url, begin: 0, content, is_whole: true });
        }
        copies.extend(self.read_store(journal)?);
        Ok((copies, end))
    }

    /// Where the journal ends, by an append of nothing.
    async fn write_head(&self, journal: &str, deadline: Instant) -> Result<i64, BoxError> {
        let mut said = "nobody was asked".to_owned();
        for url in self.brokers.iter().cycle() {
            if self.clock.now() > deadline {
                return Err(format!("{journal}: no write head after {READ_LIMIT:?}: {said}").into());
            }
            match self.barrier(url, journal).await {
                Ok(response) => match (response.status(), &response.commit) {
                    (Status::Ok, Some(commit)) => return Ok(commit.end),
                    (status, _) => said = format!("{url}: {}", status.as_str_name()),
                },
                Err(error) => said = format!("{url}: {error}"),
            }
            self.clock.sleep(PAUSE).await;
        }
        Err("there are no brokers".into())
    }

    /// URLs of the brokers that have the journal, once it has as many as it wants.
    async fn replicas(&self, journal: &str, deadline: Instant) -> Result<Vec<String>, BoxError> {
        loop {
            let listing = self.list(LabelSelector::include([("name", journal)])).await?;
            let journal_listed =
                listing.journals.first().ok_or_else(|| format!("{journal} is not listed"))?;
            let wanted = journal_listed.spec.as_ref().map_or(1, |spec| spec.replication) as usize;
            let route = journal_listed.route.clone().unwrap_or_default();
            if route.endpoints.len() >= wanted && route.endpoints.iter().all(|url| !url.is_empty()) {
                return Ok(route.endpoints);
            }
            if self.clock.now() > deadline {
                return Err(format!("{journal} has {route:?} and wants {wanted} replicas").into());
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    async fn list(&self, selector: LabelSelector) -> Result<ListResponse, BoxError> {
        let mut said = String::new();
        for url in &self.brokers {
            let mut client = self.client(url)?;
            let request = ListRequest { selector: Some(selector.clone()), ..Default::default() };
            let request = self.caller.request(request, Grant::everywhere(Capability::LIST));
            let pages = async {
                let mut pages = client.list(request).await?.into_inner();
                let mut all = ListResponse::default();
                while let Some(page) = pages.message().await? {
                    all.journals.extend(page.journals);
                }
                Ok::<_, tonic::Status>(all)
            };
            match self.clock.timeout(CALL_LIMIT, pages).await {
                Ok(Ok(listing)) => return Ok(listing),
                Ok(Err(status)) => said = status.message().to_owned(),
                Err(_) => said = format!("{url} did not answer"),
            }
        }
        Err(format!("listing journals: {said}").into())
    }

    /// What one replica has from offset zero to `end`.
    async fn read_replica(
        &self,
        journal: &str,
        url: &str,
        end: i64,
        deadline: Instant,
    ) -> Result<Vec<u8>, BoxError> {
        let mut client = self.client(url)?;
        let mut content = Vec::new();
        while (content.len() as i64) < end {
            let before = content.len();
            let read = self.read_on(journal, &mut client, &mut content, end);
            let outcome = self.clock.timeout(CALL_LIMIT, read).await;
            if content.len() == before {
                if self.clock.now() > deadline {
                    let said = match outcome {
                        Ok(Ok(status)) => status.as_str_name().to_owned(),
                        Ok(Err(err)) => err.to_string(),
                        Err(_) => "no content came".to_owned(),
                    };
                    return Err(format!("stuck at {before} of {end}: {said}").into());
                }
                self.clock.sleep(PAUSE).await;
            }
        }
        Ok(content)
    }

    /// One Read from where `content` ends. Gives the last status.
    async fn read_on(
        &self,
        journal: &str,
        client: &mut JournalClient<Channel>,
        content: &mut Vec<u8>,
        end: i64,
    ) -> Result<Status, BoxError> {
        let request = ReadRequest {
            journal: journal.to_owned(),
            offset: content.len() as i64,
            block: true,
            do_not_proxy: true,
            end_offset: end,
            ..Default::default()
        };
        let request = self.caller.request(request, Grant::journal(Capability::READ, journal));
        let mut stream = client.read(request).await?.into_inner();
        let mut remote = None;
        while let Some(response) = stream.message().await? {
            if response.status() != Status::Ok {
                return Ok(response.status());
            }
            if response.offset != content.len() as i64 {
                let at = content.len();
                return Err(format!("offset {} came where {at} was expected", response.offset).into());
            }
            content.extend_from_slice(&response.content);
            if let Some(fragment) = response.fragment {
                remote = (!response.fragment_url.is_empty()).then_some(fragment);
            } else {
                remote = None;
            }
        }
        if let Some(fragment) = remote {
            let journal = JournalName::parse(journal)?;
            let stored = self.stored_fragment(&journal, &Fragment::try_from(&fragment)?.content_path())?;
            let skip = (content.len() as i64 - stored.begin) as usize;
            content.extend_from_slice(stored.content.get(skip..).unwrap_or_default());
            content.truncate(end as usize);
        }
        Ok(Status::Ok)
    }

    /// Every stored fragment of a journal.
    fn read_store(&self, journal: &str) -> Result<Vec<Copy>, BoxError> {
        let name = JournalName::parse(journal)?;
        let directory = self.store.join(journal);
        let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(Vec::new()) };
        let mut copies = Vec::new();
        for entry in entries {
            let file = entry?.file_name().into_string().map_err(|name| format!("{name:?} is not UTF-8"))?;
            // Uploads under way have names of their own.
            if Fragment::parse_content_name(&name, &file).is_ok() {
                copies.push(self.stored_fragment(&name, &format!("{journal}/{file}"))?);
            }
        }
        Ok(copies)
    }

    /// A stored fragment, whose name tells span, codec and checksum.
    fn stored_fragment(&self, journal: &JournalName, path: &str) -> Result<Copy, BoxError> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let fragment = Fragment::parse_content_name(journal, name)?;
        let mut content = Vec::new();
        let file = std::fs::File::open(self.store.join(path))?;
        Decompressor::new(fragment.codec, std::io::BufReader::new(file))?.read_to_end(&mut content)?;
        if content.len() as i64 != fragment.len() || fragment::Sum::of(&content) != fragment.sum {
            return Err(format!("{path} does not hold what its name says").into());
        }
        Ok(Copy { source: format!("file {name}"), begin: fragment.begin, content, is_whole: false })
    }
}

fn describe(journal: &str, violations: &[history::Violation]) -> BoxError {
    let lines: Vec<String> = violations.iter().take(20).map(|v| format!("  {v}")).collect();
    format!("{journal}: {} violations:\n{}", violations.len(), lines.join("\n")).into()
}
