//! The application: keeps rides, and publishes the cycles which they complete.

use std::sync::OnceLock;

use ::message::csv::CsvRecord;
use ::message::{Envelope, Flags, Message};
use client::{Publisher, WatchedList};
use consumer::{Application, Consumed, InitContext, Shard};
use proto::labels;
use proto::protocol::{JournalSpec, LabelSelector};
use recoverylog::Recorder;
use runtime::BoxError;
use store_postgres::PostgresOptions;

use crate::{CYCLE_TYPE, Cycle, Ride, RideStore, api};

/// Options of the application.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "BikeShare")]
pub struct BikeShareArgs {
    /// The PostgreSQL of shards without a recovery log: "host=/var/run/postgresql dbname=rides", or a postgresql:// URL.
    #[arg(
        id = "bikeshare.postgres",
        long = "postgres",
        value_name = "CONNECTION",
        default_value = "host=/var/run/postgresql",
        hide_env_values = true // It may hold a password.
    )]
    postgres: String,
}

/// The application. The state of a shard is a table of the last 20 rides of each bike.
pub struct BikeShare {
    postgres: PostgresOptions,
    /// Journals of cycles, once the process has started.
    cycles: OnceLock<WatchedList>,
}

impl BikeShare {
    /// Name of the application, and of its program.
    pub const NAME: &'static str = "bike-share";

    /// Shards without a recovery log keep their rides in this PostgreSQL, which must have the tables of `rides.sql` and
    /// `checkpoints.sql`. It is not used before there is such a shard.
    pub fn new(postgres: PostgresOptions) -> BikeShare {
        BikeShare { postgres, cycles: OnceLock::new() }
    }

    /// As the options say.
    ///
    /// # Errors
    /// If the connection string is malformed.
    pub fn of_args(args: BikeShareArgs) -> Result<BikeShare, BoxError> {
        Ok(BikeShare::new(PostgresOptions::parse(&args.postgres)?))
    }

    async fn publish(&self, cycle: Cycle, publisher: &mut Publisher) -> Result<(), BoxError> {
        let cycles = self.cycles.get().expect("the process starts before its shards");
        cycles.ready().await?;
        let partitions = cycles.partitions();
        let target = partitions.modulo(cycle.bike_id.to_string().as_bytes());
        let target = target.map_err(|error| format!("journals of {CYCLE_TYPE}: {error}"))?;
        publisher.publish_uncommitted(|_| Ok(target.clone()), cycle)?;
        Ok(())
    }
}

impl Application for BikeShare {
    type Message = CsvRecord;
    type Store = RideStore;

    fn name(&self) -> &'static str {
        BikeShare::NAME
    }

    fn init_application(&self, context: &InitContext) -> Result<axum::Router, BoxError> {
        let cycles = LabelSelector::include([(labels::MESSAGE_TYPE, CYCLE_TYPE)]);
        let cycles = WatchedList::start(context.journals.clone(), cycles, &context.tasks)?;
        self.cycles.set(cycles).map_err(|_| "one value of the application is for one process")?;
        api::router(context)
    }

    async fn new_store(&self, shard: &Shard, recorder: Option<Recorder>) -> Result<RideStore, BoxError> {
        RideStore::open(shard, recorder, self.postgres.clone()).await
    }

    fn new_message(&self, _source: &JournalSpec) -> Result<CsvRecord, BoxError> {
        Ok(CsvRecord::default())
    }

    async fn consume_message(
        &self,
        _shard: &Shard,
        store: &mut RideStore,
        envelope: &Envelope<CsvRecord>,
        publisher: &mut Publisher,
    ) -> Result<Consumed, BoxError> {
        if envelope.message.uuid().flags() == Flags::ACK_TXN {
            return Ok(Consumed::Done);
        }
        let ride = match Ride::of_record(&envelope.message) {
            Ok(ride) => ride,
            Err(error) => {
                // It will never be one, so the shard goes on without it.
                tracing::warn!(journal = %envelope.journal, offset = envelope.begin, %error, "this is no ride");
                return Ok(Consumed::Done);
            }
        };
        let trips = store.add(&ride).await?.unwrap_or_default();
        if let Some(cycle) = Cycle::completed_by(&ride, &trips) {
            self.publish(cycle, publisher).await?;
        }
        Ok(Consumed::Done)
    }

    async fn finalize_txn(
        &self,
        _shard: &Shard,
        _store: &mut RideStore,
        _publisher: &mut Publisher,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}
