//! Journals of every codec and store, written with content whose sums are known, and read in every way that there is:
//! through a broker, from the URLs which brokers sign, and with the tools that everybody has.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::{JournalClient, ReadError, RetryReader};
use fragment::Codec;
use proto::protocol::{AppendRequest, CompressionCodec, Fragment, FragmentsRequest, ReadRequest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime::{BoxError, Clock};
use sha2::{Digest, Sha256};

/// Bytes of text from which appends are cut.
const TEXT_BYTES: usize = 8 << 20;
/// Bytes of an append at most.
const APPEND_BYTES_MAX: u64 = 2 << 20;
/// How long a signed URL is asked to hold.
const URL_TTL_SECONDS: i64 = 3600;
/// Decompresses snappy's framing format. (The command line of Python's `snappy` fails.)
const UNSNAP: &str = "\"$python\" -c 'import snappy, sys; \
                      snappy.stream_decompress(sys.stdin.buffer, sys.stdout.buffer)'";
/// Pause before a journal's fragments are listed again.
const POLL: Duration = Duration::from_millis(500);

/// Journals of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Content of all journals together, bytes.
    pub bytes: u64,
    /// Codecs.
    pub codecs: Vec<Codec>,
    /// Journals of each codec.
    pub rounds: usize,
    /// URL of the store of every other journal of a codec.
    pub file_store: String,
    /// URL of the store of all others.
    pub object_store: String,
    /// `length` of fragments, bytes.
    pub fragment_bytes: u64,
    /// Replicas of each journal.
    pub replication: i32,
}

/// One journal of a plan.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Its name.
    pub name: String,
    codec: Codec,
    store: String,
    /// Whether its fragments lie in directories by date.
    is_partitioned: bool,
}

impl Plan {
    /// The journals, by name.
    pub fn journals(&self) -> Vec<Journal> {
        let journal = |index: usize| {
            let (codec, round) = (self.codecs[index % self.codecs.len()], index / self.codecs.len());
            let name = format!("tiering/{}/{round}", name_of(codec).to_lowercase().replace('_', "-"));
            // The protocol has it that files are not decompressed by their store.
            let is_object = codec == Codec::GzipOffload || round % 2 == 1;
            let store = if is_object { &self.object_store } else { &self.file_store }.clone();
            Journal { name, codec, store, is_partitioned: round / 2 % 2 == 1 }
        };
        let mut journals: Vec<Journal> = (0..self.codecs.len() * self.rounds).map(journal).collect();
        journals.sort_by(|a, b| a.name.cmp(&b.name));
        journals
    }

    /// Their specifications.
    pub fn yaml(&self) -> String {
        let children: Vec<String> = self.journals().iter().map(|journal| self.spec(journal)).collect();
        format!("name: tiering/\nreplication: {}\nchildren:\n{}", self.replication, children.concat())
    }

    fn spec(&self, journal: &Journal) -> String {
        let postfix = match journal.is_partitioned {
            true => "\n    path_postfix_template: 'date={{ .Spool.FirstAppendTime.Format \"2006-01-02\" }}'",
            false => "",
        };
        format!(
            "- name: {}\n  fragment:\n    length: {}\n    compression_codec: {}\n    stores: ['{}']\n    \
             refresh_interval: 5s\n    flush_interval: 1m{postfix}\n",
            journal.name,
            self.fragment_bytes,
            name_of(journal.codec),
            journal.store,
        )
    }
}

fn name_of(codec: Codec) -> &'static str {
    match codec {
        Codec::None => CompressionCodec::None,
        Codec::Gzip => CompressionCodec::Gzip,
        Codec::Zstandard => CompressionCodec::Zstandard,
        Codec::Snappy => CompressionCodec::Snappy,
        Codec::GzipOffload => CompressionCodec::GzipOffloadDecompression,
    }
    .as_str_name()
}

/// What a journal holds: how many bytes, and their SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes.
    pub length: i64,
    /// SHA-256, hex.
    pub sha256: String,
}

#[derive(Default)]
struct Hashing {
    sha256: Sha256,
    length: i64,
}

impl Hashing {
    fn take(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.length += bytes.len() as i64;
    }

