//! `courant journals append`: appends a file as a whole, or its records one by one.
//!
//! Reading the input blocks, so it happens on a thread of its own, which hands content to the append service. Records wait
//! in memory no further than [`APPENDS_IN_FLIGHT_MAX`] appends ahead of their acknowledgements.

use super::records::{Record, Records};
use crate::output::{bytes_text, count_text};
use crate::session::{SelectorArgs, Session};
use crate::terminal::{Output, Progress};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use client::{AppendFuture, AppendService, WatchedList};
use message::Framing;
use message::mapping::{MappingError, Target};
use proto::JournalName;
use proto::protocol::AppendRequest;
use runtime::{BoxError, Clock, Entropy};
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek};
use std::time::Duration;

/// Appends which were handed to the service and are not acknowledged.
const APPENDS_IN_FLIGHT_MAX: usize = 4096;
/// How often it is looked how far a large append is.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Options.
#[derive(Debug, clap::Args)]
pub struct AppendArgs {
    #[command(flatten)]
    select: SelectorArgs,
    /// What to append; `-` is standard input.
    #[arg(long, short = 'i', default_value = "-", value_name = "FILE")]
    input: String,
    /// How the input divides into records. Each record is one append.
    #[arg(long, short = 'f', value_enum, default_value = "none")]
    framing: FramingArg,
    /// Which of the selected journals receives a record. All but `random` expect a key, framed like a record, before
    /// each record.
    #[arg(long, short = 'm', value_enum, default_value = "random")]
    mapping: Mapping,
    /// Keys of the framing `lines` are base64.
    #[arg(long)]
    base64: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FramingArg {
    /// The whole input is one append.
    None,
    /// Each line is a record.
    Lines,
    /// Each frame of a magic word, a length and its content is a record.
    Fixed,
}

impl FramingArg {
    fn framing(self) -> Option<Framing> {
        match self {
            FramingArg::None => None,
            FramingArg::Lines => Some(Framing::Json),
            FramingArg::Fixed => Some(Framing::Fixed),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mapping {
    /// Any journal.
    Random,
    /// By the hash of the key, modulo the number of journals.
    Modulo,
    /// By the hash of the key, such that few keys move when journals come and go.
    Rendezvous,
    /// The key is the journal's name.
    Direct,
}

/// Runs the command.
pub async fn run(session: &Session, args: AppendArgs) -> Result<(), BoxError> {
    let selector = args.select.parse()?;
    let list = WatchedList::start(session.client.clone(), selector.clone(), &session.tasks)?;
    let listing = session.request("listing journals", list.ready()).await?;
    if listing.journals.is_empty() {
        return Err(format!("no journal matches {selector}").into());
    }
    let service = AppendService::new(session.client.clone(), session.tasks.child("appends"));
    let framing = args.framing.framing();
    let (entropy, clock) = (session.entropy.clone(), session.clock.clone());
    let appender = Appender { service, list, entropy, clock, args };
    let tally = match framing {
        Some(framing) => {
            session.tasks.spawn_blocking("append input", move || appender.append_records(framing)).await?
        }
        None => append_whole(session, appender).await?,
    };
    let journals = match tally.journals.first() {
        Some(only) if tally.journals.len() == 1 => only.to_string(),
        _ => count_text(tally.journals.len(), "journal"),
    };
    eprintln!("appended {}, {}, to {journals}", count_text(tally.records, "record"), bytes_text(tally.bytes));
    Ok(())
}

/// Appends the records of the input, on a thread which may block.
struct Appender {
    service: AppendService,
    list: WatchedList,
    entropy: Entropy,
    clock: Clock,
    args: AppendArgs,
}

/// What was appended.
#[derive(Default)]
struct Tally {
    records: usize,
    bytes: u64,
    journals: BTreeSet<JournalName>,
}

impl Appender {
    fn append_records(&self, framing: Framing) -> Result<Tally, BoxError> {
        let mut tally = Tally::default();
        let mut pending = VecDeque::new();
        let (input, length) = self.open()?;
        let mut progress = Progress::of_bytes(&self.clock, Output::Waits, length).says("appending");
        let mut records = Records::new(input, framing);
        while let Some(record) = records.next()? {
            let (journal, record) = self.route(record, &mut records)?;
            tally.records += 1;
            let appended_bytes = record.frame.len() as u64;
            tally.bytes += appended_bytes;
            if !tally.journals.contains(&journal) {
                tally.journals.insert(journal.clone());
            }
            let appended = self.append(&journal, |slot| {
                slot.extend_from_slice(&record.frame);
            });
            pending.push_back((journal, appended));
            reap(&mut pending, APPENDS_IN_FLIGHT_MAX)?;
            progress.advance(appended_bytes);
        }
        reap(&mut pending, 0)?;
        Ok(tally)
    }

    /// The journal which a record goes to, and the record: it follows its key, if the mapping takes one.
    fn route<R: Read>(
        &self,
        first: Record,
        records: &mut Records<R>,
    ) -> Result<(JournalName, Record), BoxError> {
        let partitions = self.list.partitions();
        if self.args.mapping == Mapping::Random {
            return Ok((name_of(partitions.random(self.entropy.u64()))?, first));
        }
        let key = match (self.args.base64, self.args.framing) {
            (true, FramingArg::Lines) => BASE64_STANDARD
                .decode(first.payload())
                .map_err(|e| format!("{}: not base64: {e}", key_text(&first)))?,
            _ => first.payload().to_vec(),
        };
        let journal = match self.args.mapping {
            Mapping::Modulo => name_of(partitions.modulo(&key))?,
            Mapping::Rendezvous | Mapping::Random => name_of(partitions.rendezvous(&key))?,
            Mapping::Direct => self.named(&key)?,
        };
        let record = records.next()?.ok_or_else(|| format!("{}: no record follows", key_text(&first)))?;
        Ok((journal, record))
    }

    /// The selected journal of this name.
    fn named(&self, key: &[u8]) -> Result<JournalName, BoxError> {
        let name = String::from_utf8_lossy(key);
        let listing = self.list.current();
        let known = listing.journals.iter().any(|j| j.spec.as_ref().is_some_and(|spec| spec.name == name));
        if !known {
            return Err(format!("key {name:?} is not the name of a selected journal").into());
        }
        Ok(JournalName::parse(&name)?)
    }

    /// Begins one append of the whole input, and says how large it is. The input is read before the journal is occupied,
    /// since it may come slowly.
    fn start_whole(&self) -> Result<(JournalName, AppendFuture, u64), BoxError> {
        let fail = |e: std::io::Error| format!("reading {:?}: {e}", self.args.input);
        let mut content = tempfile::tempfile().map_err(|e| format!("making a temporary file: {e}"))?;
        let (mut input, _length) = self.open()?;
        let bytes = std::io::copy(&mut input, &mut content).map_err(fail)?;
        content.rewind().map_err(fail)?;

        let journal = name_of(self.list.partitions().random(self.entropy.u64()))?;
        let request = AppendRequest { journal: journal.as_str().into(), ..Default::default() };
        let mut slot = self.service.start_append(request, Vec::new());
        std::io::copy(&mut content, &mut slot).map_err(fail)?;
        Ok((journal, slot.release(), bytes))
    }

    fn append(&self, journal: &JournalName, write: impl FnOnce(&mut Vec<u8>)) -> AppendFuture {
        let request = AppendRequest { journal: journal.as_str().into(), ..Default::default() };
        let mut slot = self.service.start_append(request, Vec::new());
        let Ok(()) = slot.write_with(|buffer| {
            write(buffer);
            Ok::<(), std::convert::Infallible>(())
        });
        slot.release()
    }

    /// The input, and its length if it is known.
    fn open(&self) -> Result<(Box<dyn Read>, Option<u64>), BoxError> {
        let path = &self.args.input;
        if path == "-" {
            return Ok((Box::new(std::io::stdin().lock()), None));
        }
        let file = File::open(path).map_err(|e| format!("opening {path:?}: {e}"))?;
        let length = file.metadata().ok().filter(|data| data.is_file()).map(|data| data.len());
        Ok((Box::new(file), length))
    }
}

/// One append of the whole input.
async fn append_whole(session: &Session, appender: Appender) -> Result<Tally, BoxError> {
    let service = appender.service.clone();
    let started = session.tasks.spawn_blocking("append input", move || appender.start_whole());
    let (journal, mut appended, bytes) = started.await?;
    let mut progress = Progress::of_bytes(&session.clock, Output::Waits, Some(bytes)).says("appending");
    loop {
        tokio::select! {
            biased;
            outcome = &mut appended => {
                outcome.map_err(|e| format!("appending to {journal}: {e}"))?;
                return Ok(Tally { records: 1, bytes, journals: BTreeSet::from([journal]) });
            }
            () = session.clock.sleep(LOOK_INTERVAL) => progress.set(service.sent_bytes().min(bytes), bytes),
        }
    }
}

/// Waits for the oldest appends until at most `keep` are left.
fn reap(pending: &mut VecDeque<(JournalName, AppendFuture)>, keep: usize) -> Result<(), BoxError> {
    while pending.len() > keep {
        let Some((journal, appended)) = pending.pop_front() else { break };
        appended.wait_blocking().map_err(|e| format!("appending to {journal}: {e}"))?;
    }
    Ok(())
}

/// What the mapping chose. A journal need not have a framing to be appended to.
fn name_of(chosen: Result<&Target, MappingError>) -> Result<JournalName, BoxError> {
    match chosen {
        Ok(target) => Ok(target.journal.clone()),
        Err(MappingError::ContentType { journal, .. }) => Ok(journal),
        Err(MappingError::Empty) => Err("no journal matches the selector any more".into()),
        Err(error) => Err(error.into()),
    }
}

fn key_text(key: &Record) -> String {
    format!("key {:?}", String::from_utf8_lossy(key.payload()))
}
