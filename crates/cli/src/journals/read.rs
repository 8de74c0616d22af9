//! `courant journals read`: copies the content of journals to a file or to standard output.
//!
//! Without `--block` journals are read one after the other, in order of their names, up to their ends. With it they are
//! read together and forever; content is then written in whole records where the journal says how its records are framed,
//! so that records of different journals do not mix.
//!
//! Offsets that are written at the end never claim content which a crash of the machine could take back: output into a
//! regular file is on its disk before they are replaced.

use super::offsets::{self, Offsets};
use super::whole::WholeRecords;
use crate::session::{SelectorArgs, Session};
use crate::terminal::{Output, Progress};
use client::{Chunk, ReadError, RetryReader, WatchedList};
use proto::labels::CONTENT_TYPE;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{JournalSpec, ListResponse, ReadRequest};
use runtime::signals::Signals;
use runtime::{BoxError, OnError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Chunks which were read and are not written yet.
const CHUNKS_MAX: usize = 16;

/// Options.
#[derive(Debug, clap::Args)]
pub struct ReadArgs {
    #[command(flatten)]
    select: SelectorArgs,
    /// Wait for more content instead of ending where journals end.
    #[arg(long, short = 'b')]
    block: bool,
    /// Begin at the end of journals instead of at their beginning.
    #[arg(long)]
    tail: bool,
    /// Where content goes; `-` is standard output.
    #[arg(long, short = 'o', default_value = "-", value_name = "FILE")]
    output: String,
    /// A JSON file of journals and the offsets to begin at.
    #[arg(long, value_name = "FILE")]
    offsets: Option<PathBuf>,
    /// Where to write the offsets at which to continue, once output into a file is on its disk. If it is also
    /// `--offsets`, that is kept as FILE.previous.
    #[arg(long, value_name = "FILE")]
    offsets_out: Option<PathBuf>,
    /// Where fragment URLs of the file:// scheme are found on this machine; as --broker.file-root.
    #[arg(long, value_name = "DIR")]
    file_root: Option<PathBuf>,
    /// Skip content which was stored before this time, in seconds since 1970.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    from: i64,
}

impl ReadArgs {
    /// Root of `file://` stores, if one was given to this command.
    pub fn file_root(&self) -> Option<&Path> {
        self.file_root.as_deref()
    }
}

/// Runs the command.
pub async fn run(session: &Session, args: ReadArgs) -> Result<(), BoxError> {
    let start = args.offsets.as_deref().map(offsets::load).transpose()?.unwrap_or_default();
    let output = match args.output.as_str() {
        // Without a buffer, and able to tell what it is.
        "-" => std::io::stdout().as_fd().try_clone_to_owned().map(File::from),
        path => File::create(path),
    };
    let output = output.map_err(|e| format!("creating {:?}: {e}", args.output))?;
    let flows = if args.output == "-" { Output::Flows } else { Output::Waits };
    // How much there is to follow, nobody knows.
    let progress = Progress::of_bytes(&session.clock, flows, (!args.block).then_some(0));
    let mut copy = Copy { output, reached: start.clone(), start, progress, args };
    let outcome = if copy.args.block { copy.follow(session).await } else { copy.read_once(session).await };
    // What was written is accounted for, also if reading failed later.
    copy.store_offsets()?;
    outcome
}

struct Copy {
    args: ReadArgs,
    output: File,
    start: Offsets,
    /// Offsets up to which content was written.
    reached: Offsets,
    progress: Progress,
}

/// What a reader found.
enum Found {
    Chunk(Chunk),
    Jump,
    End(Option<BoxError>),
}

impl Copy {
    async fn read_once(&mut self, session: &Session) -> Result<(), BoxError> {
        let selector = self.args.select.parse()?;
        let list = session.request("listing journals", session.client.list(selector.clone())).await?;
        if list.journals.is_empty() {
            return Err(format!("no journal matches {selector}").into());
        }
        for spec in readable(&list) {
            self.progress.say(&spec.name);
            let request = self.request(spec);
            let begin = request.offset.max(0);
            let mut reader = RetryReader::new(session.client.clone(), request);
            loop {
                match next(&mut reader, &spec.name).await {
                    Found::Chunk(chunk) => {
                        self.write(&spec.name, &chunk.bytes, reader.offset())?;
                        let since = |offset: i64| u64::try_from(offset - begin).unwrap_or(0);
                        self.progress.set(since(reader.offset()), since(reader.write_head()));
                    }
                    Found::Jump => {}
                    Found::End(None) => break,
                    Found::End(Some(error)) => return Err(error),
                }
            }
            // The end of a journal which was read from its end is an offset too.
            self.reached.insert(spec.name.clone(), reader.offset().max(0));
        }
        Ok(())
    }

    async fn follow(&mut self, session: &Session) -> Result<(), BoxError> {
        let mut signals = Signals::install()?;
        let mut list = WatchedList::start(session.client.clone(), self.args.select.parse()?, &session.tasks)?;
        let mut followed = BTreeMap::<String, WholeRecords>::new();
        let (sender, mut found) = mpsc::channel(CHUNKS_MAX);
        loop {
            tokio::select! {
                biased;
                _signal = signals.recv() => return Ok(()),
                listing = list.changed() => self.follow_new(session, &*listing?, &mut followed, &sender),
                Some((journal, offset, item)) = found.recv() => {
                    self.on_found(&journal, offset, item, &mut followed)?;
                }
            }
        }
    }

    /// Starts a reader of each journal which has none.
    fn follow_new(
        &self,
        session: &Session,
        list: &ListResponse,
        followed: &mut BTreeMap<String, WholeRecords>,
        sender: &mpsc::Sender<(String, i64, Found)>,
    ) {
        for spec in readable(list) {
            if followed.contains_key(&spec.name) {
                continue;
            }
            followed.insert(spec.name.clone(), WholeRecords::new(spec.label_set().value_of(CONTENT_TYPE)));
            let mut reader = RetryReader::new(session.client.clone(), self.request(spec));
            let (name, sender) = (spec.name.clone(), sender.clone());
            session.tasks.spawn(&format!("read {name}"), OnError::Log, async move {
                loop {
                    let item = next(&mut reader, &name).await;
                    let ended = matches!(item, Found::End(_));
                    if sender.send((name.clone(), reader.offset(), item)).await.is_err() || ended {
                        return Ok(());
                    }
                }
            });
        }
    }

    fn on_found(
        &mut self,
        journal: &str,
        offset: i64,
        item: Found,
        followed: &mut BTreeMap<String, WholeRecords>,
    ) -> Result<(), BoxError> {
        let Some(records) = followed.get_mut(journal) else { return Ok(()) };
        match item {
            Found::Chunk(chunk) => {
                let whole = records.push(&chunk.bytes);
                let written_through = offset - records.held() as i64;
                self.progress.advance(whole.len() as u64);
                self.write(journal, &whole, written_through)
            }
            // What is held will never be whole.
            Found::Jump => self.write(journal, &records.take(), offset),
            Found::End(outcome) => {
                followed.remove(journal);
                outcome.map_or(Ok(()), Err)
            }
        }
    }

    fn request(&self, spec: &JournalSpec) -> ReadRequest {
        let tail = if self.args.tail { -1 } else { 0 };
        ReadRequest {
            journal: spec.name.clone(),
            offset: self.start.get(&spec.name).copied().unwrap_or(tail),
            block: self.args.block,
            begin_mod_time: self.args.from,
            ..Default::default()
        }
    }

    fn write(&mut self, journal: &str, bytes: &[u8], reached: i64) -> Result<(), BoxError> {
        // The error stays what it is: a broken pipe ends the command quietly.
        self.output.write_all(bytes)?;
        self.reached.insert(journal.to_owned(), reached);
        Ok(())
    }

    fn store_offsets(&self) -> Result<(), BoxError> {
        let Some(path) = &self.args.offsets_out else { return Ok(()) };
        self.sync_output().map_err(|e| format!("syncing {:?}: {e}", self.args.output))?;
        let previous =
            (self.args.offsets.as_ref() == Some(path)).then(|| offsets::with_suffix(path, ".previous"));
        offsets::store(path, &self.reached, previous.as_deref())
    }

    /// Brings what was written to the disk, if it went into a file, and that file's name.
    fn sync_output(&self) -> std::io::Result<()> {
        if !self.output.metadata()?.is_file() {
            return Ok(());
        }
        self.output.sync_all()?;
        match self.args.output.as_str() {
            "-" => Ok(()),
            path => offsets::sync_directory_of(Path::new(path)),
        }
    }
}

/// Journals which have content to read now.
fn readable(list: &ListResponse) -> impl Iterator<Item = &JournalSpec> {
    list.journals.iter().filter_map(|j| j.spec.as_ref()).filter(|spec| spec.suspend_level() != Level::Full)
}

async fn next(reader: &mut RetryReader, journal: &str) -> Found {
    match reader.next().await {
        Ok(chunk) => Found::Chunk(chunk),
        Err(ReadError::OffsetJump { from, to }) => {
            tracing::warn!(journal, from, to, "content is missing");
            Found::Jump
        }
        // A journal which is deleted or suspended while it is followed ends.
        Err(ReadError::NotYetAvailable { .. } | ReadError::EndOffset | ReadError::Suspended(_)) => {
            Found::End(None)
        }
        Err(error) => {
            Found::End(Some(format!("reading {journal} at offset {}: {error}", reader.offset()).into()))
        }
    }
}
