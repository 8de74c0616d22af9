//! `courant serve`: a broker as a process.

use std::process::ExitCode;
use std::time::Duration;

use runtime::BoxError;
use runtime::signals::Signals;

use crate::broker::Broker;
use crate::config::{BrokerOptions, EtcdChoice, ServeArgs};

/// How long a thread that is stuck in the operating system may keep the process.
const THREADS_LIMIT: Duration = Duration::from_secs(2);

/// Runs a broker until a signal asks it to stop, and for as long as it then takes to leave in order. A second signal ends
/// the process at once; its spools are found by the next one.
///
/// What the person who started it must know is printed to standard error, whatever the level of the log.
pub fn serve(args: ServeArgs) -> ExitCode {
    runtime::limits::raise_open_files();
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(threads) => {
            let outcome = threads.block_on(run(args));
            threads.shutdown_timeout(THREADS_LIMIT);
            outcome
        }
        Err(error) => Err(format!("cannot start threads: {error}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("courant: {}", runtime::grpc::chain_text(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: ServeArgs) -> Result<(), BoxError> {
    let _logging = runtime::logging::init(&args.log, "courant")?;
    tracing::info!(options = args.log.given, "broker configuration");
    let options = BrokerOptions::from_args(args)?;
    let etcd = options.etcd.clone();
    let shown_dir = options.data_dir.display().to_string();
    let mut signals = Signals::install()?;
    let broker = match signals.or_stop(Broker::start(options)).await {
        Ok(broker) => broker?,
        Err(signal) => {
            eprintln!("courant: {signal:?} before the broker had started");
            return Ok(());
        }
    };
    let etcd = match etcd {
        EtcdChoice::Embedded => "embedded etcd".to_owned(),
        EtcdChoice::Address(address) => format!("etcd at {address}"),
    };
    eprintln!("courant: serving on {}, data in {shown_dir}, {etcd}", broker.endpoint());
    tracing::info!(id = %broker.id(), endpoint = broker.endpoint(), "starting broker");
    match signals.or_stop(broker.failed()).await {
        Err(signal) => tracing::info!(?signal, "caught signal; one more leaves at once"),
        Ok(()) => tracing::error!("the broker cannot go on"),
    }
    signals.or_leave("courant", broker.stop()).await?;
    tracing::info!("goodbye");
    Ok(())
}
