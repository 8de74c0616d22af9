//! Publishes texts to word-count, and asks it for counts.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use auth::{Capability, Grant};
use clap::Parser;
use client::consumer_authorizer_of;
use runtime::config::ConsumerClientArgs;
use runtime::tls::ClientTls;
use runtime::{BoxError, Clock, grpc};
use tonic::Request;
use tonic::transport::Channel;
use word_count::proto::n_gram_client::NGramClient;
use word_count::proto::{PublishRequest, QueryRequest};

/// Publishes texts to word-count, and asks it for counts.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples, with the address which word-count printed:\n  \
        wordcountctl publish --consumer.address=http://127.0.0.1:9000 --file=README.md\n  \
        wordcountctl query --consumer.address=http://127.0.0.1:9000 --prefix=\"how now\""
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Publish the n-grams of a text.
    Publish {
        /// File with the text; - is standard input.
        #[arg(long, default_value = "-")]
        file: PathBuf,
        /// A process of word-count.
        #[command(flatten)]
        consumer: ConsumerClientArgs,
    },
    /// Print n-grams and their counts, a tab between them.
    Query {
        /// What the n-grams begin with.
        #[arg(long, default_value = "")]
        prefix: String,
        /// The shard to ask. Without one it is the shard which counts the n-gram that equals the prefix.
        #[arg(long, default_value = "")]
        shard: String,
        /// A process of word-count.
        #[command(flatten)]
        consumer: ConsumerClientArgs,
    },
}

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BoxError::from)
        .and_then(|threads| threads.block_on(run(Cli::parse())));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcountctl: {}", grpc::chain_text(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), BoxError> {
    match cli.command {
        Command::Publish { file, consumer } => {
            let text = read(&file)?;
            let publish =
                authorized(&consumer, PublishRequest { text }, Grant::everywhere(Capability::APPEND))?;
            connect(&consumer)?.publish(publish).await?;
        }
        Command::Query { prefix, shard, consumer } => {
            let grant = match shard.as_str() {
                "" => Grant::everywhere(Capability::READ),
                shard => Grant::shards(Capability::READ, [shard]),
            };
            let query = authorized(&consumer, QueryRequest { header: None, prefix, shard }, grant)?;
            let mut out = std::io::stdout().lock();
            for gram in connect(&consumer)?.query(query).await?.into_inner().grams {
                writeln!(out, "{}\t{}", gram.n_gram, gram.count)?;
            }
        }
    }
    Ok(())
}

fn connect(args: &ConsumerClientArgs) -> Result<NGramClient<Channel>, BoxError> {
    let tls = ClientTls::load(args.tls.options().client()?, &Clock::system())?;
    let channel = grpc::secure_channel(&args.address, &tls)?;
    Ok(NGramClient::new(channel).max_decoding_message_size(grpc::MAX_MESSAGE_RECV_CLIENT))
}

/// A request with the token that it needs, or the one which was given.
fn authorized<T>(args: &ConsumerClientArgs, message: T, grant: Grant) -> Result<Request<T>, BoxError> {
    let authorizer = consumer_authorizer_of(args)?;
    Ok(authorizer.authorize(Request::new(message), grant.brief(), Clock::system().unix_now()))
}

fn read(file: &std::path::Path) -> Result<String, BoxError> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(text)
}
