//! Publishes texts to word-count, and asks it for counts.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use runtime::{BoxError, grpc};
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
    /// Address of a process of word-count: http://host:port or unix:///path.
    #[arg(
        id = "consumer.address",
        long = "consumer.address",
        env = "CONSUMER_ADDRESS",
        value_name = "URL",
        default_value = "http://localhost:8080",
        global = true
    )]
    address: String,
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
    },
    /// Print n-grams and their counts, a tab between them.
    Query {
        /// What the n-grams begin with.
        #[arg(long, default_value = "")]
        prefix: String,
        /// The shard to ask. Without one it is the shard which counts the n-gram that equals the prefix.
        #[arg(long, default_value = "")]
        shard: String,
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
    let channel = grpc::channel(&cli.address)?;
    let mut client = NGramClient::new(channel).max_decoding_message_size(grpc::MAX_MESSAGE_RECV_CLIENT);
    match cli.command {
        Command::Publish { file } => {
            client.publish(PublishRequest { text: read(&file)? }).await?;
        }
        Command::Query { prefix, shard } => {
            let request = QueryRequest { header: None, prefix, shard };
            let mut out = std::io::stdout().lock();
            for gram in client.query(request).await?.into_inner().grams {
                writeln!(out, "{}\t{}", gram.n_gram, gram.count)?;
            }
        }
    }
    Ok(())
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
