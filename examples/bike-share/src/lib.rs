//! bike-share: keeps the last rides of each bike in SQL, finds cycles among them, and serves them over HTTP.
//!
//! Rides come as lines of CSV, mapped to partitions by their bikes. [`BikeShare`] keeps the last of them in a table, of
//! PostgreSQL for shards without a recovery log and of SQLite for those with one, and publishes a [`Cycle`] when a bike
//! is back where it was. `GET /api/bikes?id=N` gives the rides of a bike: each process of the group answers, and passes the
//! request on to the one whose shard has the bike.

mod api;
mod app;
mod cycle;
mod header;
mod ride;
mod store;

pub use app::{BikeShare, BikeShareArgs};
pub use cycle::{Cycle, CycleStep};
pub use ride::{Ride, RideError, Trip};
pub use store::{RideReader, RideStore};

/// Label of the journals which hold rides.
pub const RIDE_TYPE: &str = "bike_share.Ride";
/// Label of the journals which hold cycles.
pub const CYCLE_TYPE: &str = "bike_share.Cycle";

/// Path of the API.
pub const BIKES_PATH: &str = "/api/bikes";
