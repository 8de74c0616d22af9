//! `make tiering`: journals of every codec, written through a cluster whose brokers are then destroyed with their disks, and
//! read back from the stores alone by new ones. Half of the journals are in a file store, the others in an object store.
//!
//! The last line of standard output is the outcome. The exit status is 0 only if every journal is what was written to it:
//! read through the brokers, read from signed URLs, and put together by the standard tools.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use client::{ClientOptions, JournalClient};
use fragment::Codec;
use futures::{StreamExt, TryStreamExt};
use rand::RngExt;
use runtime::{BoxError, TaskGroup};
use store_servers::S3Server;
use tests::fleet::specs::Copies;
use tests::fleet::{Fleet, FleetOptions, Kind};
use tests::seed;
use tests::tiering::{self, Content, Journal, Plan};

/// Writes journals through a cluster, destroys it, and reads them from their stores.
#[derive(Parser)]
struct Args {
    /// Content of all journals together, MiB.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    mib: u64,
    /// Journals of each codec.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    journals: u64,
    /// Length of fragments, MiB.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1 << 14))]
    fragment_mib: u64,
}

/// Brokers, each in a zone of its own.
const BROKERS: usize = 3;
/// The bucket of the object store.
const BUCKET: &str = "tiering";
/// Journals that are written or read at a time.
const AT_ONCE: usize = 4;
/// Longest wait for what was written to be stored.
const STORED_LIMIT: Duration = Duration::from_secs(600);
/// Longest wait for journals to go on after their brokers' loss.
const RESET_LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(&args)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("tiering failed: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<String, BoxError> {
    let objects = S3Server::start().await?;
    objects.create_bucket(BUCKET).await?;
    let options = FleetOptions {
        envs: objects.environment(),
        brokers: BROKERS,
        zones: BROKERS,
        summers: 0,
        copies: Copies { replication: BROKERS as i32, hot_standbys: 0 },
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::start(options).await?;
    let plan = Plan {
        bytes: args.mib << 20,
        codecs: Codec::ALL.to_vec(),
        rounds: args.journals as usize,
        file_store: "file:///".to_owned(),
        object_store: objects.store_url(BUCKET, "fragments/", objects.endpoint()),
        fragment_bytes: args.fragment_mib << 20,
        replication: BROKERS as i32,
    };
    match tier(&mut fleet, &plan).await {
        Ok(line) => Ok(line),
        Err(err) => {
            fleet.keep_dir();
            Err(format!("{err}\ndata and logs are kept in {}", fleet.dir().display()).into())
        }
    }
}

async fn tier(fleet: &mut Fleet, plan: &Plan) -> Result<String, BoxError> {
    let mut rng = seed::rng("tiering");
    let text = tiering::text(&mut rng);
    let tasks = TaskGroup::new("tiering");
    fleet.apply_journals("tiering.yaml", &plan.yaml()).await?;
    let client = JournalClient::new(&fleet.broker_urls().join(","), ClientOptions::new(tasks.clone()))?;

    let each = plan.bytes / plan.journals().len() as u64;
    let seeds: Vec<u64> = plan.journals().iter().map(|_| rng.random()).collect();
    let writes = plan.journals().into_iter().zip(seeds).map(|(journal, seed)| {
        let (client, text) = (&client, &text);
        async move {
            let content = tiering::write(client, &journal, text, each, seed).await?;
            Ok::<_, BoxError>((journal, content))
        }
    });
    let written: Vec<(Journal, Content)> =
        futures::stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await?;
    let stored = written
        .iter()
        .map(|(journal, content)| tiering::await_stored(&client, journal, content.length, STORED_LIMIT));
    futures::future::try_join_all(stored).await?;
    let bytes: i64 = written.iter().map(|(_, content)| content.length).sum();
    say(fleet, &format!("{bytes} bytes are written to {} journals, and stored", written.len()));

    let brokers = fleet.names(Kind::Broker);
    fleet.kill(&brokers).await?;
    brokers.iter().for_each(|name| fleet.wipe(name));
    fleet.start_members(&brokers).await?;
    say(fleet, "all brokers were killed, lost their disks, and are started anew");

    compare(fleet, &client, &tasks, &written).await?;
    fleet.reset_heads(RESET_LIMIT).await?;
    for (journal, content) in &written {
        tiering::go_on(&client, journal, content.length).await?;
    }
    say(fleet, "every journal goes on");
    let (journals, codecs) = (written.len(), plan.codecs.len());
    Ok(format!("tiering: bytes={bytes} journals={journals} codecs={codecs} identical=true"))
}

/// Reads every journal in every way.
async fn compare(
    fleet: &Fleet,
    client: &JournalClient,
    tasks: &TaskGroup,
    written: &[(Journal, Content)],
) -> Result<(), BoxError> {
    let options = ClientOptions {
        cache_size: written.len(),
        file_root: Some(fleet.store().to_owned()),
        ..ClientOptions::new(tasks.clone())
    };
    let direct = JournalClient::new(&fleet.broker_urls().join(","), options)?;
    for way in ["the brokers", "signed URLs", "the standard tools"] {
        let reads = written.iter().map(|(journal, expected)| {
            let direct = &direct;
            async move {
                let end = expected.length;
                let found = match way {
                    "the brokers" => tiering::read_through_broker(client, journal, end).await,
                    "signed URLs" => tiering::read_from_urls(direct, journal, end).await,
                    _ => tiering::read_by_tools(client, journal, fleet.store()).await,
                }?;
                if found != *expected {
                    let name = &journal.name;
                    return Err(format!(
                        "{name} was written as {expected:?}, and read by {way} as {found:?}"
                    )
                    .into());
                }
                Ok::<_, BoxError>(())
            }
        });
        futures::stream::iter(reads).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        say(fleet, &format!("all journals are read by {way}"));
    }
    Ok(())
}

fn say(fleet: &Fleet, what: &str) {
    eprintln!("tiering: {:5.1} s: {what}", fleet.elapsed().as_secs_f64());
}