    fn content(self) -> Content {
        Content { length: self.length, sha256: hex(&self.sha256.finalize()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lines of a log, as logs are: they compress, though not to nothing.
pub fn text(rng: &mut StdRng) -> Bytes {
    const WORDS: [&str; 12] = [
        "accepted",
        "append",
        "broker",
        "closed",
        "connection",
        "fragment",
        "journal",
        "of",
        "peer",
        "refused",
        "request",
        "stored",
    ];
    let mut text = Vec::with_capacity(TEXT_BYTES + 256);
    while text.len() < TEXT_BYTES {
        let words: Vec<&str> = (0..rng.random_range(4..12)).map(|_| WORDS[rng.random_range(0..12)]).collect();
        let line = format!(
            "{{\"at\":{},\"level\":\"info\",\"trace\":\"{:016x}\",\"message\":\"{}\"}}\n",
            1_700_000_000_000_u64 + rng.random_range(0..100_000_000),
            rng.random::<u64>(),
            words.join(" ")
        );
        text.extend_from_slice(line.as_bytes());
    }
    text.into()
}

/// Appends `bytes` bytes of slices of `text` to a journal.
pub async fn write(
    client: &JournalClient,
    journal: &Journal,
    text: &Bytes,
    bytes: u64,
    seed: u64,
) -> Result<Content, BoxError> {
    let (mut rng, mut written) = (StdRng::seed_from_u64(seed), Hashing::default());
    while (written.length as u64) < bytes {
        let mut append = BytesMut::from(format!("{} {}\n", journal.name, rng.random::<u64>()).as_bytes());
        let left = bytes.saturating_sub(written.length as u64);
        let length = rng.random_range(1..=APPEND_BYTES_MAX.min(left)) as usize;
        let from = rng.random_range(0..text.len() - length);
        append.extend_from_slice(&text[from..from + length]);
        written.take(&append);
        append_to(client, &journal.name, append.freeze()).await?;
    }
    Ok(written.content())
}

/// One append, which must begin where the last one ended for the sums to hold.
async fn append_to(client: &JournalClient, journal: &str, content: Bytes) -> Result<i64, BoxError> {
    let request = AppendRequest { journal: journal.to_owned(), ..AppendRequest::default() };
    let response = client.append(request, content).await?;
    Ok(response.commit.ok_or("an append without a commit")?.end)
}

/// Waits until all of `0..end` is in the journal's store, whose last fragment ends by its flush interval. Fails at `limit`.
pub async fn await_stored(
    client: &JournalClient,
    journal: &Journal,
    end: i64,
    limit: Duration,
) -> Result<(), BoxError> {
    let clock = Clock::system();
    let deadline = clock.now() + limit;
    loop {
        // What is due is rolled by the next append, be it empty.
        let found = append_to(client, &journal.name, Bytes::new()).await?;
        if found != end {
            return Err(format!("{} ends at {found}, and {end} bytes were written", journal.name).into());
        }
        let fragments = fragments(client, journal).await?;
        let is_stored = |(fragment, _): &(Fragment, String)| fragment.mod_time != 0;
        if fragments.last().is_some_and(|(last, _)| last.end == end) && fragments.iter().all(is_stored) {
            return Ok(());
        }
        if clock.now() > deadline {
            return Err(format!("{} is not stored after {limit:?}: {fragments:?}", journal.name).into());
        }
        clock.sleep(POLL).await;
    }
}

/// Appends to a journal that has lost its brokers, and reads what it appended.
pub async fn go_on(client: &JournalClient, journal: &Journal, end: i64) -> Result<(), BoxError> {
    let more = Bytes::from_static(b"and on it goes\n");
    let found = append_to(client, &journal.name, more.clone()).await?;
    let request = ReadRequest {
        journal: journal.name.clone(),
        offset: end,
        block: true,
        end_offset: found,
        ..ReadRequest::default()
    };
    let read = RetryReader::new(client.clone(), request).next().await?;
    if found != end + more.len() as i64 || read.bytes != more {
        return Err(format!("{} went on from {end} to {found} with {read:?}", journal.name).into());
    }
    Ok(())
}

/// The fragments of a journal with their signed URLs, by offset.
async fn fragments(client: &JournalClient, journal: &Journal) -> Result<Vec<(Fragment, String)>, BoxError> {
    let ttl = prost_types::Duration { seconds: URL_TTL_SECONDS, nanos: 0 };
    let request = FragmentsRequest {
        journal: journal.name.clone(),
        signature_ttl: Some(ttl),
        ..FragmentsRequest::default()
    };
    let listed = client.fragments(request).await?.fragments;
    Ok(listed.into_iter().filter_map(|entry| Some((entry.spec?, entry.signed_url))).collect())
}

/// All of a journal, as brokers send it.
pub async fn read_through_broker(
    client: &JournalClient,
    journal: &Journal,
    end: i64,
) -> Result<Content, BoxError> {
    let request =
        ReadRequest { journal: journal.name.clone(), block: true, end_offset: end, ..ReadRequest::default() };
    let (mut reader, mut read) = (RetryReader::new(client.clone(), request), Hashing::default());
    loop {
        match reader.next().await {
            Ok(chunk) => read.take(&chunk.bytes),
            Err(ReadError::EndOffset) => return Ok(read.content()),
            Err(error) => return Err(format!("{}: {error}", journal.name).into()),
        }
    }
}

/// All of a journal, from its store alone: brokers only say where each fragment is.
pub async fn read_from_urls(
    client: &JournalClient,
    journal: &Journal,
    end: i64,
) -> Result<Content, BoxError> {
    let mut read = Hashing::default();
    while read.length < end {
        let request = ReadRequest {
            journal: journal.name.clone(),
            offset: read.length,
            block: true,
            end_offset: end,
            do_not_proxy: true,
            ..ReadRequest::default()
        };
        // No reader which tries again: it would turn to the broker.
        let mut reader = client.read(request);
        loop {
            match reader.next().await {
                Ok(chunk) => read.take(&chunk.bytes),
                Err(ReadError::Closed | ReadError::EndOffset) => break,
                Err(error) => return Err(format!("{}: {error}", journal.name).into()),
            }
        }
    }
    Ok(read.content())
}

/// All of a journal, as `curl`, `gzip`, `zstd`, Python's `snappy` and `sha256sum` have it. File stores are below `root`.
pub async fn read_by_tools(
    client: &JournalClient,
    journal: &Journal,
    root: &Path,
) -> Result<Content, BoxError> {
    let (script, end) = by_tools(client, journal, root).await?;
    let said = bash(&format!("{{\n{script}}} | sha256sum")).await?;
    Ok(Content { length: end, sha256: said.split(' ').next().unwrap_or_default().to_owned() })
}

/// The script which writes a journal's content to standard output, and where the content ends.
async fn by_tools(client: &JournalClient, journal: &Journal, root: &Path) -> Result<(String, i64), BoxError> {
    let (mut script, mut end) = (String::new(), 0);
    for (fragment, url) in fragments(client, journal).await? {
        if fragment.begin != end {
            return Err(
                format!("{}: a fragment begins at {}, not {end}", journal.name, fragment.begin).into()
            );
        }
        end = fragment.end;
        let fetch = match url.strip_prefix("file:///") {
            Some(path) => format!("cat '{}'", root.join(path).display()),
            None => format!("curl --silent --show-error --fail '{url}'"),
        };
        let decompress = match Codec::try_from(fragment.compression_codec)? {
            Codec::None => "cat",
            Codec::Gzip | Codec::GzipOffload => "gzip -dc",
            Codec::Zstandard => "zstd -dc",
            Codec::Snappy => UNSNAP,
        };
        script.push_str(&format!("{fetch} | {decompress}\n"));
    }
    Ok((script, end))
}

/// Runs a script, in which `$python` is a Python that has `snappy`. Gives its standard output.
async fn bash(script: &str) -> Result<String, BoxError> {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/python-snappy.sh");
    let script = format!("set -euo pipefail\npython=$({python})\n{script}");
    let mut bash = tokio::process::Command::new("bash");
    let output = bash.args(["-c", &script]).stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the tools ended with {}: {said}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
